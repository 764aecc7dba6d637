"""A few words to describe bundles in the engine's tests: looks, nodes, and an engine on a clock."""

from dataclasses import dataclass, field

from msgspec.structs import replace

from reconciler.decide.engine import Engine
from reconciler.decide.views import BundleView
from reconciler.model.debris import Inventory
from reconciler.model.decisions import Clean, Decision, Judged, Phase, TakeInventory, Verdict
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Containerd,
    ContainerdState,
    Facts,
    Init,
    InitState,
    Kind,
    Labels,
    Look,
    ProcessScan,
    Runtime,
    RuntimeState,
    Shim,
    ShimState,
    TaskState,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import (
    GuardsChecked,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    Seen,
    Stamp,
)
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Policies, Policy

EPOCH = 1_700_000_000.0
BOOTED = 100_000.0
"""The tests begin this long after the boot."""

ENFORCE = Policy(enforce=True, grace=10.0, threshold=0.0, max_age=None, max_size=None)
UP = Containerd(ContainerdState.UP)
DOWN = Containerd(ContainerdState.DOWN)
SILENT = Containerd(ContainerdState.NONE)
SWEEP = ProcessScan(answered=True)

DEAD = Facts(
    kind=Kind.DIRECTORY,
    identifier=True,
    helper=Answer.NO,
    shim=ShimState.DEAD,
    init=InitState.DEAD,
    cgroup=CgroupState.GONE,
    runtime=RuntimeState.KNOWN,
    created=Answer.YES,
    task=TaskState.NOT_LISTED,
)
"""A bundle that every witness calls dead."""


def key(name: str = "ns/a") -> BundleKey:
    namespace, _, bundle_id = name.partition("/")
    return BundleKey(namespace, bundle_id)


def dead(ino: int = 1, *, age: float = 3600.0, size: int = 4096, pod_ns: str = "") -> Look:
    """A complete bundle whose shim and init are dead."""
    return Look(
        identity=Identity(1, ino, 1),
        kind=Kind.DIRECTORY,
        newest_mtime=EPOCH - age,
        size_bytes=size,
        created=Answer.YES,
        runtime=Runtime(RuntimeState.KNOWN, "runc"),
        init=Init(InitState.DEAD, 1000 + ino),
        shim=Shim(ShimState.DEAD, "/run/containerd/s/x", "a"),
        cgroup=CgroupState.GONE,
        labels=Labels(known=True, pod_namespace=pod_ns),
    )


def running(ino: int = 1) -> Look:
    look = dead(ino)
    return replace(
        look,
        init=replace(look.init, state=InitState.ALIVE),
        shim=replace(look.shim, state=ShimState.ALIVE),
        cgroup=CgroupState.POPULATED,
    )


def stopped(ino: int = 1) -> Look:
    return replace(running(ino), init=Init(InitState.DEAD, 1000 + ino), cgroup=CgroupState.EMPTY)


def orphaned(ino: int = 1) -> Look:
    look = running(ino)
    return replace(look, shim=replace(look.shim, state=ShimState.DEAD))


def newborn(ino: int = 1) -> Look:
    """A bundle in creation: nothing but its directory and config.json."""
    return replace(
        dead(ino, age=0.0),
        created=Answer.NO,
        init=Init(InitState.ABSENT),
        shim=Shim(ShimState.UNNAMED, None, "a"),
    )


@dataclass
class World:
    """An engine, a clock, and what the engine said."""

    policies: Policies = field(default_factory=lambda: Policies(default=ENFORCE))
    now: float = 0.0
    wall_offset: float = 0.0
    said: list[Decision] = field(default_factory=list)
    nothing_outside: bool = True

    def __post_init__(self) -> None:
        self.engine = Engine(self.policies)
        self.observe(GuardsChecked())

    @property
    def stamp(self) -> Stamp:
        return Stamp(BOOTED + self.now, EPOCH + self.now + self.wall_offset)

    def observe(self, observation: Observation) -> list[Decision]:
        out = self.engine.observe(self.stamp, observation)
        if self.nothing_outside and TakeInventory() in out:
            out.remove(TakeInventory())
            out += self.engine.observe(self.stamp, Inventory(self.stamp.mono))
        self.said += out
        return out

    def listed(self, **bundles: int) -> list[Decision]:
        """List bundles of namespace ``ns`` by id and inode."""
        seen = tuple(Seen(key(f"ns/{name}"), Identity(1, ino, 1)) for name, ino in bundles.items())
        return self.observe(Listed(answered=True, present=True, bundles=seen))

    def look(self, look: Look | None, name: str = "ns/a") -> list[Decision]:
        return self.observe(Looked(key(name), look))

    def node(
        self, containerd: Containerd = UP, scan: ProcessScan = SWEEP, since: float | None = None
    ) -> list[Decision]:
        """Hear the witnesses; ``since``: when they were asked, if not just now.

        containerd lists whatever runs, unless a test says what it lists.
        """
        asked_at = self.now if since is None else since
        if containerd is UP:
            runs = [one.key for one in self.engine.tracks if one.verdict is Verdict.RUNNING]
            containerd = replace(UP, tasks=frozenset(runs))
        return self.observe(NodeLooked(BOOTED + asked_at, scan, containerd))

    def wait(self, seconds: float) -> list[Decision]:
        """Let time pass, keeping every appointment on the way."""
        out: list[Decision] = []
        end = self.now + seconds
        for _ in range(100_000):
            deadline = self.engine.deadline
            if deadline is None or deadline - BOOTED > end:
                break
            self.now = max(self.now, deadline - BOOTED)
            out += self.engine.advance(self.stamp)
        else:
            raise AssertionError("the engine's deadline does not move on")
        self.now = end
        out += self.engine.advance(self.stamp)
        self.said += out
        return out

    def view(self, name: str = "ns/a") -> BundleView:
        view = self.engine.view(key(name), BOOTED + self.now)
        assert view is not None, f"{name} is not known"
        return view

    def phase(self, name: str = "ns/a") -> Phase:
        return self.view(name).phase

    def cleans(self) -> list[str]:
        """The bundles whose cleanup was asked for, in order."""
        return [str(d.key) for d in self.said if isinstance(d, Clean)]

    def verdicts(self, name: str = "ns/a") -> list[str]:
        """The verdicts that were told about a bundle, repeats left out."""
        told = [
            d.judgement.verdict.value
            for d in self.said
            if isinstance(d, Judged) and d.key == key(name)
        ]
        return [v for i, v in enumerate(told) if i == 0 or told[i - 1] != v]


def outcome(
    result: Result,
    ino: int = 1,
    name: str = "ns/a",
    *,
    reason: BlockReason | None = None,
    look: Look | None = None,
) -> Outcome:
    return Outcome(key(name), Identity(1, ino, 1), result, reason, look=look)


def leftover(policy: Policy = ENFORCE) -> World:
    """A world with one leftover at ns/a, just judged."""
    world = World(Policies(default=policy))
    world.listed(a=1)
    world.look(dead())
    world.node()
    assert world.view().judgement.verdict is Verdict.LEFTOVER
    return world
