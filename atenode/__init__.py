"""What atelet and ateom share on a node: paths and the snapshot manifest."""
