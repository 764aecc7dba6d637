"""Watching, on the real kernel: directories, mounts and processes of the tests' own."""
