"""`run` ends as it is told to, and the live view shows what went through the loop."""

import gc
import io
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace
from rich.console import Console

from reconciler.cli import session
from reconciler.cli.live import _NAME, draw
from reconciler.cli.output import Heading, Output
from reconciler.cli.picture import RECENT, STUCK, Picture
from reconciler.cli.watching import Ended, Plan, watch
from reconciler.decide.verdicts import judge
from reconciler.errors import ExitCode
from reconciler.loop import Loop
from reconciler.model.debris import DebrisKind
from reconciler.model.decisions import Braked, Judged, Phase, Verdict
from reconciler.model.evidence import Labels
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Guard, GuardsChecked, Refusal, Stamp
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result
from reconciler.model.policy import Policies, Policy
from reconciler.ports import Stages
from reconciler.present.formatting import RESULT_STYLES
from reconciler.setup import Setup
from tests.cli.conftest import FakeNode
from tests.decide.debris_world import cleaning, place
from tests.decide.world import DEAD, dead, key, running

OBSERVE = Policies(default=Policy(grace=5.0, max_age=None, max_size=None))
ENFORCE = replace(OBSERVE, default=replace(OBSERVE.default, enforce=True))


@pytest.fixture
def node(node: FakeNode) -> FakeNode:
    node.inspector.tree = {key("ns/dead"): dead(1), key("ns/live"): running(2)}
    return node


def busy(who: BundleKey, identity: Identity) -> Outcome:
    holder = Holder(7, "sh", "cwd")
    return Outcome(
        who, identity, Result.BLOCKED, BlockReason.MOUNT_BUSY, "rootfs is busy", (holder,)
    )


def test_whoever_follows_looks_for_garbage(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was put off while the program loaded; what is never looked for grows without end."""

    @asynccontextmanager
    async def opened(_setup: Setup, **_how: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(stages=node.stages)

    async def show(_stages: Stages) -> Ended:
        looks.append(gc.isenabled())
        return Ended(ExitCode.DONE)

    looks: list[bool] = []
    monkeypatch.setattr(session, "opened", opened)
    gc.disable()
    try:
        session.follow(Setup(), Output(), show)
    finally:
        gc.enable()
        gc.unfreeze()
    assert looks == [True]


async def test_once_observing_looks_and_ends(node: FakeNode) -> None:
    begun = node.clock.now
    ended = await watch(node.stages, Plan(OBSERVE, once=True), ())
    assert ended.code == ExitCode.DONE
    assert node.clock.now - begun < 1
    assert node.cleaner.cleaned == []


async def test_once_enforcing_waits_out_the_grace_and_cleans(node: FakeNode) -> None:
    ended = await watch(node.stages, Plan(ENFORCE, once=True), ())
    assert ended.code == ExitCode.DONE
    assert [who for _, who in node.cleaner.cleaned] == [key("ns/dead")]


async def test_once_ends_where_a_kind_of_debris_is_left_out_of_inventories(node: FakeNode) -> None:
    node.node_source.debris.append(place())
    node.node_source.left_out = lambda n: (DebrisKind.CGROUP,) if n > 1 else ()
    begun = node.clock.now
    await watch(node.stages, Plan(replace(cleaning(), default=ENFORCE.default), once=True), ())
    assert node.inspector.tree.keys() == {key("ns/live")}
    assert node.clock.now - begun < 20.0
    assert not node.cleaner.batches


async def test_once_says_that_something_stayed(node: FakeNode) -> None:
    node.cleaner.answer = busy
    ended = await watch(node.stages, Plan(ENFORCE, once=True), ())
    assert ended.code == ExitCode.BLOCKED


async def test_a_guard_ends_an_enforcing_run_and_not_an_observing_one(node: FakeNode) -> None:
    refusal = Refusal(Guard.PID_NAMESPACE, "foreign pid namespace")
    node.refuse(refusal)
    ended = await watch(node.stages, Plan(ENFORCE, relist=300.0), ())
    assert ended.code == ExitCode.REFUSED
    assert ended.refused == (refusal,)
    ended = await watch(node.stages, Plan(OBSERVE, relist=300.0, once=True), ())
    assert ended.code == ExitCode.DONE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_the_hands_first_and_names_itself(
    node: FakeNode, number: signal.Signals
) -> None:
    stopped: list[str] = []

    async def stop_workers() -> None:
        stopped.append("cleaner")

    async def interrupted(loop: Loop) -> None:
        await anyio.lowlevel.checkpoint()
        os.kill(os.getpid(), number)
        await anyio.sleep_forever()

    plan = Plan(OBSERVE, relist=300.0, story=interrupted, stop_workers=stop_workers)
    with anyio.fail_after(10):
        ended = await watch(node.stages, plan, ())
    assert ended.code == 128 + number
    assert stopped == ["cleaner"]


async def test_the_end_of_the_story_is_the_end(node: FakeNode) -> None:
    async def short(loop: Loop) -> None:
        await anyio.lowlevel.checkpoint()

    with anyio.fail_after(10):
        ended = await watch(node.stages, Plan(OBSERVE, relist=300.0, story=short), ())
    assert ended.code == ExitCode.DONE


async def test_the_picture_counts_what_the_engine_believes(node: FakeNode) -> None:
    picture = Picture()
    for number in range(30):
        node.inspector.tree[key(f"ns/d{number}")] = dead(100 + number)
    await watch(node.stages, Plan(OBSERVE, once=True), (picture,))
    assert picture.counts[Verdict.LEFTOVER] == 31
    assert picture.counts[Verdict.RUNNING] == 1
    assert picture.total == 32
    assert len(picture.urgent(12)) == 12
    shown = drawn(picture, node.clock.now)
    assert "and 19 more" in shown
    assert "observing" in shown


async def test_the_picture_forgets_what_was_cleaned(node: FakeNode) -> None:
    picture = Picture()
    await watch(node.stages, Plan(ENFORCE, once=True), (picture,))
    assert picture.counts[Verdict.LEFTOVER] == 0
    assert picture.leftovers == {}
    assert picture.tally[Result.CLEANED] == 1
    assert "1 cleaned" in drawn(picture, node.clock.now)


async def test_the_picture_names_who_blocks(node: FakeNode) -> None:
    node.cleaner.answer = busy
    picture = Picture()
    await watch(node.stages, Plan(ENFORCE, once=True), (picture,))
    assert picture.urgent(1)[0].phase is Phase.BLOCKED
    assert "rootfs is busy, held by pid 7 sh (cwd)" in drawn(picture, node.clock.now)


async def test_the_picture_counts_who_is_blocked_and_not_how_often_it_was_tried(
    node: FakeNode,
) -> None:
    node.cleaner.answer = busy
    picture = Picture()

    async def an_hour(_: Loop) -> None:
        await node.clock.take(3600)

    await watch(node.stages, Plan(ENFORCE, story=an_hour), (picture,))
    assert picture.tally[Result.BLOCKED] > 1
    assert "1 blocked" in drawn(picture, node.clock.now)


@pytest.mark.parametrize("result", list(Result))
def test_the_picture_has_a_colour_for_every_result(result: Result) -> None:
    picture = Picture(tally=Counter({result: 3}))
    if result not in STUCK:
        assert f"3 {result.value}" in drawn(picture, 0.0)
    assert RESULT_STYLES[result]


@pytest.mark.parametrize("width", [80, 60])
async def test_a_narrow_window_shortens_names_and_reasons_alone(node: FakeNode, width: int) -> None:
    node.inspector.tree = {BundleKey("k8s.io", "1234567890abc" * 5): dead(5)}
    picture = Picture()
    await watch(node.stages, Plan(OBSERVE, once=True), (picture,))
    shown = drawn(picture, node.clock.now, width)
    row = next(line for line in shown.splitlines() if line.startswith("k8s.io/12345"))
    assert "waiting" in row
    assert "in 5.0s" in row or "in 4." in row
    assert len(row) <= width


async def test_the_picture_is_bounded(node: FakeNode) -> None:
    picture = Picture()
    await watch(node.stages, Plan(OBSERVE, once=True), (picture,))
    assert len(picture.recent) <= RECENT


async def test_it_is_not_said_that_containerd_is_silent_before_it_was_asked(node: FakeNode) -> None:
    picture = Picture()
    assert "containerd was not asked yet" in drawn(picture, 0.0)
    await watch(node.stages, Plan(OBSERVE, once=True), (picture,))
    assert "containerd up" in drawn(picture, 0.0)


async def test_a_countdown_runs(node: FakeNode) -> None:
    picture = Picture()
    await watch(node.stages, Plan(OBSERVE, once=True), (picture,))
    now = node.clock.now
    assert "in 4." in drawn(picture, now) or "in 5." in drawn(picture, now)
    assert "in 1." in drawn(picture, now + 3.5)
    assert "now" in drawn(picture, now + 60)


@pytest.mark.parametrize("width", [20, 80, 200])
async def test_a_hostile_name_is_drawn_as_it_is_escaped(node: FakeNode, width: int) -> None:
    node.inspector.tree = {BundleKey("n\\x0a", "\\x1b[2J[red]"): dead(5)}
    picture = Picture()
    await watch(node.stages, Plan(OBSERVE, once=True), (picture,))
    shown = drawn(picture, node.clock.now, width)
    assert "\x1b" not in shown
    if width == 200:
        assert "n\\x0a/\\x1b[2J[red]" in shown


def drawn(picture: Picture, now: float, width: int = 160) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, markup=False)
    console.print(draw(picture, Heading("demo", "/run/x", enforce=False), "inotify", now))
    return out.getvalue()


# ------------------------------------------------------------------------- what a brake holds


def row(picture: Picture, name: str) -> str:
    shown = drawn(picture, 0.0)
    return next(line for line in shown.splitlines() if line.startswith(name))


def due(name: str) -> Judged:
    return Judged(key(name), judge(DEAD, young=False), Phase.DUE)


@pytest.mark.parametrize("enforce", [True, False])
def test_what_a_brake_holds_is_not_called_due(enforce: bool) -> None:
    """A brake is told of once, whatever became due before it; nothing holds who only observes."""
    picture, stamp = Picture(enforce=enforce), Stamp(0.0, 0.0)
    picture.decided(stamp, due("ns/before"))
    picture.decided(stamp, Braked("mass death", on=True, detail="20 bundles died at once"))
    held = Judged(key("ns/after"), judge(DEAD, young=False), Phase.HELD, cause="mass death")
    picture.decided(stamp, held)
    expected = "mass death: 20 bundles died at once" if enforce else "shim dead"
    assert ("held" if enforce else "due") in row(picture, "ns/before")
    assert expected in row(picture, "ns/before")
    assert "held" in row(picture, "ns/after")
    picture.decided(stamp, Braked("mass death", on=False, detail="released"))
    for name in ("ns/before", "ns/after"):
        assert "due" in row(picture, name)
        assert "mass death" not in row(picture, name)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_two_names_that_differ_look_alike(width: int) -> None:
    picture, stamp = Picture(), Stamp(0.0, 0.0)
    long = "k8s.io/" + "node-exporter-of-the-payment-team-in-zone-" * 2
    for last in "ab":
        picture.decided(stamp, due(long + last))
    shown = drawn(picture, 0.0, width)
    joined = "".join(line[:_NAME].rstrip() for line in shown.splitlines())
    for last in "ab":
        assert long + last in (joined if width < 200 else shown), shown


def test_what_a_guard_refuses_is_said_once() -> None:
    picture, stamp = Picture(enforce=True), Stamp(0.0, 0.0)
    why = "own pid namespace is another one"
    picture.observed(stamp, GuardsChecked((Refusal(Guard.PID_NAMESPACE, why),)))
    picture.decided(stamp, Braked("guards", on=True, detail=why))
    assert drawn(picture, 0.0).count(why) == 1


async def test_pods_are_named_wherever_a_bundle_is(node: FakeNode) -> None:
    labels = Labels(known=True, pod_namespace="shop", pod="cart-0", container="nginx")
    web, lost = BundleKey("k8s.io", "a" * 64), BundleKey("k8s.io", "b" * 64)
    node.inspector.tree = {web: replace(dead(5), labels=labels), lost: dead(6)}
    picture = Picture()
    plan = Plan(OBSERVE, once=True, engine_made=lambda made: setattr(picture, "find", made.track))
    await watch(node.stages, plan, (picture,))
    assert re.search(f"^k8s.io/{'a' * 13} +shop/cart-0/nginx +", drawn(picture, 0.0), re.MULTILINE)
    assert re.search(f"^k8s.io/{'b' * 13} +- +", drawn(picture, 0.0), re.MULTILINE)
    busy = Outcome(web, Identity(1, 5, 1), Result.BLOCKED, BlockReason.MOUNT_BUSY)
    picture.observed(Stamp(0.0, 0.0), busy)
    shown = drawn(picture, 0.0)
    assert f"blocked shop/cart-0/nginx ({web}): mount busy" in shown.replace("\n", " ")
    assert "bundle.blocked shop/cart-0/nginx" in shown
