"""Containerd: the second witness. Asks over its socket, and tells "down" from "no answer"."""
