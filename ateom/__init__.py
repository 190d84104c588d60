"""The program that drives the sandboxes of a node: one process, N worker slots."""
