"""End to end: the command line against a real containerd, each in a place of its own."""
