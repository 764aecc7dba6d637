"""What this process has open: a test that leaves nothing open leaves nothing *new* open.

Handles that earlier tests lost are closed by the garbage collector whenever it runs, in the middle
of another test, too. Therefore sets are compared, never their sizes.
"""

import os


def open_files() -> set[str]:
    """List what this process has open, each as its number and its target."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the handle of this listing
    return found
