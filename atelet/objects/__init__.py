"""Where snapshots are kept, behind one interface."""
