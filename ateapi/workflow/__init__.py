"""Resume, suspend and pause: ordered lists of idempotent steps, and who decides when one fails."""
