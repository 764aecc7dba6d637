"""A FUSE mount whose server never answers: whoever asks it anything waits for ever."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.mountns import mount


def dead_fuse(target: Path) -> int:
    """Mount one; give the server's end, whose closing aborts all that wait. Skip if impossible."""
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    kind = "40000" if target.is_dir() else "100000"
    mount("dead", target, "fuse", 0, f"fd={server},rootmode={kind},user_id=0,group_id=0")
    return server


def end_if_it_hangs(seconds: int = 5) -> None:
    """Have the kernel end this process, a forked child, should it be there for so long.

    Only a signal that nobody handles ends a wait for such a filesystem.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
