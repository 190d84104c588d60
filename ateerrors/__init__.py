"""The error contract: every reason with its code, and how an error travels between services."""
