"""Wedged shims cost containerd seconds for a list; whoever is dead is known all the same, soon."""

from pathlib import Path

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from reconciler.containerd import tasks
from reconciler.containerd.answers import Singles
from reconciler.model.evidence import Containerd, ContainerdState, TaskState
from reconciler.model.facts import task_of
from reconciler.model.ids import BundleKey
from tests.support.asking import ask, ask_one
from tests.support.fake_containerd import GET, TASKS, FakeContainerd

WEB, DNS = BundleKey("default", "web"), BundleKey("k8s.io", "dns")
POD = tuple(BundleKey("k8s.io", f"member-{number}") for number in range(3))
DEAD = tuple(BundleKey("k8s.io", f"dead-{number}") for number in range(5))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContainerd:
    """A containerd with a pod whose shim does not answer, and our patience shortened to match."""
    monkeypatch.setattr(tasks, "SOON", 0.2)
    monkeypatch.setattr(tasks, "ALONE", 2.0)
    fake = FakeContainerd(tmp_path)
    fake.tasks = {WEB, DNS, *POD}
    fake.wedged, fake.patience = set(POD), 0.5
    return fake


def asked(*keys: BundleKey) -> Singles:
    return Singles(lambda name: [key for key in keys if key.namespace == name])


async def said_of(fake: FakeContainerd, singles: Singles) -> Containerd:
    async with fake:
        with fake.lock(), anyio.fail_after(10):
            return await ask(fake.layout, singles=singles)


@pytest.mark.safety
@pytest.mark.fault("wedged shims beside dead bundles")
async def test_the_dead_are_known_long_before_a_list_comes(fake: FakeContainerd) -> None:
    fake.patience = 3600
    said = await said_of(fake, asked(*DEAD, DNS, *POD))
    assert said.state is ContainerdState.UP
    assert said.unlisted == {"k8s.io"}
    assert {task_of(key, said) for key in DEAD} == {TaskState.NOT_FOUND}
    assert task_of(DNS, said) is TaskState.LISTED
    assert task_of(WEB, said) is TaskState.LISTED
    assert {task_of(key, said) for key in POD} == {TaskState.NONE}
    assert said.wedged == set(POD)
    assert "k8s.io" in said.detail


@pytest.mark.safety
async def test_whoever_was_not_asked_for_has_no_answer(fake: FakeContainerd) -> None:
    said = await said_of(fake, asked(DEAD[0]))
    assert task_of(DEAD[0], said) is TaskState.NOT_FOUND
    assert task_of(DEAD[1], said) is TaskState.NONE
    assert task_of(BundleKey("default", "gone"), said) is TaskState.NOT_LISTED


async def test_a_list_that_comes_late_is_still_the_better_answer(fake: FakeContainerd) -> None:
    fake.wedged, fake.patience = {POD[0]}, 0.4  # one for whom the list waits as long as we ask
    said = await said_of(fake, asked(*DEAD, DNS, *POD))
    assert said.unlisted == frozenset()
    assert said.absent == frozenset()
    assert task_of(DEAD[0], said) is TaskState.NOT_LISTED
    assert said.wedged == {POD[0]}
    assert said.detail == ""


async def test_a_wedged_shim_is_named_by_a_list_that_comes_in_time(fake: FakeContainerd) -> None:
    fake.patience = 0.01
    said = await said_of(fake, asked(*DEAD))
    assert said.unlisted == frozenset()
    assert said.wedged == set(POD)
    assert fake.asked == []


async def test_nobody_is_asked_for_alone_where_lists_come(fake: FakeContainerd) -> None:
    fake.wedged = set()
    said = await said_of(fake, asked(WEB, DNS, *POD, *DEAD))
    assert said.wedged == frozenset()
    assert said.unlisted == frozenset()
    assert fake.asked == []


async def test_where_it_was_slow_before_it_is_asked_at_once(
    fake: FakeContainerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "SOON", 3600.0)
    fake.patience = 1.0
    said = await said_of(fake, Singles(lambda _: DEAD, frozenset({"k8s.io"})))
    assert said.absent == set(DEAD)


@pytest.mark.safety
@pytest.mark.parametrize("status", [Status.UNKNOWN, Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED])
async def test_an_error_about_one_is_no_answer_about_it(
    fake: FakeContainerd, status: Status
) -> None:
    fake.errors = {GET: GRPCError(status, "who knows")}
    said = await said_of(fake, asked(*DEAD))
    assert task_of(WEB, said) is TaskState.LISTED
    assert {task_of(key, said) for key in DEAD} == {TaskState.NONE}


@pytest.mark.safety
async def test_a_containerd_that_says_nothing_about_tasks_is_no_answer(
    fake: FakeContainerd,
) -> None:
    fake.delays = {TASKS: 3600, GET: 3600}
    said = await said_of(fake, asked(WEB, *DEAD))
    assert said.state is ContainerdState.NONE
    assert said.wedged == frozenset(), "it hangs itself"


@pytest.mark.safety
@pytest.mark.parametrize("method", [TASKS, GET])
async def test_dying_in_the_middle_is_no_answer_about_anyone(
    fake: FakeContainerd, method: str
) -> None:
    fake.drops = {method}
    said = await said_of(fake, asked(*DEAD))
    assert said.state is ContainerdState.NONE
    assert said.absent == said.tasks == frozenset()


async def test_a_pile_of_dead_bundles_is_asked_through(fake: FakeContainerd) -> None:
    fake.patience = 3600
    pile = [BundleKey("k8s.io", f"{number:03}") for number in range(300)]
    said = await said_of(fake, asked(*pile, *POD))
    assert said.absent == set(pile)


@pytest.mark.safety
async def test_one_is_asked_for_alone(fake: FakeContainerd) -> None:
    async with fake:
        with fake.lock() as pid:
            dead, web = [await ask_one(fake.layout, key) for key in (DEAD[0], WEB)]
            assert (dead.state, dead.pid) == (ContainerdState.UP, pid)
            assert task_of(DEAD[0], dead) is TaskState.NOT_FOUND
            assert task_of(DEAD[1], dead) is TaskState.NONE, "it says nothing about others"
            assert task_of(WEB, web) is TaskState.LISTED
            fake.patience = 3600
            assert task_of(POD[0], await ask_one(fake.layout, POD[0])) is TaskState.NONE
        unheld = await ask_one(fake.layout, DEAD[0])
        assert unheld.state is ContainerdState.NONE, "somebody else's containerd"
    fake.leave_lock()
    assert (await ask_one(fake.layout, DEAD[0])).state is ContainerdState.DOWN


async def test_what_containerd_could_not_have_named_is_not_asked_for(fake: FakeContainerd) -> None:
    async with fake:
        with fake.lock():
            said = await ask_one(fake.layout, BundleKey("default", ".hidden"))
    assert said.state is ContainerdState.NONE
    assert fake.asked == []
