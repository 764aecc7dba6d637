"""Garbage: when Python looks for it. Not while we load, and not among what is kept to the end.

Looking for it while everything is loaded, and again four times at the exit, takes a fifth of the
processor time of a short command, and finds next to nothing.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def collect_from_now_on() -> None:
    """Look for garbage from now on, if that was put off, but not among what is there."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Look for no garbage meanwhile; afterwards as before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
