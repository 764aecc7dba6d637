"""What Prometheus sees: counters from the run, gauges from the engine, bounded series."""

import math
import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

import reconciler
from reconciler.decide.cleanups import BRAKES
from reconciler.model.debris import (
    DebrisCleaned,
    DebrisKind,
    DebrisResult,
    Inventory,
    Place,
    PlaceKey,
)
from reconciler.model.evidence import Answer, ProcessScan
from reconciler.model.ids import Identity
from reconciler.model.observations import (
    Guard,
    GuardsChecked,
    Hint,
    Listed,
    NodeLooked,
    Observation,
    Refusal,
    Resync,
    ResyncKind,
    Seen,
)
from reconciler.model.outcome import STEPS, Outcome, Result, Step, StepResult
from reconciler.model.policy import Policies
from reconciler.telemetry.metrics import Metrics
from tests.decide.world import BOOTED, ENFORCE, UP, World, dead, key, orphaned, running
from tests.support.clock import VirtualClock

FOREIGN = GuardsChecked((Refusal(Guard.PID_NAMESPACE, "foreign"),))
REFUSED = GuardsChecked((Refusal(Guard.STATE_ROOT, "on a disk"),))


class Scraped:
    """A world whose observations and decisions the metrics hear, as the loop would tell them."""

    def __init__(self) -> None:
        self.world = World(Policies(default=replace(ENFORCE, grace=0.0)))
        self.clock = VirtualClock(BOOTED)
        self.metrics = Metrics(self.world.engine, self.clock)

    def observe(self, observation: Observation) -> None:
        self.metrics.observed(self.world.stamp, observation)
        for decision in self.world.observe(observation):
            self.metrics.decided(self.world.stamp, decision)

    def value(self, name: str, **labels: str) -> float:
        text = self.metrics.render().decode()
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"containerd_reconciler_{name}" and sample.labels == labels
        ]
        assert len(found) == 1, f"{name}{labels}: {len(found)} samples\n{text}"
        return found[0]

    def bundles(self, namespace: str, verdict: str, phase: str = "none") -> float:
        return self.value("bundles", namespace=namespace, verdict=verdict, phase=phase)


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


def listed(*names: str) -> Listed:
    seen = tuple(Seen(key(name), Identity(1, n + 1, 1)) for n, name in enumerate(names))
    return Listed(answered=True, present=True, bundles=seen, seconds=0.02)


def test_bundles_are_counted_by_namespace_and_verdict(scraped: Scraped) -> None:
    scraped.observe(REFUSED)
    scraped.observe(listed("ns/a", "ns/b", "k8s.io/c"))
    scraped.world.look(running(1), "ns/a")
    scraped.world.look(orphaned(2), "ns/b")
    scraped.world.look(dead(3), "k8s.io/c")
    scraped.world.node()
    assert scraped.bundles("ns", "running") == 1
    assert scraped.bundles("ns", "orphaned") == 1
    assert scraped.bundles("k8s.io", "running") == 0
    assert scraped.bundles("k8s.io", "leftover", "held") == 1
    assert scraped.bundles("k8s.io", "leftover", "waiting") == 0
    assert scraped.value("leftover_bytes") == 4096
    assert scraped.value("oldest_leftover_age_seconds") == pytest.approx(3600, abs=1)


def test_an_outcome_counts_once_with_age_duration_and_system_calls(scraped: Scraped) -> None:
    scraped.observe(listed("ns/a"))
    scraped.world.look(dead())
    scraped.world.node()
    steps = (
        Step("unmount", StepResult.DONE, mutations=2),
        Step("bundle", StepResult.DONE, "", 0, 9),
        Step("hooks", StepResult.WARNING, "poststop hooks failed"),
    )
    scraped.observe(Outcome(key(), Identity(1, 1, 1), Result.CLEANED, steps=steps, seconds=0.004))
    assert scraped.value("cleanup_warnings_total", step="hooks") == 1
    assert scraped.value("cleanup_warnings_total", step="bundle") == 0
    assert scraped.value("cleanups_total", namespace="ns", result="cleaned") == 1
    assert scraped.value("cleanups_total", namespace="ns", result="failed") == 0
    assert scraped.value("mutations_total", step="unmount") == 2
    assert scraped.value("mutations_total", step="bundle") == 9
    assert scraped.value("freed_bytes_total", namespace="ns") == 4096
    assert scraped.value("leftover_age_seconds_count") == 1
    assert scraped.value("leftover_age_seconds_sum") == pytest.approx(3600, abs=1)
    assert scraped.value("cleanup_duration_seconds_sum") == pytest.approx(0.004)


def test_the_series_are_as_many_before_the_first_cleanup_as_after_it(scraped: Scraped) -> None:
    """A counter that begins at its first event has no rate for it, and an alert misses it."""

    def series() -> set[str]:
        lines = scraped.metrics.render().decode().splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    scraped.observe(listed())
    scraped.observe(GuardsChecked(()))
    scraped.observe(replace(listed("ns/a"), namespace="ns"))  # because somebody made it
    before = series()
    scraped.world.look(dead())
    scraped.world.node()
    steps = tuple(Step(name, StepResult.WARNING, mutations=1) for name in STEPS)
    for result in Result:
        scraped.observe(Outcome(key(), Identity(1, 1, 1), result, steps=steps))
    assert series() == before


def test_a_namespace_has_all_its_series_from_the_scrape_on_that_shows_it(scraped: Scraped) -> None:
    """Also one that is looked at before anybody has listed it."""
    scraped.observe(listed("ns/a"))
    scraped.observe(replace(listed(), namespace="new"))
    for name in ("ns/a", "new/b"):
        for decision in scraped.world.look(dead(), name):
            scraped.metrics.decided(scraped.world.stamp, decision)
    text = scraped.metrics.render().decode()
    assert text.count('namespace="new"') == text.count('namespace="ns"') > 20


def test_containerd_is_neither_up_nor_down_before_it_was_asked(scraped: Scraped) -> None:
    assert math.isnan(scraped.value("containerd_up"))
    scraped.observe(NodeLooked(0.0, None, UP))
    assert scraped.value("containerd_up") == 1


def test_there_is_no_series_that_prometheus_has_no_use_for(scraped: Scraped) -> None:
    """When a counter was made is for another format: it would be every fifth series."""
    scraped.observe(listed("ns/a"))
    assert "_created" not in scraped.metrics.render().decode()


def test_every_step_of_a_cleanup_is_among_the_steps() -> None:
    worker = Path(reconciler.__file__).parent / "worker"
    text = "".join(path.read_text() for path in worker.rglob("*.py"))
    named = re.findall(r'\.do\(\s*"([\w-]+)"|\("([\w-]+)", residue\.', text)
    assert {one or other for one, other in named} == set(STEPS)


def test_a_death_counts_once_with_its_cause(scraped: Scraped) -> None:
    scraped.observe(listed("ns/a"))
    scraped.world.look(running())
    scraped.world.node()
    for decision in scraped.world.look(dead()):
        scraped.metrics.decided(scraped.world.stamp, decision)
    assert scraped.value("abnormal_terminations_total", namespace="ns", cause="both") == 1
    assert scraped.value("abnormal_terminations_total", namespace="ns", cause="init") == 0


def test_watching_and_witnesses_are_shown(scraped: Scraped) -> None:
    scraped.observe(Hint(key()))
    scraped.observe(Resync(ResyncKind.OVERFLOW))
    scraped.observe(listed())
    scraped.observe(NodeLooked(0.0, ProcessScan(answered=True), UP))
    assert scraped.value("watch_events_total") == 1
    assert scraped.value("watch_overflows_total") == 1
    assert scraped.value("relist_duration_seconds_count") == 1
    assert scraped.value("last_relist_timestamp_seconds") > 1e9
    assert scraped.value("containerd_up") == 1


def test_each_guard_is_shown_by_name(scraped: Scraped) -> None:
    scraped.observe(FOREIGN)
    assert scraped.value("guard_ok", guard="pid namespace") == 0
    assert scraped.value("guard_ok", guard="kernel") == 1
    scraped.observe(GuardsChecked())
    assert scraped.value("guard_ok", guard="pid namespace") == 1


def test_ten_thousand_namespaces_are_fifty_series_and_one_for_the_rest(scraped: Scraped) -> None:
    scraped.observe(listed(*(f"ns{n}/a" for n in range(10_000))))
    text = scraped.metrics.render().decode()
    namespaces = {
        sample.labels["namespace"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "namespace" in sample.labels
    }
    assert len(namespaces) <= 51
    assert text.count("\n") < 3000, "all series together, with their help"


def test_no_id_and_no_path_is_a_label(scraped: Scraped) -> None:
    scraped.observe(listed("ns/secret-id"))
    scraped.world.look(dead(), "ns/secret-id")
    scraped.world.node()
    assert "secret-id" not in scraped.metrics.render().decode()


def test_what_nobody_looks_for_is_not_counted() -> None:
    scraped = Scraped()
    assert kinds_of_debris(scraped) == {}
    place = Place(
        PlaceKey(DebrisKind.MOUNT, "/x"), Identity(1, 2, 3), lives=Answer.NO, owned=Answer.NO
    )
    looked = (DebrisKind.MOUNT, DebrisKind.SHIM_SOCKET)
    scraped.observe(Inventory(scraped.world.stamp.mono, looked, (place,)))
    assert kinds_of_debris(scraped) == {"mount": 1.0, "shim-socket": 0.0}


def test_what_came_of_debris_is_counted_by_kind_and_result(scraped: Scraped) -> None:
    assert scraped.value("debris_cleaned_total", kind="mount", result="cleaned") == 0
    key = PlaceKey(DebrisKind.MOUNT, "/x")
    step = Step("unmount", StepResult.DONE, mutations=2)
    cleaned = DebrisResult(key, Identity(1, 2, 3), Result.CLEANED, steps=(step,))
    scraped.observe(DebrisCleaned((cleaned, cleaned)))
    assert scraped.value("debris_cleaned_total", kind="mount", result="cleaned") == 2
    assert scraped.value("mutations_total", step="unmount") == 4


def kinds_of_debris(scraped: Scraped) -> dict[str, float]:
    text = scraped.metrics.render().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["containerd_reconciler_debris"].samples
    return {sample.labels["kind"]: sample.value for sample in samples}


def test_the_phase_of_a_leftover_follows_what_holds_it(scraped: Scraped) -> None:
    scraped.observe(REFUSED)
    scraped.observe(listed("ns/a"))
    scraped.world.look(dead())
    scraped.world.node()
    assert scraped.bundles("ns", "leftover", "held") == 1
    assert scraped.value("brake_on", brake="guards") == 1
    scraped.observe(GuardsChecked())
    assert scraped.bundles("ns", "leftover", "held") == 0
    assert scraped.bundles("ns", "leftover", "cleaning") == 1
    assert {scraped.value("brake_on", brake=brake) for brake in BRAKES} == {0}


def test_sudden_mass_death_is_shown_as_a_brake(scraped: Scraped) -> None:
    names = [f"ns/{n}" for n in range(20)]
    scraped.observe(GuardsChecked())
    scraped.observe(listed(*names))
    for look in (running, dead):
        for n, name in enumerate(names):
            scraped.world.look(look(n + 1), name)
        scraped.world.node()
    assert scraped.value("brake_on", brake="mass death") == 1
    assert scraped.value("brake_on", brake="guards") == 0
    assert scraped.bundles("ns", "leftover", "held") > 0


def test_the_mode_is_the_one_in_force(scraped: Scraped) -> None:
    assert scraped.value("mode", mode="enforce") == 1
    assert scraped.value("mode", mode="observe") == 0
    scraped.world.engine.configure(scraped.world.stamp, Policies())
    assert scraped.value("mode", mode="enforce") == 0
    assert scraped.value("mode", mode="observe") == 1


def test_lost_records_of_the_journal_are_counted() -> None:
    lost = 0
    scraped = Scraped()
    scraped.metrics = Metrics(scraped.world.engine, scraped.clock, lost=lambda: lost)
    assert scraped.value("journal_records_lost_total") == 0
    lost = 7
    assert scraped.value("journal_records_lost_total") == 7


def test_our_own_process_is_shown_as_every_client_of_prometheus_shows_it(
    scraped: Scraped,
) -> None:
    text = scraped.metrics.render().decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names >= {
        "process_cpu_seconds",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }
