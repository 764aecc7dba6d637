"""Where a namespace cannot be listed, single answers count, and only for what they are about."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import Phase, Verdict
from reconciler.model.evidence import (
    Containerd,
    ContainerdState,
    Init,
    InitState,
    ProcessScan,
    Shim,
    ShimProcess,
    ShimState,
    TaskState,
)
from reconciler.model.ids import BundleKey
from tests.decide.world import World, dead, key, running

NS = frozenset({"ns"})


def partly(
    *absent: BundleKey, tasks: tuple[BundleKey, ...] = (), pid: int | None = 7
) -> Containerd:
    """Containerd answers, but its list of the namespace does not come."""
    return Containerd(
        ContainerdState.UP, frozenset(tasks), pid=pid, unlisted=NS, absent=frozenset(absent)
    )


WHOLE = Containerd(ContainerdState.UP, pid=7)


@pytest.fixture
def world() -> World:
    made = World()
    made.listed(a=1, b=2)
    made.look(dead(1), "ns/a")
    made.look(dead(2), "ns/b")
    return made


def verdict(world: World, name: str = "ns/a") -> Verdict:
    return world.view(name).judgement.verdict


@pytest.mark.safety
@pytest.mark.fault("wedged shims beside dead bundles")
def test_only_whom_containerd_was_asked_for_is_a_leftover(world: World) -> None:
    world.node(partly(key("ns/a")))
    assert verdict(world) is Verdict.LEFTOVER
    assert world.view().facts.task is TaskState.NOT_FOUND
    assert verdict(world, "ns/b") is Verdict.UNKNOWN
    assert "containerd" in world.view("ns/b").judgement.reason


@pytest.mark.safety
def test_waiting_makes_no_leftover_of_whom_nobody_asked_for(world: World) -> None:
    world.node(partly())
    world.wait(86400)
    assert verdict(world) is Verdict.UNKNOWN
    assert world.view().phase is Phase.NONE


def test_a_single_answer_is_remembered_while_it_cannot_have_changed(world: World) -> None:
    world.node(partly(key("ns/a")))
    since = world.engine.view(key(), world.stamp.mono)
    assert since is not None
    world.wait(5)
    world.node(partly(key("ns/b")))
    assert {verdict(world, name) for name in ("ns/a", "ns/b")} == {Verdict.LEFTOVER}
    assert world.engine.to_ask("ns") == []
    world.wait(10)
    assert world.view().phase is not Phase.WAITING, "its grace ran on"


@pytest.mark.safety
@pytest.mark.parametrize(
    "later",
    [
        partly(pid=8),  # another process
        partly(pid=None),  # perhaps another one
        partly(tasks=(key("ns/a"),)),  # it has it after all
    ],
    ids=["restarted", "who knows", "listed"],
)
def test_a_single_answer_is_forgotten_once_it_may_have_changed(
    world: World, later: Containerd
) -> None:
    world.node(partly(key("ns/a")))
    world.wait(1)
    world.node(later)
    assert world.view().facts.task is not TaskState.NOT_FOUND
    assert key("ns/a") in world.engine.to_ask("ns")
    world.wait(1)
    world.node(partly(pid=later.pid))
    assert verdict(world) is Verdict.UNKNOWN


@pytest.mark.safety
def test_silence_in_between_ends_what_was_remembered(world: World) -> None:
    world.node(partly(key("ns/a")))
    world.wait(1)
    world.node(Containerd(pid=7))
    assert verdict(world) is Verdict.UNKNOWN
    world.wait(1)
    world.node(partly())
    assert verdict(world) is Verdict.UNKNOWN


def test_a_list_that_comes_ends_what_was_remembered(world: World) -> None:
    world.node(partly(key("ns/a")))
    world.wait(1)
    world.node(WHOLE)
    assert world.view().facts.task is TaskState.NOT_LISTED
    world.wait(1)
    world.node(partly())
    assert verdict(world) is Verdict.UNKNOWN, "the list is older than this word"


@pytest.mark.safety
@pytest.mark.parametrize("late", [True, False])
def test_a_single_answer_says_nothing_about_another_object_of_the_name(
    world: World, *, late: bool
) -> None:
    world.node(partly(key("ns/a")))
    world.wait(1)
    asked_at = world.now
    if not late:
        world.node(partly(key("ns/a")), since=asked_at)
    world.wait(1)
    world.listed(a=10, b=2)  # it was removed, and made anew
    world.look(dead(10), "ns/a")
    if late:
        world.node(partly(key("ns/a")), since=asked_at)
    assert verdict(world) is Verdict.UNKNOWN
    world.wait(1)
    world.node(partly())
    assert verdict(world) is Verdict.UNKNOWN
    assert key("ns/a") in world.engine.to_ask("ns")
    world.node(partly(key("ns/a")))
    assert verdict(world) is Verdict.LEFTOVER


def test_the_dead_are_asked_for_before_the_living(world: World) -> None:
    world.listed(a=1, b=2, c=3)
    world.look(running(1), "ns/a")
    world.look(dead(3), "ns/c")
    assert world.engine.to_ask("ns") == [key("ns/b"), key("ns/c"), key("ns/a")]
    assert world.engine.to_ask("other") == []


@pytest.mark.safety
def test_not_found_does_not_say_that_no_shim_serves_it(world: World) -> None:
    """A shim that nothing names may be any of the namespace; only a whole list rules that out.

    Asked for alone, containerd denies also a task whose container is no longer recorded.
    """
    nameless = replace(dead(1), shim=Shim(ShimState.UNNAMED), init=Init(InitState.DEAD, 1001))
    scan = ProcessScan(answered=True, shims=(ShimProcess(key("ns/other"), 5),))
    world.look(nameless, "ns/a")
    world.node(partly(key("ns/a")), scan)
    assert verdict(world) is Verdict.UNKNOWN
    world.node(WHOLE, scan)
    assert verdict(world) is Verdict.LEFTOVER
