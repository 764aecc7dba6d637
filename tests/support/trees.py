"""Forked children that end with all they have started, however they end, and also if we do.

A test that is out of time has its child killed. What that child has started (fake shims, a fork
server and its workers, strace) would go on for minutes, and so would all of it where this process
is killed. Between a :class:`Tree` and us stands a keeper: whoever loses his parent below it becomes
its child, and it ends them all when the child has ended, or when it hears nothing of us any more.
"""

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from tests.support.children import children_of

_PR_SET_CHILD_SUBREAPER: Final = 36
_MOST_DESCRIPTORS: Final = 1 << 20
_GRACE: Final = 1.0  # for who ends by himself: a frozen filesystem is thawed by such a one
_PATIENCE: Final = 10.0  # for who does not even die


class End(msgspec.Struct, frozen=True):
    """How a tree ended.

    Attributes:
        status: The child's exit status, negative for a signal; None if it was cut short.
        killed: Command lines of those it left behind, which had to be killed.
    """

    status: int | None
    killed: list[str]


class Tree:
    """A forked child and whatever it starts.

    Args:
        body: What the child does; it ends when this returns.

    Attributes:
        pidfd: Readable when all of it has ended.
    """

    def __init__(self, body: Callable[[], object]) -> None:
        alive, self._held = os.pipe()
        self._reported, telling = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._held)
                os.close(self._reported)
                _keep(body, alive, telling)
            finally:
                os._exit(0)  # not through pytest's own exit, which belongs to the parent
        os.close(alive)
        os.close(telling)
        self.pidfd = os.pidfd_open(self._pid)

    def end(self) -> End:
        """End all of it, if it has not ended; wait until it has."""
        os.close(self._held)
        with os.fdopen(self._reported, "rb") as pipe:
            told = pipe.read()
        os.waitpid(self._pid, 0)
        os.close(self.pidfd)
        return msgspec.json.decode(told, type=End) if told else End(None, [])


def _keep(body: Callable[[], object], alive: int, telling: int) -> None:
    """Start the child, wait until it or the parent has ended, and end the rest."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        try:
            os.close(alive)
            os.close(telling)
            body()
        finally:
            os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    low, high = sorted((alive, telling))
    for first, last in ((3, low), (low + 1, high), (high + 1, _MOST_DESCRIPTORS)):
        os.closerange(first, last)  # or whoever has the other ends would not see these closed
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ended: dict[int, int] = {}
    while not _reap(ended, child):
        ready, _, _ = select.select([alive, woken], [], [])
        if alive in ready:
            os.kill(child, signal.SIGKILL)
            break
        os.read(woken, 1 << 16)
    cut_short = child not in ended
    killed = _end_the_rest(ended, woken, set() if child in ended else {child})
    status = None if cut_short else ended.get(child)
    os.write(telling, msgspec.json.encode(End(status, killed)))


def _reap(ended: dict[int, int], child: int) -> bool:
    """Take in who has ended; tell whether the child has."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        ended[pid] = os.waitstatus_to_exitcode(status)
    return child in ended


def _end_the_rest(ended: dict[int, int], woken: int, meant: set[int]) -> list[str]:
    """Kill whoever does not end by himself soon; those whose parent that was come here then."""
    killed: dict[int, str] = {}
    begun = time.monotonic()
    while (left := children_of(os.getpid())) and time.monotonic() - begun < _PATIENCE:
        if time.monotonic() - begun >= _GRACE:
            for pid in left:  # ours, and not reaped yet: it is nobody else
                if pid not in killed and pid not in meant:
                    killed[pid] = _command(pid)
                os.kill(pid, signal.SIGKILL)
        if select.select([woken], [], [], 0.05)[0]:
            os.read(woken, 1 << 16)
        _reap(ended, 0)
    return list(killed.values())


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return str(pid)
    return b" ".join(words).decode(errors="replace").strip() or str(pid)
