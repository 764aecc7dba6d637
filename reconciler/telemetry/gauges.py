"""Gauges: the state of all bundles, counted from the engine at each scrape, so it cannot drift."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from reconciler.decide.cleanups import BRAKES
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.decide.engine import Engine
from reconciler.model.debris import DebrisKind
from reconciler.model.decisions import BudgetKind, Phase, Verdict
from reconciler.model.observations import Stamp
from reconciler.model.outcome import BlockReason
from reconciler.ports import Clock, Watcher
from reconciler.present.formatting import URGENCY
from reconciler.supervision import Supervisor

PREFIX: Final = "containerd_reconciler_"
MAX_NAMESPACES: Final = 50
OTHER: Final = "(other)"
MODES: Final = ("observe", "enforce")
NO_PHASE: Final = "none"
BACKENDS: Final = ("inotify", "watchfiles", "poll", "none")

Rows = dict[tuple[str, ...], float]

_KINDS: Final = (
    *((verdict.value, NO_PHASE) for verdict in Verdict if verdict is not Verdict.LEFTOVER),
    *((Verdict.LEFTOVER.value, phase.value or NO_PHASE) for phase in (Phase.NONE, *URGENCY)),
)
"""Verdict and phase of the series that every namespace has from its first sight on."""


class Namespaces:
    """Bounds the values of the label ``namespace``; first come, first served."""

    def __init__(self) -> None:
        self.known: dict[str, None] = {}  # in order

    def label(self, namespace: str) -> str:
        """Give the label value for a namespace."""
        if namespace not in self.known and len(self.known) < MAX_NAMESPACES:
            self.known[namespace] = None
        return namespace if namespace in self.known else OTHER


class AtScrape(Collector):
    """The gauges that are counted from the engine when asked.

    Args:
        engine: Whose bundles are counted.
        clock: To age them.
        watcher: Whose backend is shown; None for none.
        lost: Counts the records that are missing in the journal.
        namespaces: The bounded label values.
        watch: Counts what failed, here as well: one metric that cannot be had costs no other.
    """

    def __init__(  # noqa: PLR0913 - whom it asks
        self,
        engine: Engine,
        clock: Clock,
        watcher: Watcher | None,
        *,
        lost: Callable[[], int],
        namespaces: Namespaces,
        watch: Supervisor,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._watcher = watcher
        self._lost = lost
        self._namespaces = namespaces
        self._watch = watch
        watch.know("metric")

    @override
    def collect(self) -> Iterable[Metric]:
        found: list[Metric] = []
        for some in (self._of_bundles, self._of_parts, self._of_the_journal):
            self._watch.call("metric", _extend, found, some)
        yield from found
        errors = CounterMetricFamily(
            PREFIX + "internal_errors",
            "Failures of a part of ours; all else went on.",
            labels=["where"],
        )
        for where, count in self._watch.counts.items():
            errors.add_metric((where,), count)
        yield errors

    def _of_bundles(self) -> Iterable[Metric]:
        summary = self._engine.summary(self._clock.monotonic())
        for namespace, *_ in summary.bundles:
            self._namespaces.label(namespace)
        counts: Rows = {(name, *kind): 0.0 for name in self._namespaces.known for kind in _KINDS}
        for (namespace, verdict, phase), count in summary.bundles.items():
            row = (self._namespaces.label(namespace), verdict.value, phase.value or NO_PHASE)
            counts[row] = counts.get(row, 0.0) + count
        labels = ["namespace", "verdict", "phase"]
        yield _family("bundles", "Bundles by verdict and phase.", labels, counts)
        text = "Things left outside a bundle; at least so many: few thousand are named at once."
        yield _family("debris", text, ["kind"], self._debris())
        yield _plain("leftover_bytes", "Bytes of all leftovers.", summary.leftover_bytes)
        oldest = summary.oldest_leftover_age
        yield _plain("oldest_leftover_age_seconds", "Age of the oldest leftover.", oldest)
        blocked: Rows = {(reason.value,): 0.0 for reason in BlockReason}
        blocked.update({(cause,): float(n) for cause, n in summary.blocked.items()})
        yield _family("blocked", "Leftovers that cannot be cleaned now.", ["reason"], blocked)
        wedged = float(len(summary.wedged))
        yield _plain("wedged_shims", "Living shims that give containerd no answer.", wedged)
        unlisted = float(summary.unlisted)
        yield _plain("unlisted_tasks", "Running tasks that containerd does not know.", unlisted)
        text = "Bundles of unknown runtimes of which nothing seems to live."
        yield _plain("dead_aliens", text, float(summary.aliens))
        over: Rows = {(kind.value,): float(summary.over_budget[kind]) for kind in BudgetKind}
        yield _family("over_budget", "Running tasks over a budget.", ["kind"], over)

    def _of_parts(self) -> Iterable[Metric]:
        now = self._watcher.backend if self._watcher else "none"
        backends: Rows = {(name,): float(name == now) for name in BACKENDS}
        yield _family("watch_backend", "The backend that works now.", ["backend"], backends)
        hold = self._engine.hold
        on: Rows = {(name,): 0.0 for name in BRAKES}
        if hold is not None:
            on[hold.brake,] = 1.0
        yield _family("brake_on", "Whether a brake holds every removal now.", ["brake"], on)
        mode = MODES[self._engine.policies.default.enforce]
        modes: Rows = {(name,): float(name == mode) for name in MODES}
        yield _family(
            "mode", "The mode that is in force; rules may say otherwise.", ["mode"], modes
        )

    def _of_the_journal(self) -> Iterable[Metric]:
        text = "Records that are missing in the journal."
        yield CounterMetricFamily(PREFIX + "journal_records_lost", text, value=self._lost())

    def _debris(self) -> Rows:
        """Count the kinds that are looked for; a 0 for another one would say that none is there."""
        debris = self._engine.debris
        counts = Counter(
            one.place.key.kind
            for one in self._engine.debris_views(Stamp(self._clock.monotonic(), self._clock.wall()))
            if one.verdict is DebrisVerdict.DEBRIS
        )
        return {(kind.value,): float(counts[kind]) for kind in DebrisKind if kind in debris.looked}


def _extend(found: list[Metric], some: Callable[[], Iterable[Metric]]) -> None:
    found += some()


def _family(name: str, text: str, labels: list[str], rows: Rows) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for row, value in rows.items():
        family.add_metric(row, value)
    return family


def _plain(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=value)
