"""Sandboxes in a tree of their own: who keeps one, and when it is a leftover."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import AskNode, Clean, Phase, Verdict
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Containerd,
    Init,
    InitState,
    Look,
    ProcessScan,
    Runtime,
    RuntimeState,
    Shim,
    ShimProcess,
    ShimState,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Listed, Looked, Seen
from reconciler.model.policy import Orphans, Policies, Shims
from tests.decide.world import (
    DOWN,
    ENFORCE,
    SILENT,
    UP,
    World,
    dead,
    key,
    orphaned,
    running,
    stopped,
)

pytestmark = pytest.mark.safety

TASK = key("ns/a")
POD = TASK.sandbox
ANSWERS = replace(UP, pid=7)
DENIES = replace(ANSWERS, unrecorded=frozenset({POD}))
KEEPS = replace(ANSWERS, recorded=frozenset({POD}))


def sandbox(ino: int = 9, shim: ShimState = ShimState.DEAD) -> Look:
    """A sandbox's bundle: there is no init, and its shim is started for its own id."""
    return replace(
        dead(ino),
        created=Answer.NO,
        init=Init(InitState.ABSENT),
        shim=Shim(shim, "/run/containerd/s/a", "a"),
        cgroup=CgroupState.UNNAMED,
    )


def listed(world: World, *keys: BundleKey, sandboxes: bool = True) -> None:
    inos = {POD: 9}
    seen = tuple(Seen(one, Identity(1, inos.get(one, 1), 1)) for one in keys)
    world.observe(Listed(answered=True, present=True, bundles=seen, sandboxes=sandboxes))


def alone(look: Look | None = None, policies: Policies | None = None) -> World:
    """A world with nothing but one sandbox."""
    world = World(policies or Policies(default=ENFORCE))
    listed(world, POD)
    world.observe(Looked(POD, look or sandbox()))
    return world


def verdict(world: World, name: BundleKey = POD) -> Verdict:
    view = world.engine.view(name, world.stamp.mono)
    assert view is not None
    return view.judgement.verdict


def cleaned(world: World) -> list[BundleKey]:
    return [one.key for one in world.said if isinstance(one, Clean)]


def test_one_that_containerd_denies_and_nobody_needs_is_a_leftover() -> None:
    world = alone()
    world.node(ANSWERS)
    assert verdict(world) is Verdict.UNKNOWN
    world.wait(1.0)
    assert "records" in [one.why for one in world.said if isinstance(one, AskNode)]
    assert world.engine.shims_to_ask() == [(POD,)]
    world.node(DENIES)
    assert verdict(world) is Verdict.LEFTOVER
    world.wait(ENFORCE.grace + 1)
    assert cleaned(world) == [POD]


@pytest.mark.parametrize("said", [SILENT, DOWN, ANSWERS], ids=["silent", "down", "not asked"])
def test_one_of_which_containerd_says_nothing_stays(said: Containerd) -> None:
    world = alone()
    world.node(said)
    world.wait(86400.0)
    world.node(said)
    assert verdict(world) is Verdict.UNKNOWN
    assert cleaned(world) == []


def test_one_that_containerd_keeps_stays_until_it_lets_it_go() -> None:
    world = alone()
    world.node(KEEPS)
    assert verdict(world) is Verdict.STOPPED
    world.wait(86400.0)
    assert cleaned(world) == []
    world.node(DENIES)
    assert verdict(world) is Verdict.LEFTOVER
    world.node(KEEPS)
    assert verdict(world) is Verdict.STOPPED


def test_a_living_shim_serves_its_pod_without_an_init_and_nobody_asks_containerd() -> None:
    world = alone(sandbox(shim=ShimState.ALIVE))
    world.node(ANSWERS)
    assert verdict(world) is Verdict.RUNNING
    assert world.engine.shims_to_ask() == []
    world.node(DENIES)
    assert verdict(world) is Verdict.RUNNING


def test_a_shim_that_only_the_process_table_shows_keeps_it() -> None:
    world = alone()
    world.node(DENIES, ProcessScan(answered=True, shims=(ShimProcess(TASK, 4711),)))
    assert verdict(world) is Verdict.RUNNING
    world.node(DENIES, ProcessScan(answered=True, helpers=frozenset({TASK})))
    assert verdict(world) is Verdict.IN_TRANSITION
    world.node(DENIES)
    world.wait(Policies().settle + 1)  # it has just lived
    assert verdict(world) is Verdict.LEFTOVER


@pytest.mark.parametrize(
    "member",
    [
        running(1),
        orphaned(1),
        dead(1),
        replace(running(1), shim=Shim(ShimState.NONE, None, None)),
        None,
    ],
    ids=["running", "orphaned", "dead", "anybody's", "never looked at"],
)
def test_a_sandbox_goes_after_all_that_may_be_of_its_pod(member: Look | None) -> None:
    world = World()
    other = key("ns/member")
    listed(world, other, POD)
    if member is not None:
        world.observe(Looked(other, member))
    world.observe(Looked(POD, sandbox()))
    world.node(DENIES)
    assert verdict(world) in {Verdict.STOPPED, Verdict.UNKNOWN}
    listed(world, POD)
    world.wait(0.1)
    assert verdict(world) is Verdict.LEFTOVER


def test_a_member_that_comes_later_keeps_it() -> None:
    world = alone()
    world.node(DENIES)
    assert verdict(world) is Verdict.LEFTOVER
    world.observe(Looked(key("ns/late"), orphaned(1)))
    world.wait(0.1)
    assert verdict(world) is Verdict.STOPPED
    world.observe(Looked(key("ns/late"), None))
    world.wait(0.1)
    assert verdict(world) is Verdict.LEFTOVER


@pytest.mark.parametrize("namespace", [None, "ns"], ids=["the whole tree", "its namespace"])
def test_where_members_cannot_be_listed_one_may_be_there(namespace: str | None) -> None:
    """The event of a member's creation may have been lost, and nobody else tells of it."""
    world = alone()
    world.node(DENIES)
    assert verdict(world) is Verdict.LEFTOVER
    world.observe(Listed(answered=False, present=True, namespace=namespace))
    world.wait(ENFORCE.grace + 1)
    assert verdict(world) is Verdict.UNKNOWN
    assert cleaned(world) == []
    bundles = (Seen(POD, Identity(1, 9, 1)),)
    world.observe(Listed(answered=True, present=True, bundles=bundles, namespace=namespace))
    world.wait(ENFORCE.grace + 1)
    assert verdict(world) is Verdict.LEFTOVER
    assert cleaned(world) == [POD]


def test_a_namespace_that_cannot_be_listed_says_nothing_of_others() -> None:
    world = alone()
    world.node(DENIES)
    world.observe(Listed(answered=False, present=True, namespace="other"))
    world.wait(0.1)
    assert verdict(world) is Verdict.LEFTOVER


def test_one_that_was_met_before_any_listing_may_have_members() -> None:
    world = World()
    world.observe(Looked(POD, sandbox()))
    world.node(DENIES)
    assert verdict(world) is Verdict.UNKNOWN


def test_bundles_of_other_pods_and_namespaces_keep_nobody() -> None:
    world = World()
    strangers = (key("ns/b"), key("other/a"))
    listed(world, *strangers, POD)
    other = replace(running(1), shim=Shim(ShimState.ALIVE, "/run/containerd/s/b", "b"))
    for one in strangers:
        world.observe(Looked(one, other))
    world.observe(Looked(POD, sandbox()))
    world.node(DENIES)
    assert verdict(world) is Verdict.LEFTOVER


def test_the_same_id_in_both_trees_is_two_bundles() -> None:
    world = World()
    listed(world, TASK, POD)
    alone_ = replace(dead(1), shim=Shim(ShimState.DEAD, "/run/containerd/s/x", "x"))
    world.observe(Looked(TASK, alone_))
    world.observe(Looked(POD, sandbox(shim=ShimState.ALIVE)))
    world.node(ANSWERS)
    assert (verdict(world, TASK), verdict(world)) == (Verdict.LEFTOVER, Verdict.RUNNING)
    world.observe(Looked(TASK, running(1)))
    world.observe(Looked(POD, sandbox()))
    world.node(replace(DENIES, tasks=frozenset({TASK})))
    assert (verdict(world, TASK), verdict(world)) == (Verdict.RUNNING, Verdict.STOPPED)
    assert [str(view.key) for view in world.engine.views(world.stamp.mono)] == [
        "ns/a",
        "sandbox:ns/a",
    ]


def test_a_listing_that_could_not_read_their_tree_forgets_none_of_them() -> None:
    world = alone()
    world.node(DENIES)
    listed(world, sandboxes=False)
    assert verdict(world) is Verdict.LEFTOVER
    listed(world)
    assert world.engine.view(POD, world.stamp.mono) is None


def test_a_sandbox_is_no_task_to_be_asked_for_alone() -> None:
    world = alone()
    listed(world, TASK, POD)
    world.node(replace(ANSWERS, unlisted=frozenset({"ns"})))
    assert world.engine.to_ask("ns") == [TASK]


def test_no_process_of_a_sandbox_is_ended() -> None:
    world = alone(
        replace(sandbox(), init=Init(InitState.ALIVE, 4711), cgroup=CgroupState.POPULATED),
        Policies(default=replace(ENFORCE, orphans=Orphans.KILL)),
    )
    world.node(DENIES)
    assert verdict(world) is Verdict.ORPHANED
    world.wait(86400.0)
    assert cleaned(world) == []
    assert world.engine.view(POD, world.stamp.mono).phase is Phase.NONE  # type: ignore[union-attr]  # it is there


def test_a_dead_member_does_not_have_the_shim_of_a_sandbox_ended() -> None:
    world = World(Policies(default=replace(ENFORCE, shims=Shims.KILL)))
    other = key("ns/member")
    listed(world, other, POD)
    leaked = replace(stopped(1), shim=Shim(ShimState.ALIVE, "/run/containerd/s/a", "a"))
    world.observe(Looked(other, leaked))
    world.observe(Looked(POD, sandbox(shim=ShimState.ALIVE)))
    world.node(ANSWERS)
    world.node(replace(ANSWERS, unrecorded=frozenset({other, TASK})))
    assert verdict(world, other) is Verdict.ABANDONED
    world.wait(86400.0)
    assert cleaned(world) == []
    listed(world, other)
    world.observe(Looked(other, leaked))
    world.wait(86400.0)
    assert cleaned(world) == [other]


def test_one_of_an_alien_runtime_stays() -> None:
    world = alone(
        replace(sandbox(), runtime=Runtime(RuntimeState.ALIEN, "containerd-shim-kata-v2"))
    )
    world.node(DENIES)
    world.wait(86400.0)
    assert verdict(world) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "one", [TASK, POD, key("odd:ns/a"), BundleKey("sp ace", r"\x0a", POD.tree)]
)
def test_a_name_is_read_as_it_is_shown(one: BundleKey) -> None:
    assert BundleKey.parse(str(one)) == one


@pytest.mark.parametrize("text", ["a", "/a", "ns/", "ns/a/b", "sandbox:a", ""])
def test_what_is_no_name_is_not_read(text: str) -> None:
    assert BundleKey.parse(text) is None
