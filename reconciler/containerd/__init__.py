"""Containerd: the second witness. Asks over its socket; "down" is not "no answer"."""
