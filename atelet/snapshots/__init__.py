"""Snapshots: checkpoint files with a manifest, verified on the way in."""
