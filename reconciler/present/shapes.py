"""Shapes: the JSON of `scan` and `clean`, and of a bundle everywhere (design section 6). Stable.

Values of the engine flow in, structs for msgspec flow out. Names are made printable here, so no
byte of a hostile name reaches a terminal or breaks a parser.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.decide.views import BundleView
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import NO_LABELS, Entries, Kind, Labels, Look
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import Layout
from reconciler.model.observations import Refusal
from reconciler.model.outcome import Holder, Outcome, Result, Step
from reconciler.present.debris import DebrisShape
from reconciler.present.envelope import Document, Envelope, Shape

_EXPECTED: Final[dict[str, Entries]] = {
    "address": Entries.ADDRESS | Entries.BOOTSTRAP,
    "config.json": Entries.CONFIG,
    "init.pid": Entries.INIT_PID,
    "log": Entries.LOG,
    "log.json": Entries.LOG_JSON,
    "options.json": Entries.OPTIONS,
    "rootfs": Entries.ROOTFS,
    "runtime": Entries.RUNTIME,
    "shim-binary-path": Entries.SHIM_BINARY_PATH | Entries.SANDBOX,
    "work": Entries.WORK,
}
"""What a healthy bundle holds; any of the entries will do (2.x writes bootstrap.json for address,
and members of a 2.x pod have a `sandbox` file in place of `shim-binary-path`)."""
_EXPECTED_OF_SANDBOXES: Final = ("address", "log", "rootfs", "shim-binary-path", "work")
"""Of these, what one in the tree of sandboxes holds once its shim was started."""

_NO_PIDS: Final[Mapping[BundleKey, int]] = {}

WEDGED: Final = "the shim gives containerd no answer"
UNLISTED: Final = "it runs, and containerd does not know it"

PLANNED: Final = "planned"
"""The result of what would be removed."""

UNKNOWN: Final = Verdict.UNKNOWN.value
"""What a dry run says of what nobody can judge; every other result is one of :class:`Result`."""


class Init(Shape, frozen=True, kw_only=True):
    """Evidence about the init process."""

    pid: int | None = None
    state: str
    detail: str = ""


class Shim(Shape, frozen=True, kw_only=True):
    """Evidence about the shim; a wedged one lives and gives containerd no answer."""

    socket: str | None = None
    state: str
    detail: str = ""
    pid: int | None = None
    wedged: bool


class Pod(Shape, frozen=True):
    """Whose container it is, on Kubernetes; the pod's sandbox itself has no ``container``."""

    namespace: str
    name: str
    container: str | None = None

    @property
    def path(self) -> str:
        """All of it as one name: ``shop/cart-0/nginx``."""
        return "/".join(part for part in (self.namespace, self.name, self.container) if part)


class Bundle(Shape, frozen=True, kw_only=True):
    """One bundle of `scan -o json`; one on which a filesystem is mounted has a mount ``.``.

    ``pod`` is absent where config.json never named one, as long as it was there. ``tree`` is
    ``sandbox`` for one in the tree of sandboxes, and absent for a task's.
    """

    namespace: str
    id: str
    tree: str = ""
    verdict: str
    phase: str | None = None
    reason: str
    age_seconds: float
    size_bytes: int
    size_exact: bool
    init: Init
    shim: Shim
    containerd: str
    unlisted: bool
    mounts: list[str]
    missing: list[str]
    rule: int
    due_in_seconds: float | None = None
    cause: str = ""
    cgroup: str
    runtime: str
    policy: str
    path: str
    pod: Pod | None = None
    attempts: int


class Daemon(Shape, frozen=True):
    """The daemon whose phases and due times are shown; ``hold`` names what holds everything."""

    pid: int
    mode: str
    hold: str = ""


class ScanSummary(Shape, frozen=True):
    """Counts of a scan; no ``daemon`` where none runs: then due times start with the scan."""

    bundles: int
    verdicts: dict[str, int]
    leftovers: int
    debris: int
    total_bytes: int
    leftover_bytes: int
    containerd: str
    refused: list[str]
    seconds: float
    daemon: Daemon | None = None


class Scan(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `scan -o json`."""

    bundles: list[Bundle]
    debris: list[DebrisShape]
    summary: ScanSummary


class StepShape(Shape, frozen=True, kw_only=True):
    """One step of `clean -o json`."""

    step: str
    result: str
    detail: str = ""
    seconds: float
    mutations: int


class ResultShape(Shape, frozen=True, kw_only=True):
    """What came of one thing that `clean` was to remove, or would come of it: ``planned``.

    ``tree`` as in :class:`Bundle`.
    """

    kind: str
    namespace: str
    id: str
    tree: str = ""
    path: str
    result: str
    reason: str = ""
    detail: str = ""
    holders: list[Holder]
    seconds: float
    steps: list[StepShape]
    pod: Pod | None = None


class CleanSummary(Shape, frozen=True):
    """Counts of a clean; ``waiting`` are leftovers whose time has not come."""

    results: dict[str, int]
    mutations: int
    waiting: int
    dry_run: bool
    seconds: float


class Clean(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `clean -o json`."""

    results: list[ResultShape]
    summary: CleanSummary


def missing(key: BundleKey, look: Look) -> list[str]:
    """Name the files a healthy bundle of its tree holds and this one lacks."""
    if look.kind is not Kind.DIRECTORY:
        return []
    found = _missing(look.entries)
    return [one for one in found if not key.tree or one in _EXPECTED_OF_SANDBOXES]


@lru_cache(256)  # of thousands of dead bundles most lack the same
def _missing(found: Entries) -> tuple[str, ...]:
    return tuple([name for name, entries in _EXPECTED.items() if not found & entries])


def bundle(view: BundleView, layout: Layout, pids: Mapping[BundleKey, int] = _NO_PIDS) -> Bundle:
    """Shape one bundle; ``pids`` are those of shims, by the bundles they were started for."""
    look = view.look
    runtime = look.runtime.name or look.runtime.state.value
    return Bundle(
        namespace=view.key.namespace,
        id=view.key.id,
        tree=view.key.tree,
        verdict=view.judgement.verdict.value,
        phase=view.phase.value or None,
        reason=_reason(view),
        age_seconds=round(view.age_seconds, 3),
        size_bytes=look.size_bytes,
        size_exact=look.size_exact,
        init=Init(pid=look.init.pid, state=look.init.state.value, detail=look.init.detail),
        shim=Shim(
            socket=look.shim.socket,
            state=view.facts.shim.value,
            detail=look.shim.detail,
            pid=view.shim_pid(pids),
            wedged=view.wedged,
        ),
        containerd=view.facts.task.value,
        unlisted=view.unlisted,
        mounts=[mount.path or "." for mount in look.mounts],
        missing=missing(view.key, look),
        rule=view.judgement.rule,
        due_in_seconds=None if view.due_in_seconds is None else round(view.due_in_seconds, 3),
        cause=view.cause,
        cgroup=view.facts.cgroup.value,
        runtime=_printable(runtime),
        policy=view.policy,
        path=_path(view.key, layout),
        pod=pod(view.labels),
        attempts=view.attempts,
    )


def _reason(view: BundleView) -> str:
    if not (view.wedged or view.unlisted):
        return view.judgement.reason
    marks = {WEDGED: view.wedged, UNLISTED: view.unlisted}
    return "; ".join((view.judgement.reason, *(mark for mark, is_so in marks.items() if is_so)))


def pod(labels: Labels) -> Pod | None:
    """Name the pod and the container of a bundle; None where its labels name none."""
    if not labels.pod:
        return None
    container = _printable(labels.container) if labels.container else None
    return Pod(_printable(labels.pod_namespace), _printable(labels.pod), container)


def _path(key: BundleKey, layout: Layout) -> str:
    return f"{escape(layout.tree_of(key))}/{key.name}"


def _printable(text: str) -> str:
    return escape(text.encode("utf-8", "surrogateescape"))


def scan(  # noqa: PLR0913 - all that is found
    bundles: Sequence[Bundle],
    left: Sequence[DebrisShape],
    *,
    envelope: Envelope,
    containerd: str,
    refused: Sequence[Refusal],
    seconds: float,
    daemon: Daemon | None = None,
) -> Scan:
    """Shape a whole scan."""
    leftovers = [one for one in bundles if one.verdict == Verdict.LEFTOVER.value]
    summary = ScanSummary(
        bundles=len(bundles),
        verdicts=_counts(Counter(one.verdict for one in bundles), Verdict),
        leftovers=len(leftovers),
        debris=sum(one.verdict == DebrisVerdict.DEBRIS.value for one in left),
        total_bytes=sum(one.size_bytes for one in bundles),
        leftover_bytes=sum(one.size_bytes for one in leftovers),
        containerd=containerd,
        refused=[refusal.reason for refusal in refused],
        seconds=round(seconds, 6),
        daemon=daemon,
    )
    return Scan(**envelope, bundles=list(bundles), debris=list(left), summary=summary)


def outcome(done: Outcome, layout: Layout, labels: Labels = NO_LABELS) -> ResultShape:
    """Shape what came of one bundle; ``labels`` are what its config.json said of it."""
    return ResultShape(
        kind="bundle",
        namespace=done.key.namespace,
        id=done.key.id,
        tree=done.key.tree,
        path=_path(done.key, layout),
        result=done.result.value,
        reason="" if done.reason is None else done.reason.value,
        detail=done.detail,
        holders=list(done.holders),
        seconds=round(done.seconds, 6),
        steps=steps(done.steps),
        pod=pod(labels),
    )


def steps(done: Iterable[Step]) -> list[StepShape]:
    """Shape the steps of an attempt."""
    return [
        StepShape(
            step=step.step,
            result=step.result.value,
            detail=step.detail,
            seconds=round(step.seconds, 6),
            mutations=step.mutations,
        )
        for step in done
    ]


def kept(
    view: BundleView, layout: Layout, result: Result, reason: str, detail: str = ""
) -> ResultShape:
    """Shape what was left alone on purpose: a brake, a protecting rule, a mount.

    ``detail``: what is to be said beside the reason, if not the verdict's own.
    """
    return _untouched(view, layout, result.value, reason, detail)


def planned(view: BundleView, layout: Layout) -> ResultShape:
    """Shape what would be removed, as a dry run and the plan before a question say it."""
    return _untouched(view, layout, PLANNED)


def unknown(view: BundleView, layout: Layout) -> ResultShape:
    """Shape what nobody can judge: whether it would be removed is not known, either."""
    return _untouched(view, layout, UNKNOWN)


def _untouched(
    view: BundleView, layout: Layout, result: str, reason: str = "", detail: str = ""
) -> ResultShape:
    return ResultShape(
        kind="bundle",
        namespace=view.key.namespace,
        id=view.key.id,
        tree=view.key.tree,
        path=_path(view.key, layout),
        result=result,
        reason=reason,
        detail=detail or view.judgement.reason,
        holders=[],
        seconds=0.0,
        steps=[],
        pod=pod(view.labels),
    )


def clean(
    results: Sequence[ResultShape],
    *,
    envelope: Envelope,
    waiting: int,
    dry_run: bool,
    seconds: float,
) -> Clean:
    """Shape a whole clean."""
    counts = Counter(one.result for one in results)
    summary = CleanSummary(
        results={
            **_counts(counts, Result),
            **{one: counts[one] for one in (PLANNED, UNKNOWN)},
        },
        mutations=sum(step.mutations for one in results for step in one.steps),
        waiting=waiting,
        dry_run=dry_run,
        seconds=round(seconds, 6),
    )
    return Clean(**envelope, results=list(results), summary=summary)


def _counts(counts: Mapping[str, int], of: type[Enum]) -> dict[str, int]:
    """Count values, every possible one named, so that a reader finds a 0 and not a hole."""
    return {str(one.value): counts.get(str(one.value), 0) for one in of}
