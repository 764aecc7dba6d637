"""A reload holds back what the new policy forbids, at whatever point of its life a bundle is.

Three leftovers (or orphans that are to be ended) become due, one a minute may go, the witnesses
take a while to answer and a free worker is waited for. Other policies are put into force at one
moment after the other. From then on no cleaner begin that the new ones would not have sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
import pytest
from msgspec import structs
from msgspec.structs import replace
from typing_extensions import override

from reconciler.loop import Loop
from reconciler.model.evidence import Look
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Hidden, Listed, Resync, ResyncKind
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Brakes, Match, Orphans, Policies, Policy, Rule
from reconciler.ports import Emit
from tests.decide.world import ENFORCE, dead, key, orphaned
from tests.support.fakes import FakeInspector
from tests.support.rig import Rig

pytestmark = pytest.mark.safety

NAMES = ("ns/a", "ns/b", "ns/c")
KILL = replace(ENFORCE, orphans=Orphans.KILL)
SLOW = Brakes(max_per_minute=1)
DEFAULT = Policies(default=ENFORCE, brakes=SLOW)

MOMENTS = (0.0, 5.0, 10.6, 10.8, 11.3, 11.5, 13.3, 13.5, 14.6, 30.0, 70.6, 70.8, 71.5, 73.3, 73.5)
"""Waiting; due and asked for; the witnesses being asked; waiting for a worker; sent; the next one
held by the brake; and the same again for that one. `test_the_moments_are_these` sees to it."""

FORBIDDING = {
    "threshold": replace(DEFAULT, default=replace(ENFORCE, threshold=168 * 3600.0)),
    "grace": replace(DEFAULT, default=replace(ENFORCE, grace=168 * 3600.0)),
    "mode": replace(DEFAULT, default=replace(ENFORCE, enforce=False)),
    "protect": replace(DEFAULT, rules=(Rule(Match(id="?"), Policy("all", protect=True)),)),
    "protect a pod": replace(
        DEFAULT, rules=(Rule(Match(pod_namespace="kube-*"), Policy("pod", protect=True)),)
    ),
    "rule with a mode": replace(DEFAULT, rules=(Rule(Match(namespace="ns"), Policy("only look")),)),
    "rule with a threshold": replace(
        DEFAULT, rules=(Rule(Match(), replace(ENFORCE, name="slow", threshold=1e6)),)
    ),
    "protect an annotation": replace(
        DEFAULT,
        rules=(Rule(Match(annotations=(("keep", "*"),)), Policy("keep", protect=True)),),
    ),
}


@dataclass
class Reload:
    """Puts other policies into force once; implements `ports.Source`."""

    rig: Rig
    policies: Policies
    after: float
    before: list[BundleKey] = field(default_factory=list)
    done: bool = False

    async def run(self, emit: Emit) -> None:
        if self.after:
            await self.rig.clock.take(self.after)
        self.rig.inspector.annotation_keys |= self.policies.annotation_keys
        if self.policies.annotation_keys:  # as `daemon.reloading` has all looked at first
            emit(Resync(ResyncKind.ASKED))
            await self.rig.clock.take(0.02)
        self.rig.loop.configure(self.policies)
        self.before = [who for _, who in self.rig.cleaner.begun]
        self.done = True
        await anyio.sleep_forever()

    @property
    def begun_after(self) -> list[BundleKey]:
        return [who for _, who in self.rig.cleaner.begun[len(self.before) :]]


def make(policies: Policies, look: Look, *, names: Sequence[str] = NAMES) -> Rig:
    rig = Rig(policies)
    for number, name in enumerate(names, 1):
        sandbox = structs.replace(look.labels, sandbox=key(name).id)  # nobody tells more
        rig.inspector.tree[key(name)] = replace(
            look, identity=Identity(1, number, 1), labels=sandbox
        )
    rig.node_source.takes, rig.cleaner.waits, rig.cleaner.takes = 0.7, 2.0, 1.0
    return rig


async def reloaded(rig: Rig, policies: Policies, after: float, lasting: float = 400.0) -> Reload:
    change = Reload(rig, policies, after)
    stages = replace(rig.loop._stages, sources=(change,))
    rig.loop = Loop(rig.engine, stages, relist=300.0)
    await rig.run_for(lasting)
    assert change.done
    return change


KUBE = dead(pod_ns="kube-system")
KUBE = replace(KUBE, labels=structs.replace(KUBE.labels, annotations=(("keep", "1"),)))


async def test_the_moments_are_these() -> None:
    """Without a reload all three go, a minute apart; the moments lie before, between and after."""
    rig = make(DEFAULT, KUBE)
    start = rig.clock.now
    await rig.run_for(400.0)
    times = [at - start for at, _ in rig.cleaner.begun]
    assert [round(at, 1) for at in times[:2]] == [13.4, 73.4]
    assert len(times) == 3


@pytest.mark.parametrize("after", MOMENTS)
@pytest.mark.parametrize("change", FORBIDDING)
async def test_nothing_begins_that_the_new_policy_forbids(change: str, after: float) -> None:
    done = await reloaded(make(DEFAULT, KUBE), FORBIDDING[change], after)
    assert done.begun_after == []


@pytest.mark.parametrize("after", MOMENTS)
async def test_no_orphan_is_ended_once_they_are_only_to_be_reported(after: float) -> None:
    policies = replace(DEFAULT, default=KILL)
    rig = make(policies, orphaned())
    done = await reloaded(rig, DEFAULT, after)
    assert done.begun_after == []
    control = make(policies, orphaned())
    await control.run_for(100)
    assert control.cleaner.begun


@pytest.mark.parametrize("after", MOMENTS)
async def test_a_stricter_brake_holds_also_what_was_asked_for(after: float) -> None:
    """Those asked for under the old limit count, and in any minute no more begin than the new."""
    fast = replace(DEFAULT, brakes=Brakes(max_per_minute=100, mass_deaths=1000))
    rig = make(fast, KUBE, names=[f"ns/{number}" for number in range(8)])
    done = await reloaded(rig, DEFAULT, after)
    times = [at for at, _ in rig.cleaner.begun]
    for number in range(len(done.before), len(times)):
        near = [at for at in times[: number + 1] if at > times[number] - 58.0]
        assert len(near) <= 1 or len(done.before) == number == 0, times
    assert len(times) >= 6  # and they do go, one a minute


@pytest.mark.parametrize("after", MOMENTS)
async def test_what_was_held_back_goes_on_under_the_next_policy(after: float) -> None:
    rig = make(DEFAULT, KUBE)
    await reloaded(rig, FORBIDDING["threshold"], after)
    held = len(rig.inspector.tree)
    done = await reloaded(rig, DEFAULT, 1.0)
    assert len(done.begun_after) == held
    assert rig.inspector.tree == {}


async def test_what_is_held_back_has_not_failed() -> None:
    rig = make(DEFAULT, KUBE)
    await reloaded(rig, FORBIDDING["protect"], 11.5, lasting=30.0)
    (outcome,) = (told for _, told in rig.memory.observations if isinstance(told, Outcome))
    assert (outcome.result, outcome.reason) == (Result.HELD, BlockReason.POLICY)
    assert outcome.detail == 'the rule "all" protects it'
    views = list(rig.engine.views(rig.clock.now))
    assert [(view.phase.value, view.cause, view.attempts) for view in views] == [
        ("protected", "all", 0)
    ] * 3


class WithHidden(FakeInspector):
    """A tree in which a removal of ours was cut short."""

    hidden = Hidden(key("ns/.reconciler-9-ab"), Identity(1, 9, 1), 0.0, ours=True)

    @override
    def list(self, namespace: str | None = None) -> Listed:
        return replace(super().list(namespace), hidden=(self.hidden,))


@pytest.mark.parametrize("after", [0.0, 0.3, 1.5, 2.5])
@pytest.mark.parametrize("change", ["mode", "rule with a mode", "protect a namespace"])
async def test_no_removal_is_finished_that_the_new_policy_forbids(
    change: str, after: float
) -> None:
    namespace = Rule(Match(namespace="ns"), Policy("ns", protect=True))
    changes = FORBIDDING | {"protect a namespace": replace(DEFAULT, rules=(namespace,))}
    rig = make(DEFAULT, KUBE)
    inspector = WithHidden()
    rig.loop = Loop(rig.engine, replace(rig.loop._stages, inspector=inspector), relist=300.0)
    done = await reloaded(rig, changes[change], after)
    assert done.begun_after == []


async def test_a_rule_for_some_ids_does_not_keep_what_has_lost_its_id() -> None:
    """A rule that needs an id or labels says nothing about a removal that was cut short."""
    rig = make(FORBIDDING["protect a pod"], KUBE)
    rig.loop = Loop(rig.engine, replace(rig.loop._stages, inspector=WithHidden()), relist=300.0)
    await rig.run_for(10)
    assert set(rig.cleaner.finished) == {WithHidden.hidden.key}
