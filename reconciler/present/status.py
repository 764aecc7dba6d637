"""Status: what the daemon says of itself, as one JSON value for `status`, `/status` and the page.

Gathered from the engine when asked. Living bundles are counted, not listed, so that the answer
stays small on a large node; `scan` lists everything.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from heapq import nsmallest
from typing import Final

import msgspec

from reconciler.decide.engine import Engine
from reconciler.decide.views import BundleView
from reconciler.model.decisions import Decision, Phase, Verdict
from reconciler.model.evidence import NO_LABELS, Labels
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import Layout
from reconciler.model.observations import GuardsChecked, Listed, Observation, Refusal, Stamp
from reconciler.model.outcome import Outcome
from reconciler.present import debris, shapes
from reconciler.present.debris import DebrisShape
from reconciler.present.envelope import Document, Shape, envelope
from reconciler.present.formatting import URGENCY, name, unread

MOST_BUNDLES: Final = 500
MOST_RECENT: Final = 50
_LISTED: Final = frozenset(Verdict) - {Verdict.RUNNING, Verdict.STOPPED}

_PASSING: Final = frozenset({Verdict.STARTING, Verdict.IN_TRANSITION})
"""Verdicts that pass by themselves."""

_TROUBLED: Final = (Phase.CLEANING, Phase.BLOCKED, Phase.HELD)


class ContainerdStatus(Shape, frozen=True):
    """What is known of containerd itself."""

    state: str
    version: str = ""
    detail: str = ""


class RefusalStatus(Shape, frozen=True):
    """A guard that does not let us act."""

    guard: str
    reason: str


class ConfigStatus(Shape, frozen=True):
    """Which configuration is in force, what waits for a restart, and how the last load ended."""

    files: list[str]
    loaded_at: float
    ok: bool
    after_restart: list[str]
    error: str = ""


class Reload(msgspec.Struct, frozen=True):
    """What came of a load.

    Attributes:
        trouble: What is wrong, one line for each problem; empty if it is in force.
        changes: What is different now, one line for each key.
        after_restart: What waits for a restart, since the start.
        hints: What it says that is probably not meant.
    """

    trouble: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    after_restart: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


class JournalStatus(Shape, frozen=True):
    """Where the run is recorded, how many records are missing, and why the last of them is."""

    path: str
    lost: int
    trouble: str = ""


class EndpointStatus(Shape, frozen=True):
    """An address of ours: the key that names it, and why nobody can reach it, empty if one can."""

    key: str
    address: str
    trouble: str = ""


class SummaryStatus(Shape, frozen=True):
    """All bundles in a few numbers.

    ``debris`` by kind and phase, of kinds that were looked for; ``debris_more``: that is not all.
    """

    bundles: int
    verdicts: dict[str, int]
    phases: dict[str, int]
    blocked: dict[str, int]
    leftover_bytes: int
    oldest_leftover_age_seconds: float
    over_budget: dict[str, int]
    wedged_shims: int
    unlisted: int
    debris: dict[str, dict[str, int]]
    debris_more: bool


class Recent(Shape, frozen=True):
    """One attempt that ended lately; ``at`` in seconds since the epoch."""

    at: float
    result: shapes.ResultShape


class StuckStatus(Shape, frozen=True):
    """A process that may be the shim of a bundle, of any if none is named, and does not say so."""

    pid: int
    bundle: str = ""


class Status(Document, frozen=True, kw_only=True, tag=True):
    """The whole answer.

    ``bundles`` are those that are not simply alive, what needs attention first, and ``omitted`` how
    many more there are; so it is with ``debris``. ``internal_errors`` counts what failed by part of
    ours; all else went on.
    """

    version: str
    mode: str
    pid: int
    state: str
    backend: str
    now: float
    uptime_seconds: float
    ready: bool
    containerd: ContainerdStatus
    refused: list[RefusalStatus]
    stuck: list[StuckStatus]
    brake: str = ""
    config: ConfigStatus
    journal: JournalStatus | None = None
    summary: SummaryStatus
    bundles: list[shapes.Bundle]
    omitted: int
    debris: list[DebrisShape]
    debris_omitted: int
    recent: list[Recent]
    backend_trouble: str = ""
    listing_trouble: str = ""
    endpoints: list[EndpointStatus]
    internal_errors: dict[str, int]


class Attempts(msgspec.Struct):
    """Remembers what came of the last attempts, and why we cannot look or act. A listener.

    Attributes:
        layout: Where bundles lie.
        labels_of: Gives what is known of the labels of a bundle that was tried.
        unread: What of the state trees could not be listed when that was last tried.
    """

    layout: Layout
    labels_of: Callable[[BundleKey], Labels] = lambda _key: NO_LABELS
    refused: tuple[Refusal, ...] = ()
    unread: str = ""
    recent: deque[Recent] = msgspec.field(default_factory=lambda: deque(maxlen=MOST_RECENT))

    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Take in what was learnt."""
        match observation:
            case Outcome():
                labels = self.labels_of(observation.key)
                result = shapes.outcome(observation, self.layout, labels)
                self.recent.appendleft(Recent(stamp.wall, result))
            case GuardsChecked(refused=refused):
                self.refused = refused
            case Listed(namespace=namespace):
                # That one namespace can be listed does not say that all can.
                self.unread = unread(observation) or (self.unread if namespace else "")
            case _:
                pass

    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Nothing to remember."""


class About(msgspec.Struct, frozen=True):
    """What the status says beside the engine's part; see :class:`Status`."""

    node: str
    version: str
    mode: str
    pid: int
    backend: str
    uptime_seconds: float
    ready: bool
    config: ConfigStatus
    journal: JournalStatus | None = None
    backend_trouble: str = ""
    endpoints: list[EndpointStatus] = msgspec.field(default_factory=list)
    internal_errors: Mapping[str, int] = msgspec.field(default_factory=dict)


def needs_attention(one: shapes.Bundle) -> bool:
    """Return whether anybody has to look at a bundle that is listed.

    What a rule protects stays on purpose, and what is being created or removed passes by itself.
    """
    passes = one.verdict in {verdict.value for verdict in _PASSING} and not one.shim.wedged
    return one.phase != Phase.PROTECTED.value and not passes


def gather(
    engine: Engine, attempts: Attempts, about: About, stamp: Stamp, text: str = ""
) -> Status:
    """Put the status together; one pass over all bundles and all debris.

    Args:
        engine: What decides.
        attempts: What came of the last attempts.
        about: What else is said.
        stamp: The time.
        text: List only what mentions this, in capitals or not.
    """
    summary = engine.summary(stamp.mono)
    node, hold = engine.node.containerd, engine.hold
    processes = engine.node.processes
    pids = {shim.key: shim.pid for shim in processes.shims}
    wanted, listed = text.casefold(), 0

    def notable() -> Iterator[BundleView]:
        nonlocal listed
        for view in engine.views(stamp.mono):
            listed_ = view.judgement.verdict in _LISTED or view.wedged or view.unlisted
            if listed_ and (not wanted or wanted in _said(view)):
                listed += 1
                yield view

    # Never all views at once: on a large node they are many megabytes.
    urgent = nsmallest(MOST_BUNDLES, notable(), key=_urgency)
    left = debris.left(engine.debris_views(stamp), engine.debris.looked, wanted)
    return Status(
        **envelope(about.node, stamp.wall),
        version=about.version,
        mode=about.mode,
        pid=about.pid,
        state=escape(attempts.layout.state),
        backend=about.backend,
        now=stamp.wall,
        uptime_seconds=round(about.uptime_seconds, 3),
        ready=about.ready,
        containerd=ContainerdStatus(node.state.value, node.version, node.detail),
        refused=[RefusalStatus(one.guard.value, one.reason) for one in attempts.refused],
        stuck=[
            StuckStatus(one.pid, "" if one.key is None else str(one.key))
            for one in processes.unread
        ],
        brake=f"{hold.brake}: {hold.detail}" if hold else "",
        config=about.config,
        journal=about.journal,
        summary=SummaryStatus(
            bundles=summary.verdicts.total(),
            verdicts={
                verdict.value: sum(
                    count for (_, one), count in summary.verdicts.items() if one is verdict
                )
                for verdict in Verdict
            },
            phases={phase.value: summary.phases[phase] for phase in URGENCY},
            blocked=dict(summary.blocked),
            leftover_bytes=summary.leftover_bytes,
            oldest_leftover_age_seconds=round(summary.oldest_leftover_age, 3),
            over_budget={kind.value: count for kind, count in summary.over_budget.items()},
            wedged_shims=len(summary.wedged),
            unlisted=summary.unlisted,
            debris=left.counts,
            debris_more=engine.debris.is_more,
        ),
        bundles=[shapes.bundle(view, attempts.layout, pids) for view in urgent],
        omitted=listed - len(urgent),
        debris=left.listed,
        debris_omitted=left.omitted,
        recent=[one for one in attempts.recent if wanted in _told(one.result)],
        backend_trouble=about.backend_trouble,
        listing_trouble=attempts.unread,
        endpoints=about.endpoints,
        internal_errors={where: n for where, n in about.internal_errors.items() if n},
    )


def _said(view: BundleView) -> str:
    """Join what the page says of a bundle, for whoever looks for a word of it."""
    labels, judgement = view.labels, view.judgement
    pod = f"{labels.pod_namespace}/{labels.pod}/{labels.container}"
    words = (str(view.key), pod, judgement.verdict.value, view.phase.value, judgement.reason)
    return "\n".join((*words, view.cause)).casefold()


def _told(one: shapes.ResultShape) -> str:
    pod = "" if one.pod is None else one.pod.path
    return "\n".join((name(one), pod, one.result, one.reason, one.detail)).casefold()


def _urgency(view: BundleView) -> tuple[int, float]:
    """Order by what people want to see first.

    (1) What is being removed or cannot be, (2) what nobody removes: an orphan, an unknown one, a
    wedged or an abandoned shim, (3) leftovers on their way, (4) what passes by itself, (5) what a
    rule protects.
    """
    phase, last = view.phase, len(URGENCY)
    if phase in _TROUBLED:
        return URGENCY[phase] - last, -view.age_seconds
    if phase is Phase.PROTECTED:
        return last + 1, -view.age_seconds
    if phase in URGENCY:
        return URGENCY[phase], -view.age_seconds
    passes = view.judgement.verdict in _PASSING and not view.wedged
    return last if passes else -1, -view.age_seconds
