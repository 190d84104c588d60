"""The control service: decides what happens to actors; stores it; asks nodes to do it."""
