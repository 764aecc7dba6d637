"""Processes of others: which children they have, and whether they have ended."""

import time
from pathlib import Path


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def has_ended(pid: int) -> bool:
    """Ended; a zombie whose new parent does not reap has ended too."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


WITHOUT_FIRST_THREAD = (
    "import ctypes, threading, time\n"
    "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
    "print(flush=True)\n"
    "ctypes.CDLL(None).pthread_exit(None)\n"
)
"""A program for Python that goes on when its first thread has ended."""

UNTIL_TOLD = WITHOUT_FIRST_THREAD.replace("time.sleep, args=(1000,)", "sys.stdin.read").replace(
    "import ", "import sys, "
)
"""The same, until its standard input is closed."""


def wait_for_its_first_thread_to_end(pid: int) -> None:
    deadline = time.monotonic() + 20
    while not has_ended(pid):
        assert time.monotonic() < deadline, "its first thread never ended"
