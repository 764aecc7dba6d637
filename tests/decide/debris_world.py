"""A world with things outside of bundles: inventories, what came of batches, and who asked."""

from dataclasses import dataclass, field

from msgspec.structs import replace

from reconciler.decide.debris_track import DebrisView
from reconciler.model.debris import (
    WHOLE_BATCH,
    DebrisCleaned,
    DebrisKind,
    Inventory,
    Place,
    PlaceKey,
    results_of,
)
from reconciler.model.decisions import CleanDebris, Decision, TakeInventory
from reconciler.model.evidence import Answer, Containerd
from reconciler.model.ids import Identity
from reconciler.model.observations import Listed
from reconciler.model.outcome import BlockReason, Result
from reconciler.model.policy import Brakes, DebrisAction, DebrisPolicy, Policies, Policy
from tests.decide.world import ENFORCE, EPOCH, UP, World

GRACE = ENFORCE.grace


def cleaning(policy: Policy = ENFORCE, *, limit: int | None = None) -> Policies:
    """Policies by which debris of every kind is removed."""
    kinds = tuple(DebrisPolicy(kind, DebrisAction.CLEAN) for kind in DebrisKind)
    return Policies(default=policy, debris=kinds, brakes=Brakes(max_per_minute=limit))


def place(
    kind: DebrisKind = DebrisKind.CGROUP,
    path: str = "/ns/x",
    *,
    ino: int = 2,
    names: tuple[str, str] = ("ns", "x"),
    lives: Answer = Answer.NO,
    owned: Answer = Answer.NO,
    since: float = EPOCH - 1e6,
) -> Place:
    return Place(PlaceKey(kind, path), Identity(1, ino, 3), *names, since, lives, owned)


def places(count: int, kind: DebrisKind = DebrisKind.CGROUP) -> tuple[Place, ...]:
    return tuple(place(kind, f"/ns/{n:05}", ino=n + 1) for n in range(count))


@dataclass
class DebrisWorld(World):
    """An engine that is given inventories when it asks for them, and results of batches.

    Attributes:
        there: What an inventory finds now.
        looked: The kinds it looks for.
        most: So many places an inventory names, the oldest; None for all.
        taken: When inventories were taken.
        batches: What was asked for, and when.
        results: What comes of a batch; None if nothing comes yet.
    """

    policies: Policies = field(default_factory=cleaning)
    nothing_outside: bool = False
    there: list[Place] = field(default_factory=list)
    looked: tuple[DebrisKind, ...] = tuple(DebrisKind)
    most: int | None = None
    taken: list[float] = field(default_factory=list)
    batches: list[tuple[float, tuple[Place, ...]]] = field(default_factory=list)
    result: Result | None = Result.CLEANED
    reason: BlockReason | None = None
    containerd: Containerd = UP

    def begin(self) -> None:
        """List the tree, and ask whom the engine wants to be asked."""
        self.carry(self.observe(Listed(answered=True, present=True)))
        self.ask_node()

    def ask_node(self) -> None:
        """Let a moment pass, and let containerd answer."""
        self.now += 0.001
        self.carry(self.node(self.containerd))

    def carry(self, decisions: list[Decision]) -> None:
        """Do what is asked for."""
        for decision in decisions:
            if isinstance(decision, TakeInventory):
                self.inventory()
            elif isinstance(decision, CleanDebris):
                self.batches.append((self.now, decision.places))
                self.end(decision.places)

    def end(self, batch: tuple[Place, ...]) -> None:
        """Let come of a batch what must."""
        if self.result is None:
            return
        refusal = self.engine.refusal(CleanDebris(batch), self.stamp.mono, ())
        came = replace(WHOLE_BATCH, result=self.result, reason=self.reason)
        results = results_of(batch, refusal or came)
        if refusal is None and self.result is Result.CLEANED:
            self.there = [one for one in self.there if one not in batch]
        self.carry(self.observe(DebrisCleaned(results)))

    def inventory(self) -> None:
        """Take an inventory, and ask the witnesses after it."""
        self.taken.append(self.now)
        found = tuple(one for one in self.there if one.key.kind in self.looked)
        named = found if self.most is None else found[: self.most]
        more = len(named) < len(found)
        self.carry(self.observe(Inventory(self.stamp.mono, self.looked, named, more=more)))
        self.ask_node()

    def pass_time(self, seconds: float) -> None:
        """Let time pass and do what is asked for on the way."""
        end = self.now + seconds
        for _ in range(10_000):
            deadline = self.engine.deadline
            at = end if deadline is None else deadline - self.stamp.mono + self.now
            if at >= end:
                break
            self.now = max(self.now, at)
            self.carry(self.engine.advance(self.stamp))
        else:
            raise AssertionError("the engine's deadline does not move on")
        self.now = max(self.now, end)
        self.carry(self.engine.advance(self.stamp))

    def shown(self) -> list[DebrisView]:
        return list(self.engine.debris_views(self.stamp))

    def one(self) -> DebrisView:
        (view,) = self.shown()
        return view

    def asked_for(self) -> list[str]:
        return [one.key.path for _, batch in self.batches for one in batch]
