"""Metrics: what Prometheus sees (design section 8). A listener with a registry of its own.

Counters follow from observations and decisions; gauges are counted from the engine when scraped,
so they cannot drift. No id and no path ever becomes a label, and namespaces beyond a
bound share one label value (:mod:`reconciler.telemetry.gauges`), so the series are bounded too.
What is bounded is there from the start, so that a node's series stay as many as they are.
"""

import math
from collections.abc import Callable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from reconciler import __version__
from reconciler.decide.engine import Engine
from reconciler.model.debris import DebrisCleaned, DebrisKind
from reconciler.model.decisions import (
    Braked,
    DeathCause,
    Decision,
    Died,
    Judged,
    OverBudget,
    Vanished,
    assert_requested,
)
from reconciler.model.evidence import ContainerdState
from reconciler.model.observations import (
    Guard,
    GuardsChecked,
    Hint,
    HintKind,
    Listed,
    NodeLooked,
    Observation,
    Resync,
    ResyncKind,
    Stamp,
)
from reconciler.model.outcome import STEPS, Outcome, Result, Step, StepResult
from reconciler.ports import Clock, Watcher
from reconciler.supervision import Supervisor
from reconciler.telemetry.gauges import PREFIX, AtScrape, Namespaces

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_AGES: Final = (60, 600, 3600, 6 * 3600, 86400, 3 * 86400, 7 * 86400, 30 * 86400)
_DURATIONS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)


class Metrics:
    """Counts a run. Implements `ports.Listener`.

    Args:
        engine: Whose bundles are counted at each scrape.
        clock: To age them.
        watcher: Whose backend is shown; None for none.
        watch: Whose counts of internal errors are shown.
        lost: Counts the records that are missing in the journal; None where there is none.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        watcher: Watcher | None = None,
        watch: Supervisor | None = None,
        *,
        lost: Callable[[], int] | None = None,
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self._engine = engine
        self._namespaces = Namespaces()
        self._met: set[str] = set()
        # When a counter was made is for another format; in this one each would be a series.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        self._make_counters()
        watch = watch or Supervisor()
        shown = AtScrape(
            engine,
            clock,
            watcher,
            lost=lost or (lambda: 0),
            namespaces=self._namespaces,
            watch=watch,
        )
        self.registry.register(shown)

    def _make_counters(self) -> None:
        reg = self.registry
        self._cleanups = Counter(
            PREFIX + "cleanups", "Attempts to clean.", ["namespace", "result"], registry=reg
        )
        self._debris = Counter(
            PREFIX + "debris_cleaned",
            "Attempts to remove what is left outside of bundles.",
            ["kind", "result"],
            registry=reg,
        )
        for kind in DebrisKind:
            for result in Result:
                self._debris.labels(kind.value, result.value)
        self._freed = Counter(
            PREFIX + "freed_bytes",
            "Bytes of cleaned bundles, as last looked at.",
            ["namespace"],
            registry=reg,
        )
        self._durations = Histogram(
            PREFIX + "cleanup_duration_seconds",
            "Duration of an attempt to clean.",
            buckets=_DURATIONS,
            registry=reg,
        )
        self._ages = Histogram(
            PREFIX + "leftover_age_seconds",
            "Age of a leftover when it was cleaned.",
            buckets=_AGES,
            registry=reg,
        )
        self._mutations = Counter(
            PREFIX + "mutations",
            "Mutating system calls that succeeded, by step.",
            ["step"],
            registry=reg,
        )
        self._warnings = Counter(
            PREFIX + "cleanup_warnings",
            "Steps of attempts to clean that left something or went wrong and held nothing up.",
            ["step"],
            registry=reg,
        )
        for step in STEPS:
            self._mutations.labels(step)
            self._warnings.labels(step)
        self._deaths = Counter(
            PREFIX + "abnormal_terminations",
            "Deaths of init or shim that nobody ordered.",
            ["namespace", "cause"],
            registry=reg,
        )
        self._events = Counter(PREFIX + "watch_events", "File events, coalesced.", registry=reg)
        self._overflows = Counter(
            PREFIX + "watch_overflows", "Event queues that overflowed.", registry=reg
        )
        self._relists = Histogram(
            PREFIX + "relist_duration_seconds",
            "Duration of a listing of the whole tree.",
            buckets=_DURATIONS,
            registry=reg,
        )
        self._relisted = Gauge(
            PREFIX + "last_relist_timestamp_seconds", "When the tree was last listed.", registry=reg
        )
        self._containerd = Gauge(
            PREFIX + "containerd_up", "Whether containerd answered when last asked.", registry=reg
        )
        self._containerd.set(math.nan)  # nobody has asked yet
        self._guard = Gauge(
            PREFIX + "guard_ok", "Whether a guard lets us act.", ["guard"], registry=reg
        )
        self._reloaded = Gauge(
            PREFIX + "config_last_reload_successful",
            "Whether the last (re)load of the configuration succeeded.",
            registry=reg,
        )
        self._reloaded.set(1)
        build = Gauge(PREFIX + "build_info", "The running version.", ["version"], registry=reg)
        build.labels(__version__).set(1)

    # ------------------------------------------------------------------ listening

    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Count an observation, before the engine receives it."""
        match observation:
            case Outcome():
                self._count_outcome(stamp, observation)
            case DebrisCleaned():
                self._count_debris(observation)
            case Hint(kind=HintKind.CHANGED):
                self._events.inc()
            case Resync(kind=ResyncKind.OVERFLOW):
                self._overflows.inc()
            case Listed(answered=True, namespace=namespace, seconds=seconds):
                if namespace is None:
                    self._relists.observe(seconds)
                    self._relisted.set(stamp.wall)
                for seen in observation.bundles:
                    self._meet(seen.key.namespace)
            case NodeLooked(containerd=containerd) if containerd is not None:
                self._containerd.set(containerd.state is ContainerdState.UP)
            case GuardsChecked():
                self._count_guards(observation)
            case _:
                pass

    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Count a decision."""
        del stamp
        match decision:
            case Died(key=key, cause=cause):
                self._deaths.labels(self._meet(key.namespace), cause.value).inc()
            case Judged(key=key):
                self._meet(key.namespace)
            case Vanished() | OverBudget() | Braked():
                pass  # what is so now is counted at each scrape
            case _:
                assert_requested(decision)  # what comes of it is an observation

    def reloaded(self, *, ok: bool) -> None:
        """Note how a reload of the configuration ended."""
        self._reloaded.set(ok)

    def render(self) -> bytes:
        """Give everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _count_outcome(self, stamp: Stamp, outcome: Outcome) -> None:
        namespace = self._meet(outcome.key.namespace)
        self._cleanups.labels(namespace, outcome.result.value).inc()
        self._durations.observe(outcome.seconds)
        view = self._engine.view(outcome.key, stamp.mono)
        if outcome.result is Result.CLEANED and view is not None:
            self._ages.observe(view.age_seconds)
            self._freed.labels(namespace).inc(view.look.size_bytes)
        self._count_steps(outcome.steps)

    def _count_debris(self, cleaned: DebrisCleaned) -> None:
        for one in cleaned.results:
            self._debris.labels(one.key.kind.value, one.result.value).inc()
            self._count_steps(one.steps)

    def _count_steps(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            self._mutations.labels(step.step).inc(step.mutations)
            self._warnings.labels(step.step).inc(step.result is StepResult.WARNING)

    def _count_guards(self, checked: GuardsChecked) -> None:
        refused = {refusal.guard for refusal in checked.refused}
        for guard in Guard:
            self._guard.labels(guard.value).set(guard not in refused)

    def _meet(self, namespace: str) -> str:
        """Create every series of a namespace at its first sight, so that rates have a start."""
        label = self._namespaces.label(namespace)
        if label not in self._met:
            self._met.add(label)
            self._freed.labels(label)
            for result in Result:
                self._cleanups.labels(label, result.value)
            for cause in DeathCause:
                self._deaths.labels(label, cause.value)
        return label
