"""Down is proven by a free lock and a socket where nobody listens; all else is no answer."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from reconciler.containerd import health
from reconciler.containerd.answers import Singles
from reconciler.model.evidence import Containerd, ContainerdState, TaskState
from reconciler.model.facts import task_of
from reconciler.model.ids import BundleKey
from reconciler.probe.locks import Lock, LockState
from tests.support import asking
from tests.support.asking import ask
from tests.support.fake_containerd import GET, TASKS, VERSION, FakeContainerd

WEB, DNS = BundleKey("default", "web"), BundleKey("k8s.io", "dns")
UP, DOWN, NONE = ContainerdState.UP, ContainerdState.DOWN, ContainerdState.NONE


class Say(Protocol):
    def __call__(self, *looks: Lock) -> None: ...


@pytest.fixture
def fake(tmp_path: Path) -> FakeContainerd:
    return FakeContainerd(tmp_path)


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Say:
    """Say what the lock looks like, look after look; the last one stays."""

    def say(*looks: Lock) -> None:
        left = list(looks)
        monkeypatch.setattr(
            asking, "lock_holder", lambda path: left.pop(0) if left[1:] else left[0]
        )

    return say


# Of a free one the tree in each of these tests, which is empty, says that it is the right one.
HELD, FREE, ABSENT = Lock(LockState.HELD, 4711), Lock(LockState.FREE), Lock(LockState.ABSENT)
UNSEEN = Lock(LockState.NONE, detail="fog")


async def test_up_tells_tasks_version_and_pid(fake: FakeContainerd) -> None:
    fake.tasks = {WEB}
    async with fake:
        with fake.lock() as pid:
            assert await ask(fake.layout) == Containerd(UP, frozenset({WEB}), pid, "1.6.20")


async def test_up_without_tasks_is_still_up(fake: FakeContainerd) -> None:
    async with fake:
        with fake.lock():
            assert (await ask(fake.layout)).state is UP


async def test_waived_is_not_even_asked(fake: FakeContainerd) -> None:
    async with fake:
        assert (await ask(fake.layout, without_containerd=True)).state is ContainerdState.SKIPPED
    assert fake.calls == []


async def test_down_is_a_free_lock_and_no_listener(fake: FakeContainerd, lock: Say) -> None:
    lock(FREE)
    assert (await ask(fake.layout)).state is DOWN
    await fake.start()
    await fake.stop()
    assert (await ask(fake.layout)).state is DOWN


@pytest.mark.fault("containerd in its start-up sweep")
async def test_starting_is_no_answer(fake: FakeContainerd) -> None:
    await fake.start()
    await fake.stop()
    with fake.lock() as pid:
        said = await ask(fake.layout)
    assert (said.state, said.pid) == (NONE, pid)
    assert f"containerd (pid {pid}) holds its metadata lock" in said.detail
    assert "starting and sweeping" in said.detail


async def test_hung_is_no_answer(fake: FakeContainerd) -> None:
    fake.slow = 3600
    async with fake:
        with fake.lock() as pid:
            said = await ask(fake.layout, deadline=0.1)
    assert (said.state, said.pid) == (NONE, pid)
    assert "it hangs" in said.detail


async def test_one_namespace_without_an_answer_is_no_answer_there(fake: FakeContainerd) -> None:
    fake.tasks = {WEB, DNS}
    fake.errors = {"k8s.io": GRPCError(Status.UNKNOWN, "no")}
    async with fake:
        with fake.lock():
            said = await ask(fake.layout)
    assert task_of(WEB, said) is TaskState.LISTED
    assert task_of(DNS, said) is TaskState.NONE
    assert task_of(BundleKey("k8s.io", "gone"), said) is TaskState.NONE
    assert task_of(BundleKey("default", "gone"), said) is TaskState.NOT_LISTED
    assert "k8s.io" in said.detail


async def test_no_namespace_with_an_answer_is_no_answer_at_all(fake: FakeContainerd) -> None:
    fake.tasks = {WEB, DNS}
    fake.errors = {TASKS: GRPCError(Status.UNKNOWN, "no"), GET: GRPCError(Status.UNKNOWN, "no")}
    async with fake:
        with fake.lock():
            said = await ask(fake.layout, singles=Singles(lambda _: [WEB]))
    assert said.state is NONE


@pytest.mark.parametrize("method", [VERSION, TASKS])
async def test_dying_in_the_middle_is_no_answer(fake: FakeContainerd, method: str) -> None:
    fake.tasks, fake.drops = {WEB}, {method}
    async with fake:
        with fake.lock():
            assert (await ask(fake.layout)).state is NONE


async def test_neither_lock_nor_socket_asks_for_the_root(fake: FakeContainerd) -> None:
    said = await ask(fake.layout)
    assert said.state is NONE
    assert said.detail.endswith("; is --root right?")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FREE, HELD),  # it was starting between the two looks
        (HELD, FREE),  # it ended between the two looks
        (ABSENT, FREE),
        (FREE, ABSENT),
        (FREE, UNSEEN),
        (UNSEEN, FREE),
        (UNSEEN, UNSEEN),
        (HELD, HELD),
        (ABSENT, ABSENT),
    ],
)
async def test_down_needs_a_free_lock_before_and_after(
    fake: FakeContainerd, lock: Say, before: Lock, after: Lock
) -> None:
    lock(before, after)
    said = await ask(fake.layout)
    assert said.state is NONE
    assert said.detail


async def test_somebody_who_does_not_answer_is_never_down(fake: FakeContainerd, lock: Say) -> None:
    lock(FREE)
    fake.slow = 3600
    async with fake:
        assert (await ask(fake.layout, deadline=0.05)).state is NONE
        fake.slow, fake.drops = 0, {VERSION}
        assert (await ask(fake.layout)).state is NONE
        fake.drops, fake.errors = set(), {VERSION: GRPCError(Status.UNIMPLEMENTED, "?")}
        assert (await ask(fake.layout)).state is NONE


@pytest.mark.parametrize("looks", [(FREE,), (ABSENT,)])
async def test_an_answer_from_another_containerd_is_none(
    fake: FakeContainerd, lock: Say, looks: tuple[Lock, ...]
) -> None:
    lock(*looks)
    fake.tasks = {WEB}
    async with fake:
        said = await ask(fake.layout)
    assert said.state is NONE
    assert said.detail.endswith("; is --root right?")


@pytest.mark.parametrize("looks", [(FREE, HELD), (ABSENT, HELD), (UNSEEN,)])
async def test_an_answer_counts_where_the_lock_does_not_contradict(
    fake: FakeContainerd, lock: Say, looks: tuple[Lock, ...]
) -> None:
    lock(*looks)
    async with fake:
        assert (await ask(fake.layout)).state is UP


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
async def test_no_permission_is_no_answer(fake: FakeContainerd, tmp_path: Path) -> None:
    fake.leave_lock()
    async with fake:
        with _as_nobody(tmp_path):
            said = await ask(fake.layout)
    assert said.state is NONE
    assert "no permission" in said.detail


@contextmanager
def _as_nobody(tmp_path: Path) -> Generator[None]:
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_cancelled_question_leaves_nothing(fake: FakeContainerd) -> None:
    fake.slow = 3600
    async with fake:
        with fake.lock(), anyio.move_on_after(0.05) as scope:
            await ask(fake.layout)
    assert scope.cancelled_caught


async def test_a_listener_that_never_accepts_is_never_down(fake: FakeContainerd, lock: Say) -> None:
    lock(FREE)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(fake.layout.address)
        listener.listen(0)
        said = await ask(fake.layout, deadline=0.1)
    assert said.state is NONE


async def test_a_free_lock_of_which_nobody_told_whose_it_is_proves_nothing(
    fake: FakeContainerd,
) -> None:
    told: list[bool] = []

    async def read_lock(*, owner: bool = False) -> Lock:
        told.append(owner)
        return FREE

    said = await health.ask(fake.layout, read_lock)
    assert said.state is NONE
    assert "nobody has asked whose tree it is" in said.detail
    assert told == [False, True], "all bundles are looked at once, and only if it matters"
