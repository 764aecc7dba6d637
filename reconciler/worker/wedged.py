"""Wedged: living shims that accept a connection and never answer. Asked only where it is wanted.

containerd connects to each shim when it starts, and waits: one that is stopped, or stuck in the
kernel, can hold up its whole start. Watching never talks to a shim; on request each identified one
is sent one short request over ttrpc, `Task.Connect` (ttrpc `PROTOCOL.md`; containerd
`api/runtime/task/v2|v3/shim.proto`), which changes nothing. Whatever it answers, an error too, is
an answer. A request goes only to the socket at which the shim of the bundle listens, by the
kernel's own table; what comes back is bounded and not looked into.

One that is wedged may be ended before containerd starts, where the operator says so, if nobody of
its pod lives. It is proven and ended as an abandoned one is.
"""

import os
import select
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import ClassVar, Final, NamedTuple

from typing_extensions import override

from reconciler import kernel
from reconciler.clock import Deadline
from reconciler.decide.verdicts import CGROUP_CLEAR, INIT_GONE
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import (
    Answer,
    ContainerdState,
    Entries,
    Look,
    PartialLook,
    RuntimeState,
    ShimState,
)
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.outcome import Outcome
from reconciler.probe.bundle import look_at
from reconciler.probe.listeners import listens
from reconciler.probe.locks import LockState, lock_holder
from reconciler.worker.abandoned import Ending
from reconciler.worker.context import WorkerContext
from reconciler.worker.messages import EndWedgedJob, Ping, Pinged, PingJob
from reconciler.worker.second_look import NotLeftover, Seen, look_again

PATIENCE: Final = 2.0
"""Seconds in which a shim must answer; containerd waits longer, for each, one after the other."""

AT_ONCE: Final = 64

_HEADER: Final = struct.Struct(">IIBB")  # length, stream, type, flags
_REQUEST, _STREAM = 1, 1
_SERVICES: Final = {True: b"containerd.task.v3.Task", False: b"containerd.task.v2.Task"}
_CHUNK: Final = 4096
_ALIEN: Final = "the runtime is not shown to be runc"


class _Connection(NamedTuple):
    """Where a shim listens, and what it is asked."""

    path: bytes
    pid: int
    request: bytes


def ask_shims(place: WorkerContext, job: PingJob) -> Pinged:
    """Ask the shims of bundles, each once however many it serves."""
    doors: dict[BundleKey, _Connection | str] = {key: _door(place, key) for key in job.keys}
    wanted = dict.fromkeys(one for one in doors.values() if isinstance(one, _Connection))
    answers = _ask(tuple(wanted))
    pings = []
    for key, door in doors.items():
        if isinstance(door, str):
            pings.append(Ping(key, Answer.NONE, detail=door))
        else:
            pings.append(Ping(key, answers[door], door.pid))
    return Pinged(tuple(pings))


def end_wedged(place: WorkerContext, job: EndWedgedJob) -> Outcome:
    """Judge the bundle once more and end its shim if that is wedged and nobody of it lives."""
    return _EndingWedged(place, job).run()


class _EndingWedged(Ending):
    """One attempt to end a wedged shim, while containerd is down."""

    grace_ms: ClassVar[int | None] = 1000  # who answers nobody hardly listens to a signal

    def __init__(self, place: WorkerContext, job: EndWedgedJob) -> None:
        super().__init__(place, job)
        self._context, self._wanted = place, job
        self._looks = 0

    @override
    def judge(self) -> Seen:
        context, job = self._context, self._wanted
        seen = look_again(context, job, Verdict.STOPPED)
        if job.containerd.state is not ContainerdState.DOWN:
            raise NotLeftover("containerd is not proven down", seen.look)
        if seen.look.init.state not in INIT_GONE or seen.look.cgroup not in CGROUP_CLEAR:
            raise NotLeftover("somebody may live in it", seen.look)
        if not _is_runcs(seen.look):
            raise NotLeftover(_ALIEN, seen.look)
        self._looks += 1
        if self._looks == 1:
            return seen  # it was asked a moment ago, and will be once more, before the signal
        (ping,) = ask_shims(context, PingJob((job.key,))).pings
        if ping.answers is not Answer.NO:
            raise NotLeftover(ping.detail or "its shim answers", seen.look)
        # Last of all: containerd takes the lock before it connects to any shim.
        lock = lock_holder(context.layout.metadata_lock)
        if lock.state not in {LockState.FREE, LockState.ABSENT}:
            raise NotLeftover("containerd may have started meanwhile", seen.look)
        return seen

    @override
    def objection(self, member: BundleKey, look: Look) -> str:
        # Nobody lives in it, and its shim answers nobody: that can be told of runc's alone.
        return "" if _is_runcs(look) else f"of {member}, of the same shim, {_ALIEN}"


def _is_runcs(look: Look) -> bool:
    """Return whether a bundle's files name runc's shim: what lives of another one is not seen."""
    return look.runtime.state is RuntimeState.KNOWN


def _door(place: WorkerContext, key: BundleKey) -> _Connection | str:
    """Find where the shim of a bundle listens; or say why it is not asked."""
    scanned = place.scan()
    found = look_at(place.nearby(scanned), key)
    look = found.look if isinstance(found, PartialLook) else found
    if look is None or look.shim.state is not ShimState.ALIVE or not look.shim.socket:
        return "no shim of it is known to live by its socket"
    path, group = unescape(look.shim.socket), look.shim.group or key.id
    address = escape(place.layout.address)
    for shim in scanned.shims:
        if (shim.key, shim.address) != (BundleKey(key.namespace, group), address):
            continue
        with suppress(OSError):
            if listens(shim.pid, path):
                return _Connection(path, shim.pid, _request(group, look))
    return "which process listens at its socket cannot be known"


def _request(id_: str, look: Look) -> bytes:
    """Put a request together; every part of it is shorter than 128 bytes, so its length is one."""
    is_new = bool(look.entries & Entries.BOOTSTRAP)
    payload = _field(1, unescape(id_))
    body = _field(1, _SERVICES[is_new]) + _field(2, b"Connect") + _field(3, payload)
    return _HEADER.pack(len(body), _STREAM, _REQUEST, 0) + body


def _field(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | 2, len(value))) + value


def _ask(doors: tuple[_Connection, ...]) -> Mapping[_Connection, Answer]:
    answers: dict[_Connection, Answer] = {}
    for begin in range(0, len(doors), AT_ONCE):
        answers |= _ask_some(doors[begin : begin + AT_ONCE])
    return answers


def _ask_some(doors: Iterable[_Connection]) -> dict[_Connection, Answer]:
    """Ask some of them at once; whoever has not answered in time is wedged."""
    answers: dict[_Connection, Answer] = {}
    poll, deadline, left = select.poll(), Deadline(PATIENCE), 0
    waiting: dict[int, tuple[_Connection, socket.socket]] = {}
    try:
        for door in doors:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            waiting[connection.fileno()] = (door, connection)
            answers[door] = _send(connection, door)
            if answers[door] is Answer.YES:  # sent: no, unless something comes back
                poll.register(connection, select.POLLIN)
                answers[door], left = Answer.NO, left + 1
        while left and (milliseconds := int(deadline.left * 1000)) > 0:
            for fd, _ in poll.poll(milliseconds):
                door, connection = waiting[fd]
                poll.unregister(fd)
                left -= 1
                answers[door] = _received(connection)
    finally:
        for _, connection in waiting.values():
            connection.close()
    return answers


def _send(connection: socket.socket, door: _Connection) -> Answer:
    """Send the request: yes if it was sent, no if the backlog is full: nobody accepts."""
    directory, _, name = door.path.rpartition(b"/")
    try:
        parent = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return Answer.NONE
    try:
        seen = kernel.statx(parent, name)
        if seen.is_mount_root or seen.is_automount:
            return Answer.NONE
        connection.connect(b"/proc/self/fd/%d/%b" % (parent, name))
        connection.send(door.request)
    except BlockingIOError:
        return Answer.NO
    except OSError:
        return Answer.NONE  # it has ended meanwhile
    finally:
        os.close(parent)
    return Answer.YES


def _received(connection: socket.socket) -> Answer:
    """Take what has come; a connection that only ends is no answer."""
    try:
        return Answer.YES if connection.recv(_CHUNK) else Answer.NONE
    except OSError:
        return Answer.NONE
