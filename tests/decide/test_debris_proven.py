"""A cgroup of which nothing else is left is a container's if this process has seen it be one."""

import pytest
from msgspec.structs import replace

from reconciler.decide import nodestate
from reconciler.decide.debris_pace import PAUSE
from reconciler.decide.debris_verdicts import AGES, SEEN, DebrisVerdict
from reconciler.model.cgroups import CgroupSource
from reconciler.model.debris import UNPROVEN, DebrisKind, Place
from reconciler.model.evidence import Answer, CgroupState, Containerd, Look
from reconciler.model.ids import NOWHERE, Identity
from reconciler.model.observations import Remembered
from reconciler.model.policy import DebrisAction, DebrisPolicy
from tests.decide.debris_world import GRACE, DebrisWorld, cleaning, place
from tests.decide.world import DOWN, EPOCH, SILENT, UP, dead, key, running

pytestmark = pytest.mark.safety

GROUP = replace(
    place(path="/cgroup/ns/a", names=("ns", "a")), owned=Answer.NONE, unproven=True, detail=UNPROVEN
)


def with_group(look: Look, *paths: str, source: CgroupSource = CgroupSource.CONFIG) -> Look:
    return replace(look, cgroup=CgroupState.POPULATED, cgroup_source=source, cgroup_paths=paths)


def after(*looks: Look, left: Place = GROUP, said: Containerd = UP) -> DebrisWorld:
    """A world in which a bundle was seen so, and is gone; its group is left."""
    world = DebrisWorld(containerd=said)
    world.listed(a=1)
    for look in looks:
        world.look(look)
        world.node()
    world.there = [left]
    world.begin()
    world.inventory()
    return world


@pytest.mark.parametrize("source", [CgroupSource.CONFIG, CgroupSource.RUNTIME])
def test_a_group_that_a_bundle_had_is_that_ones_when_it_has_gone(source: CgroupSource) -> None:
    for look in (
        with_group(running(), source=source),
        with_group(running(), "/else", "/ns/a", source=source),
        replace(with_group(dead(), source=source), cgroup=CgroupState.EMPTY),
    ):
        world = after(look)
        assert (world.one().verdict, SEEN in world.one().reason) == (DebrisVerdict.DEBRIS, True)
        world.pass_time(GRACE + 0.1)
        ((_, (sent,)),) = world.batches
        assert (sent.unproven, sent.owned) == (True, Answer.NO), "for the worker to know"


@pytest.mark.parametrize(
    "looks",
    [
        (),
        (with_group(running(), source=CgroupSource.NONE),),
        (with_group(running(), "/else/a"),),
        (replace(with_group(running()), cgroup=CgroupState.GONE),),
        (replace(with_group(running()), cgroup=CgroupState.UNNAMED),),
        (replace(with_group(running()), cgroup=CgroupState.NONE),),
        (with_group(running()), replace(with_group(dead()), cgroup=CgroupState.GONE)),
    ],
    ids=["never seen", "no file", "elsewhere", "gone", "unnamed", "no answer", "gone at last"],
)
def test_what_was_never_seen_to_be_a_containers_stays_unknown(looks: tuple[Look, ...]) -> None:
    world = after(*looks)
    assert (world.one().verdict, UNPROVEN in world.one().reason) == (DebrisVerdict.UNKNOWN, False)
    world.pass_time(100 * GRACE)
    assert not world.batches


def test_a_group_by_an_id_that_was_drawn_is_a_containers_while_containerd_knows_none() -> None:
    names = ("ns", "0f" * 32)
    group = replace(GROUP, key=replace(GROUP.key, path="/cgroup/ns/" + names[1]), id=names[1])
    unlisted = replace(UP, unlisted=frozenset({"ns"}))
    for said, verdict in (
        (UP, DebrisVerdict.DEBRIS),
        (DOWN, DebrisVerdict.UNKNOWN),
        (SILENT, DebrisVerdict.UNKNOWN),
        (unlisted, DebrisVerdict.UNKNOWN),
        (replace(UP, tasks=frozenset({key("/".join(names))})), DebrisVerdict.OWNED),
    ):
        assert after(left=group, said=said).one().verdict is verdict, said
    for left in (replace(group, unproven=False), replace(group, lives=Answer.NONE)):
        assert after(left=left).one().verdict is DebrisVerdict.UNKNOWN
    young = replace(group, since=EPOCH - AGES[DebrisKind.CGROUP] / 2)
    assert after(left=young).one().verdict is DebrisVerdict.YOUNG


@pytest.mark.parametrize("said", [DOWN, SILENT], ids=["down", "silent"])
def test_without_an_answer_of_containerd_it_stays(said: Containerd) -> None:
    world = after(with_group(running()), said=said)
    assert world.one().verdict is DebrisVerdict.UNKNOWN
    world.pass_time(100 * GRACE)
    assert not world.batches


def test_whoever_lives_in_it_or_owns_it_keeps_it() -> None:
    listed = replace(UP, tasks=frozenset({key("ns/a")}))
    assert after(with_group(running()), said=listed).one().verdict is DebrisVerdict.OWNED
    lives = replace(GROUP, lives=Answer.YES)
    assert after(with_group(running()), left=lives).one().verdict is DebrisVerdict.USED
    unsure = replace(GROUP, unproven=False)
    assert after(with_group(running()), left=unsure).one().verdict is DebrisVerdict.UNKNOWN
    other = replace(place(path="/cgroup/ns/b", names=("ns", "b")), owned=Answer.NONE, unproven=True)
    assert after(with_group(running()), left=other).one().verdict is DebrisVerdict.UNKNOWN


def test_a_containerd_that_falls_silent_holds_it_back_at_the_last_moment() -> None:
    world = after(with_group(running()))
    world.pass_time(GRACE - 0.1)
    world.containerd = SILENT
    world.ask_node()
    world.pass_time(10 * GRACE)
    assert not world.batches


def test_only_so_many_are_remembered_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodestate, "MOST_GONE", 2)
    state = nodestate.NodeState()
    for name in ("a", "b", "a", "c"):
        state.forget(key(f"ns/{name}"), with_group(running()))
    assert list(state.had_cgroups) == [key("ns/a"), key("ns/c")]


def test_a_group_that_was_made_when_the_bundle_had_gone_is_somebody_elses() -> None:
    """One that an administrator makes for the next container of that name, with its limits."""
    for made, verdict in ((-0.1, DebrisVerdict.DEBRIS), (0.1, DebrisVerdict.UNKNOWN)):
        world = DebrisWorld()
        world.listed(a=1)
        world.look(with_group(running()))
        world.node()
        seen = world.stamp.wall
        world.pass_time(60)
        world.listed()
        world.there = [replace(GROUP, since=seen + made)]
        world.pass_time(AGES[DebrisKind.CGROUP] + 1)
        world.inventory()
        assert world.one().verdict is verdict, made
        world.pass_time(PAUSE + 2 * GRACE)
        assert bool(world.batches) is (verdict is DebrisVerdict.DEBRIS)


def test_so_is_one_that_was_made_since_an_earlier_run_wrote_down_what_it_had_seen() -> None:
    for until, verdict in ((5.0, DebrisVerdict.DEBRIS), (-5.0, DebrisVerdict.UNKNOWN)):
        world = DebrisWorld()
        world.observe(Remembered(key("ns/a"), NOWHERE, cgroup_until=GROUP.since + until))
        world.there = [GROUP]
        world.begin()
        assert world.one().verdict is verdict


def test_it_is_remembered_over_a_restart_and_until_an_inventory_names_it_no_more() -> None:
    world = DebrisWorld()
    world.observe(Remembered(key("ns/a"), NOWHERE, cgroup_until=EPOCH))
    world.observe(Remembered(key("ns/b"), Identity(1, 2, 3), last_alive=1.0))
    world.there = [GROUP]
    world.begin()
    assert world.one().verdict is DebrisVerdict.DEBRIS
    assert set(world.engine.had_cgroups) == {key("ns/a")}
    world.looked = (DebrisKind.MOUNT,)
    world.inventory()
    assert set(world.engine.had_cgroups) == {key("ns/a")}, "it was not looked for"
    world.looked = tuple(DebrisKind)
    world.pass_time(PAUSE + GRACE)
    assert GROUP.key.path in world.asked_for()
    world.there = []
    world.pass_time(PAUSE)
    world.begin()
    assert not world.engine.had_cgroups


@pytest.mark.parametrize("kind", [DebrisKind.SHIM_SOCKET, DebrisKind.WORK_DIR])
@pytest.mark.parametrize(
    "unsure", [{"lives": Answer.NONE}, {"since": EPOCH}, {"owned": Answer.NONE}]
)
def test_what_shows_a_cgroup_to_be_a_containers_goes_after_it(
    kind: DebrisKind, unsure: dict[str, object]
) -> None:
    """Else nothing would name the group any more, and it would be unknown for ever."""
    world = DebrisWorld()
    shows, other = place(kind, "/s/x"), place(kind, "/s/y", ino=3, names=("ns", "y"))
    world.there = [place(**unsure), shows, other]  # type: ignore[arg-type]  # as place() takes them
    world.begin()
    for _ in range(5):
        world.pass_time(GRACE + 1.0)
        world.inventory()
    assert world.asked_for() == ["/s/y"]
    assert world.engine.debris.is_settled(world.stamp.mono, None)
    world.there = [place(), shows]
    world.inventory()
    world.pass_time(GRACE + 1.0)
    assert world.asked_for() == ["/s/y", "/ns/x", "/s/x"]


def test_a_cgroup_that_is_only_reported_keeps_nothing() -> None:
    policies = replace(
        cleaning(), debris=(DebrisPolicy(DebrisKind.SHIM_SOCKET, DebrisAction.CLEAN),)
    )
    world = DebrisWorld(policies)
    world.there = [place(), place(DebrisKind.SHIM_SOCKET, "/s/x")]
    world.begin()
    world.pass_time(GRACE + 1.0)
    assert world.asked_for() == ["/s/x"]
