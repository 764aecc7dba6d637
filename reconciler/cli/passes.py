"""Passes: what `scan`, `explain` and `clean` do with the loop: look once, or clean once.

Stages and policies flow in, what was found and what came of it flows out. Written against the
ports alone, so the same code runs on doubles. Nothing is printed here.
"""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import msgspec
from msgspec.structs import replace
from typing_extensions import override

from reconciler.cli.signals import StopWorkers, ending_in_order
from reconciler.decide.debris_track import DebrisView
from reconciler.decide.debris_verdicts import SHOWN
from reconciler.decide.engine import Engine
from reconciler.decide.views import BundleView
from reconciler.loop import Loop
from reconciler.model.debris import DebrisCleaned, DebrisKind, DebrisResult, Place, PlaceKey
from reconciler.model.decisions import CleanDebris, Decision, Verdict
from reconciler.model.evidence import NO_LABELS, Answer, Labels, Node, TaskState
from reconciler.model.ids import BundleKey
from reconciler.model.observations import (
    GuardsChecked,
    Hidden,
    Listed,
    NodeLooked,
    Observation,
    Refusal,
    Stamp,
)
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policies
from reconciler.ports import Listener, Stages


class Pass(Listener):
    """Knows when the first pass over everything is complete, and what came of cleanups.

    Attributes:
        listed: The first listing of the whole tree.
        received: Whether the node's witnesses were asked since.
        refused: Reasons of the guards; None before they were checked.
        outcomes: The last outcome for each bundle, in the order in which they came first.
        places: The last result for each piece of debris, in the same order.
        labels: What was known of the labels of those.
        labels_of: Gives it.
    """

    def __init__(self, labels_of: Callable[[BundleKey], Labels] = lambda _key: NO_LABELS) -> None:
        self.labels_of = labels_of
        self.listed: Listed | None = None
        self.received = False
        self.refused: tuple[Refusal, ...] | None = None
        self.outcomes: dict[BundleKey, Outcome] = {}
        self.places: dict[PlaceKey, tuple[Place, DebrisResult]] = {}
        self.labels: dict[BundleKey, Labels] = {}

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Take in what was learnt."""
        match observation:
            case Listed(namespace=None) if self.listed is None or not self.listed.answered:
                self.listed = observation
            case NodeLooked():
                self.received = self.listed is not None
            case GuardsChecked(refused=refused):
                self.refused = refused
            case DebrisCleaned(results=results):
                for one in results:
                    place, _ = self.places[one.key]
                    self.places[one.key] = place, one
            case Outcome(key=key):
                self.outcomes[key] = observation
                self.labels[key] = self.labels_of(key)
            case _:
                pass

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Take note of what is to be removed."""
        if isinstance(decision, CleanDebris):
            for place in decision.places:
                blank = DebrisResult(place.key, place.identity, Result.FAILED, detail="no result")
                self.places[place.key] = place, blank

    @property
    def complete(self) -> bool:
        """Whether everything was looked at and everybody was asked once."""
        if self.listed is not None and not self.listed.answered:
            return True
        return self.listed is not None and self.received and self.refused is not None


class Found(msgspec.Struct, frozen=True):
    """What a pass found, and what came of it.

    Attributes:
        views: Every bundle, in order of name.
        hidden: Directories left by removals that were cut short.
        debris: What lies outside of bundles, and is debris or may be.
        node: What the node's witnesses said.
        listed: The listing; ``answered`` is false if the tree could not be read.
        refused: Reasons of the guards.
        outcomes: What came of cleanups, none after a pass of looking.
        places: What came of debris.
        stamp: When it ended.
        seconds: How long it took.
        signal: The signal that ended it, if one did.
        labels: What was known of the labels of those that came to an outcome.
        left_out: Kinds of debris that were to be removed and could not be looked for.
        troubles: Why kinds could not be, one line each.
    """

    views: tuple[BundleView, ...]
    hidden: tuple[Hidden, ...]
    debris: tuple[DebrisView, ...]
    node: Node
    listed: Listed
    refused: tuple[Refusal, ...]
    outcomes: tuple[Outcome, ...]
    stamp: Stamp
    seconds: float
    signal: int | None = None
    places: tuple[tuple[Place, DebrisResult], ...] = ()
    labels: Mapping[BundleKey, Labels] = msgspec.field(default_factory=dict)
    left_out: tuple[DebrisKind, ...] = ()
    troubles: tuple[str, ...] = ()

    @property
    def containerd_missing(self) -> bool:
        """Whether anything cannot be judged because containerd gives no answer."""
        return any(
            view.judgement.verdict is Verdict.UNKNOWN and view.facts.task is TaskState.NONE
            for view in self.views
        )

    @property
    def blind(self) -> bool:
        """Whether anything cannot be judged because nobody could tell which processes run."""
        scan = self.node.processes
        if scan.answered and all(one.key is not None for one in scan.unread):
            return False
        return any(
            view.judgement.verdict is Verdict.UNKNOWN and view.facts.helper is Answer.NONE
            for view in self.views
        )

    @property
    def unproven(self) -> bool:
        """Whether anything is unknown because a witness of the whole node is silent or blind."""
        return any(
            view.judgement.verdict is Verdict.UNKNOWN
            and (
                view.facts.task is TaskState.NONE
                or view.facts.helper is Answer.NONE
                or self.node.foreign_mounts
            )
            for view in self.views
        )

    @property
    def results(self) -> frozenset[Result]:
        """The results there were."""
        return frozenset(outcome.result for outcome in self.outcomes)


def observing(policies: Policies) -> Policies:
    """Give the same policies with nothing that may be removed."""
    return replace(
        policies,
        default=replace(policies.default, enforce=False),
        rules=tuple(
            replace(rule, policy=replace(rule.policy, enforce=False)) for rule in policies.rules
        ),
    )


async def look_once(stages: Stages, policies: Policies) -> Found:
    """Look at everything once and ask everybody once. Nothing is removed, whatever the policies."""
    return await _pass(stages, observing(policies), lambda engine, _now: engine.is_answered)


async def clean_once(
    stages: Stages, policies: Policies, stop_workers: StopWorkers | None = None
) -> Found:
    """Look, wait out the grace, clean what is due. Ends when waiting would change nothing more.

    A guard that refuses, or a tree that cannot be read, ends it at once; a signal ends it in order.
    """
    return await _pass(
        stages, policies, lambda engine, now: engine.is_settled(now), stop_workers=stop_workers
    )


async def _pass(
    stages: Stages,
    policies: Policies,
    is_over: Callable[[Engine, float], bool],
    *,
    stop_workers: StopWorkers | None = None,
) -> Found:
    engine = Engine(policies, is_one_pass=True)
    seen = Pass(labels_of=engine.labels)
    loop = Loop(engine, replace(stages, essential=(seen,)))
    began = stages.clock.monotonic()

    def until(now: float) -> bool:
        return seen.complete and (bool(seen.refused) or is_over(engine, now))

    caught: list[int] = []
    async with AsyncExitStack() as stack:
        if stop_workers is not None:
            caught = await stack.enter_async_context(ending_in_order(loop, stop_workers))
        await loop.run(until)
    stamp = Stamp(stages.clock.monotonic(), stages.clock.wall())
    return Found(
        views=tuple(engine.views(stamp.mono)),
        hidden=engine.hidden,
        debris=tuple(one for one in engine.debris_views(stamp) if one.verdict in SHOWN),
        node=engine.node,
        listed=seen.listed or Listed(answered=False, present=False),
        refused=seen.refused or (),
        outcomes=tuple(seen.outcomes.values()),
        stamp=stamp,
        seconds=stamp.mono - began,
        signal=caught[0] if caught else None,
        places=tuple(seen.places.values()),
        labels=seen.labels,
        left_out=engine.debris.pace.left_out,
        troubles=engine.debris.troubles,
    )
