"""The end of processes, by pidfd: inits, shims, holders of busy mounts, containerd itself.

One epoll holds them all and sleeps until one ends. A pidfd is a handle, so there is a budget: what
does not fit is not watched, counted, and taken in as soon as another has ended; listings find its
end meanwhile. Every end is reported once, also that of a zombie that nobody reaps: a
look that finds it again would otherwise report it for ever. A living process of the same number is
another one.
"""

import os
import resource
import select
from collections.abc import Collection
from dataclasses import dataclass, field
from errno import EMFILE, ENFILE, ENOMEM
from typing import Final

import anyio

from reconciler.model.ids import BundleKey
from reconciler.model.observations import Hint, HintKind, Resync, ResyncKind
from reconciler.ports import Emit

SHARE: Final = 2
"""One in so many of the handles we may have is for processes."""

_BATCH: Final = 256  # ends reported in one turn of the loop
_MOST_REPORTED: Final = (
    256  # remembered for one bundle; it may be busy for days, with ever new holders
)
_MAX_PID: Final = (1 << 31) - 1
_EXHAUSTED: Final = frozenset({EMFILE, ENFILE, ENOMEM})
_NO_PIDS: Final[frozenset[int]] = frozenset()

_Subject = BundleKey | None
"""Whom it concerns; None for containerd."""

_Interest = tuple[_Subject, HintKind]


@dataclass(slots=True)
class _Process:
    """A process that is watched, and who wants to know."""

    fd: int
    interests: set[_Interest] = field(default_factory=set)


@dataclass(slots=True)
class _Expected:
    """What is expected for one subject, and which ends were reported."""

    pids: dict[HintKind, frozenset[int]] = field(default_factory=dict)
    reported: set[tuple[HintKind, int]] = field(default_factory=set)


class ExitWatch:
    """Reports the end of processes; implements `ports.Exits`.

    Args:
        budget: Most handles at a time; by default a share of RLIMIT_NOFILE.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._budget = _default_budget() if budget is None else budget
        self._epoll: select.epoll | None = None
        self._by_pid: dict[int, _Process] = {}
        self._by_fd: dict[int, int] = {}
        self._unwatched: dict[int, set[_Interest]] = {}
        self._expected: dict[_Subject, _Expected] = {}
        self._emit: Emit | None = None
        self._outbox: list[_Interest] = []

    def __len__(self) -> int:
        return len(self._by_pid)

    # ------------------------------------------------------------------ what to expect

    def expect(self, key: BundleKey, *, init: int | None, shim: int | None) -> None:
        """Watch these processes for this bundle from now on, in place of earlier ones."""
        self._replace(key, HintKind.INIT_EXIT, _NO_PIDS if init is None else frozenset((init,)))
        self._replace(key, HintKind.SHIM_EXIT, _NO_PIDS if shim is None else frozenset((shim,)))

    def expect_holders(self, key: BundleKey, pids: Collection[int]) -> None:
        """Watch the processes that keep a bundle busy."""
        self._replace(key, HintKind.HOLDER_EXIT, frozenset(pids))

    def expect_containerd(self, pid: int | None) -> None:
        """Watch containerd itself; None leaves the one that is watched."""
        if pid is not None:
            self._replace(None, HintKind.CONTAINERD, frozenset((pid,)))

    def forget(self, key: BundleKey) -> None:
        """Drop whatever is watched for a bundle."""
        expected = self._expected.pop(key, None)
        if expected is not None:
            for kind, pids in expected.pids.items():
                for pid in pids:
                    self._release(pid, (key, kind))

    # ------------------------------------------------------------------ running

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled, and close."""
        self._emit = emit
        try:
            while self._outbox:
                self._report_end(self._outbox.pop(0))
            epoll = self._open()
            while epoll is not None:
                await anyio.wait_readable(epoll.fileno())
                for fd, _ in epoll.poll(0, _BATCH):
                    self._ended(self._by_fd[fd])
        finally:
            self._emit = None
            self.close()

    def close(self) -> None:
        """Give all handles back and expect nothing any more."""
        for pid in list(self._by_pid):
            self._discard(pid)
        self._unwatched.clear()
        self._expected.clear()
        self._outbox.clear()
        if self._epoll is not None:
            self._epoll.close()
        self._epoll = None

    # ------------------------------------------------------------------ inside

    def _replace(self, subject: _Subject, kind: HintKind, pids: frozenset[int]) -> None:
        expected = self._expected.get(subject)
        if expected is None:
            if not pids:
                return
            expected = self._expected[subject] = _Expected()
        before = expected.pids.get(kind, _NO_PIDS)
        if pids == before and pids.isdisjoint(self._unwatched):
            return
        expected.pids[kind] = pids
        for pid in before - pids:
            self._release(pid, (subject, kind))
        for pid in pids:
            self._watch(pid, (subject, kind))

    def _watch(self, pid: int, interest: _Interest) -> None:
        process = self._by_pid.get(pid)
        if process is not None:
            process.interests.add(interest)
            return
        if not 0 < pid <= _MAX_PID:
            return
        epoll = self._open()
        if epoll is None or len(self._by_pid) >= self._budget:
            self._unwatched.setdefault(pid, set()).add(interest)
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            self._cannot_watch(pid, interest, error)
            return
        if self._was_reported(pid, interest) and _is_over(fd):
            os.close(fd)
            return
        epoll.register(fd, select.EPOLLIN)
        self._by_pid[pid] = _Process(fd, {interest, *self._unwatched.pop(pid, ())})
        self._by_fd[fd] = pid

    def _cannot_watch(self, pid: int, interest: _Interest, error: OSError) -> None:
        if error.errno in _EXHAUSTED:
            self._unwatched.setdefault(pid, set()).add(interest)
        elif isinstance(error, ProcessLookupError) and not self._was_reported(pid, interest):
            self._report_end(interest, pid)

    def _ended(self, pid: int) -> None:
        interests = self._by_pid[pid].interests
        self._discard(pid)
        for interest in interests:
            self._report_end(interest, pid)
        self._take_in_unwatched()

    def _report_end(self, interest: _Interest, pid: int = 0) -> None:
        subject, kind = interest
        expected = self._expected.get(subject)
        if expected is not None and pid:
            # Gone from what is expected, so that another process of this number is watched anew.
            expected.pids[kind] = expected.pids.get(kind, _NO_PIDS) - {pid}
            if len(expected.reported) >= _MOST_REPORTED:
                expected.reported.clear()
            expected.reported.add((kind, pid))
        if self._emit is None:
            self._outbox.append(interest)
        else:
            resync = Resync(ResyncKind.CONTAINERD)
            self._emit(resync if subject is None else Hint(subject, kind))

    def _was_reported(self, pid: int, interest: _Interest) -> bool:
        subject, kind = interest
        expected = self._expected.get(subject)
        return expected is not None and (kind, pid) in expected.reported

    def _release(self, pid: int, interest: _Interest) -> None:
        waiting = self._unwatched.get(pid)
        if waiting is not None:
            waiting.discard(interest)
            if not waiting:
                del self._unwatched[pid]
        process = self._by_pid.get(pid)
        if process is not None:
            process.interests.discard(interest)
            if not process.interests:
                self._discard(pid)
                self._take_in_unwatched()

    def _take_in_unwatched(self) -> None:
        while self._unwatched and len(self._by_pid) < self._budget:
            pid, interests = self._unwatched.popitem()
            for interest in interests:
                self._watch(pid, interest)
            if pid in self._unwatched:
                return  # there is still no handle to be had

    def _discard(self, pid: int) -> None:
        process = self._by_pid.pop(pid)
        del self._by_fd[process.fd]
        if self._epoll is not None:
            # By hand: a fork that inherited the handle would keep it in the epoll after close.
            self._epoll.unregister(process.fd)
        os.close(process.fd)

    def _open(self) -> select.epoll | None:
        if self._epoll is None:
            try:
                self._epoll = select.epoll()
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
        return self._epoll


def _is_over(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _default_budget() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_PID if soft == resource.RLIM_INFINITY else soft // SHARE
