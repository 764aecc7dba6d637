"""journald: how its reader learns the level of a line on standard error (systemd.exec(5)).

A service's standard error is a socket of the journal, and ``JOURNAL_STREAM`` names it by device and
inode. A line that begins with ``<N>`` has the level N of syslog(3) then, for `journalctl -p`.
Anywhere else the prefix would only be in the way.
"""

import os
from collections.abc import Mapping
from typing import Final

ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6
DEBUG: Final = 7
"""Levels as syslog(3) numbers them."""


def is_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a descriptor is the journal's own and was not redirected elsewhere."""
    said = environ.get("JOURNAL_STREAM")
    if not said:
        return False
    try:
        there = os.fstat(descriptor)
    except OSError:
        return False
    return said == f"{there.st_dev}:{there.st_ino}"


def prefix(level: int, descriptor: int = 2) -> str:
    """Give what a line of this level begins with on this descriptor."""
    return f"<{level}>" if is_journal(descriptor) else ""
