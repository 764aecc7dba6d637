"""The worker process: a small start, no more than one job, and an end when nobody wants it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import get_args

import msgspec
import pytest

from reconciler.model.debris import DebrisKind, Place, PlaceKey
from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import Layout
from reconciler.probe.privileges import WORKER, numbers
from reconciler.worker import serve
from reconciler.worker.channel import Channel, LostError, MessageError, ProgressFile, pack
from reconciler.worker.client import FROM_FORK_SERVER, FROM_WORKER
from reconciler.worker.messages import (
    VERSION,
    Answered,
    CleanJob,
    CleanupOptions,
    DebrisJob,
    EndShimJob,
    EndWedgedJob,
    Exited,
    FinishJob,
    FromWorker,
    Hello,
    InventoryJob,
    Job,
    Kill,
    KillJob,
    LockJob,
    LookJob,
    PingJob,
    PreflightJob,
    ScanJob,
    Scanned,
    Spawn,
    ToWorker,
    WorkerScope,
)
from tests.support.forked import mask, status_of
from tests.support.handles import open_files

SCOPE = WorkerScope(Layout(b"/s", b"/r", b"/s/c.sock", b"/s"))
HEAVY = {"anyio", "asyncio", "grpclib", "google", "rich", "structlog", "click", "logging", "typer"}


def test_loads_nothing_that_file_work_does_not_need() -> None:
    script = "import sys, reconciler.worker.forkserver; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.decode().split())


@contextmanager
def fork_server() -> Iterator[tuple[Channel[Exited], "subprocess.Popen[bytes]"]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    command = [sys.executable, "-m", "reconciler.worker.forkserver", str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process, ours:
        theirs.close()
        control = Channel(ours, FROM_FORK_SERVER)
        control.send(SCOPE)
        yield control, process
        ours.close()
        assert process.wait(10) == 0


def spawn(control: Channel[Exited], number: int) -> Channel[FromWorker]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    progress = os.memfd_create("progress")
    with theirs:
        control.send(Spawn(number), [theirs.fileno(), progress])
    os.close(progress)
    return Channel(ours, FROM_WORKER)


def test_a_child_says_hello_serves_and_ends_with_its_socket() -> None:
    with fork_server() as (control, _):
        child = spawn(control, 7)
        with child.socket:
            hello = child.receive()
            assert isinstance(hello, Hello)
            assert hello.version == VERSION
            for _ in range(2):
                child.send(ScanJob())
                answer = child.receive()
                assert isinstance(answer, Scanned)
                assert answer.processes.answered
        assert control.receive() == Exited(7, 0)


def test_many_requests_at_once_are_told_apart() -> None:
    with fork_server() as (control, _):
        children = [spawn(control, number) for number in range(5)]
        pids = set()
        for child in children:
            hello = child.receive()
            assert isinstance(hello, Hello)
            pids.add(hello.pid)
        assert len(pids) == 5
        control.send(Kill(3))
        assert control.receive() == Exited(3, -signal.SIGKILL)
        assert children[3].receive() is None
        for child in children:
            child.socket.close()
        ended = set()
        for _ in range(4):
            message = control.receive()
            assert message is not None
            ended.add(message.worker)
        assert ended == {0, 1, 2, 4}


def test_a_fork_server_ends_its_workers_with_itself() -> None:
    with fork_server() as (control, process):
        child = spawn(control, 1)
        hello = child.receive()
        assert isinstance(hello, Hello)
        os.kill(hello.pid, signal.SIGSTOP)  # it cannot notice anything by itself
        control.socket.close()
        assert process.wait(10) == 0
        assert child.receive() is None
        child.socket.close()


def test_ctrl_c_and_termination_are_the_parents_to_hear() -> None:
    with fork_server() as (control, process):
        child = spawn(control, 1)
        hello = child.receive()
        assert isinstance(hello, Hello)
        for pid in (process.pid, hello.pid):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        child.send(ScanJob())
        assert isinstance(child.receive(), Scanned)
        child.socket.close()


KEY, OBJECT = BundleKey("default", "c1"), Identity(1, 2, 3)
SAID = Containerd(ContainerdState.DOWN)
PLACE = Place(PlaceKey(DebrisKind.CGROUP, "/default/c1"), OBJECT, KEY.namespace, KEY.id)
JOBS: tuple[Job, ...] = (
    CleanJob(KEY, OBJECT, SAID, CleanupOptions(settle=1.0, lazy_unmount=True)),
    KillJob(KEY, OBJECT, SAID),
    EndShimJob(KEY, OBJECT, SAID),
    EndWedgedJob(KEY, OBJECT, SAID),
    PingJob((KEY,)),
    FinishJob(KEY, OBJECT),
    DebrisJob((PLACE,), SAID),
    ScanJob(),
    InventoryJob(),
    PreflightJob(),
    LookJob((KEY,), frozenset(), near=True),
    LockJob(owner=True),
)


def test_no_job_names_a_tree_or_a_program() -> None:
    """Whoever has taken the parent over chooses neither: a worker works in the scope told first."""
    assert {type(job) for job in JOBS} == set(get_args(Job))
    said: list[object] = [msgspec.to_builtins(job) for job in JOBS]
    words = set[str]()
    while said:
        one = said.pop()
        assert not isinstance(one, bytes | memoryview)
        if isinstance(one, dict):
            said += one.values()
        elif isinstance(one, list | tuple):
            said += one
        elif isinstance(one, str):
            words.add(one)
    names = {type(job).__name__ for job in JOBS}
    of_place = {PLACE.key.kind.value, PLACE.key.path}  # where an inventory of a worker found it
    assert words == {*KEY, SAID.state.value, *of_place, *names}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_what_a_job_says_of_another_place_is_not_heard(job: Job) -> None:
    elsewhere = {"layout": Layout(b"/x"), "runc": "/x", "scope": WorkerScope(Layout(), "/x")}
    said = msgspec.msgpack.encode(msgspec.to_builtins(job) | elsewhere)
    assert serve.DECODER.decode(said) == job


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_in_the_scope_told_first_it_works(job: Job) -> None:
    with fork_server() as (control, _):
        child = spawn(control, 1)
        with child.socket:
            assert isinstance(child.receive(), Hello)
            child.send(job)
            assert isinstance(child.receive(), get_args(Answered))


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([SCOPE, WorkerScope(Layout(), "/bin/sh")], b"a second time"),
        ([Spawn(1)], b"not told where to work"),
    ],
    ids=["told twice", "not told"],
)
def test_the_scope_is_told_once_and_before_a_worker_is_made(
    messages: list[WorkerScope | Spawn], why: bytes
) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    command = [sys.executable, "-m", "reconciler.worker.forkserver", str(theirs.fileno())]
    with (
        ours,
        subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE) as process,
    ):
        theirs.close()
        control = Channel(ours, FROM_FORK_SERVER)
        for message in messages:
            control.send(message, [2, 2] if isinstance(message, Spawn) else ())
        assert control.receive() is None
        assert process.wait(10) == 1
        assert process.stderr is not None
        assert why in process.stderr.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have capabilities")
def test_both_hold_what_a_cleanup_needs_and_hooks_get_what_the_unit_grants() -> None:
    bounding = status_of()["CapBnd"]
    held = mask(numbers(WORKER)) & bounding
    with fork_server() as (control, process):
        child = spawn(control, 1)
        with child.socket:
            hello = child.receive()
            assert isinstance(hello, Hello)
            for pid in (process.pid, hello.pid):
                found = status_of(pid)
                assert (found["CapPrm"], found["CapEff"]) == (held, held)
                assert (found["CapInh"], found["CapAmb"]) == (0, 0)
                assert found["CapBnd"] == bounding


def serve_in_a_fork(job: socket.socket, idle: float) -> int:
    pid = os.fork()
    if pid == 0:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(serve, "IDLE_SECONDS", idle)
            serve.Worker(job, ProgressFile(-1), SCOPE).run()
        os._exit(0)
    job.close()
    return pid


def test_a_child_without_a_job_ends_after_a_while_and_refuses_first() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    pid = serve_in_a_fork(theirs, 0.05)
    try:
        channel = Channel(ours, FROM_WORKER)
        assert isinstance(channel.receive(), Hello)
        assert channel.receive() is None
        with pytest.raises(LostError):
            channel.send(ScanJob())
    finally:
        ours.close()
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@contextmanager
def worker_end() -> Iterator[tuple[socket.socket, Channel[ToWorker]]]:
    """Give a socket, and the channel on which a worker would read what is written there."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(0.0)
    with ours, theirs:
        yield ours, Channel(theirs, serve.DECODER)


def test_a_message_of_another_kind_is_refused() -> None:
    with worker_end() as (ours, channel):
        ours.sendall(pack(Kill(1)))
        assert channel.fill()
        with pytest.raises(MessageError):
            channel.pending()


def test_messages_come_whole_however_the_bytes_come() -> None:
    got = []
    with worker_end() as (ours, channel):
        for byte in pack(ScanJob()) * 3:
            assert channel.fill() is None
            ours.sendall(bytes([byte]))
            assert channel.fill()
            while (message := channel.pending()) is not None:
                got.append(message)
    assert got == [ScanJob()] * 3


def test_an_absurd_length_is_refused_before_it_is_waited_for() -> None:
    with worker_end() as (ours, channel):
        ours.sendall(b"\xff\xff\xff\xff")
        assert channel.fill()
        with pytest.raises(MessageError):
            channel.pending()


def test_handles_that_nobody_asked_for_are_not_kept() -> None:
    with worker_end() as (ours, channel):
        before = open_files()
        socket.send_fds(ours, [pack(ScanJob())], [0, 1])
        assert channel.fill()
        assert channel.fds == []
        assert open_files() == before


def test_what_does_not_fit_is_not_waited_for() -> None:
    with worker_end() as (_, channel), pytest.raises(LostError):
        deque(map(channel.send, repeat(ScanJob())))


def test_starts_fast_enough_to_be_started_by_every_command() -> None:
    """About 100 ms with the interpreter's own; the bound is for a loaded machine."""
    best = 10.0
    for _ in range(5):
        begin = time.monotonic()
        with fork_server() as (control, _):
            child = spawn(control, 1)
            assert isinstance(child.receive(), Hello)
            best = min(best, time.monotonic() - begin)
            child.socket.close()
    assert best < 0.5
