"""A fleet under a real Prometheus: alerts fire where something is wrong, and resolve."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.daemon.running import enforces, until
from tests.fleet import dashboard
from tests.fleet.nodes import TROUBLES, Fleet, fleet
from tests.fleet.server import JOB, RULES, Prometheus, serving

pytestmark = [pytest.mark.kernel, enforces]

PATIENCE: Final = 60.0


def stated() -> tuple[int, int]:
    """Read how many series the documentation says a node has, and how many each namespace adds."""
    text = (RULES.parent / "README.md").read_text()
    found = re.search(r"about (\d+) series and (\d+) for each namespace", text)
    assert found
    return int(found[1]), int(found[2])


class Watched:
    """A fleet and the Prometheus that scrapes it."""

    def __init__(self, nodes: Fleet, prometheus: Prometheus) -> None:
        self.nodes = nodes
        self.prometheus = prometheus

    def series(self) -> set[float]:
        """How many series a scrape of each node that answers has; the last one of each."""
        samples = self.prometheus.query(f'scrape_samples_scraped{{job="{JOB}"}} > 0')
        return {one.number for one in samples}

    def until_firing(self, expected: set[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Wait until exactly these fire; gives the seconds after which each was seen first."""
        begun = time.monotonic()
        seen: dict[tuple[str, str], float] = {}
        now: set[tuple[str, str]] = set()

        def as_expected() -> bool:
            nonlocal now
            now = self.prometheus.firing()
            for one in now:
                seen.setdefault(one, time.monotonic() - begun)
            return now == expected

        try:
            until(as_expected, "these alerts", PATIENCE)
        except AssertionError as error:
            error.add_note(f"missing {expected - now}, unexpected {now - expected}")
            raise
        return seen


@pytest.fixture
def watched(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    with fleet(tmp_path, request.param) as nodes:
        ports = {name: node.site.port for name, node in nodes.nodes.items()}
        with serving(tmp_path / "prometheus", ports) as prometheus:
            yield Watched(nodes, prometheus)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "watched", [len(TROUBLES), pytest.param(30, marks=pytest.mark.slow)], indirect=True
)
def test_alerts_fire_where_something_is_wrong_and_resolve_and_series_stay(
    watched: Watched,
) -> None:
    nodes, prometheus = watched.nodes, watched.prometheus
    up = f'sum(up{{job="{JOB}"}})'
    until(lambda: [one.number for one in prometheus.query(up)] == [len(nodes.nodes)], "all are up")
    each, for_namespace = stated()
    until(lambda: len(watched.series()) == 1, "each node has as many series as the others")
    (series,) = watched.series()
    assert series == pytest.approx(each + for_namespace, rel=0.1)
    watched.until_firing(set())

    nodes.cause()
    fired = watched.until_firing(nodes.alerts)
    every_panel_has_data(prometheus)
    begun = time.monotonic()
    nodes.mend()
    watched.until_firing(set())
    resolved = time.monotonic() - begun

    until(lambda: watched.series() == {series}, "as many series as before")
    counts = {
        most: prometheus.by_node(
            f'{most}_over_time((scrape_samples_scraped{{job="{JOB}"}} > 0)[10m:1s])'
        )
        for most in ("min", "max")
    }
    assert set(counts["max"].values()) == {series}
    was_up = {name for name in nodes.nodes if not name.endswith("down")}
    assert {counts["min"][name] for name in was_up} == {series}
    report(watched, series, fired, resolved)

    quiet = next(iter(nodes.nodes.values())).site
    (quiet.tree / "other").mkdir()
    (quiet.tree / "other" / "notes").write_text("no bundle")
    until(lambda: len(watched.series()) == 2, "a node has a namespace more")
    more = max(watched.series()) - series
    assert more == pytest.approx(for_namespace, rel=0.1), "not all of them at once"


def every_panel_has_data(prometheus: Prometheus) -> None:
    """Ask what the dashboard asks: a metric or label that nobody exports has no answer."""
    shipped = dashboard.read()
    labels = known_labels(prometheus)
    for expression in shipped.expressions:
        for selector in dashboard.selectors(expression):
            assert selector.labels <= labels[selector.metric], (expression, selector)
    for target in shipped.targets:
        found = prometheus.query(dashboard.substituted(dashboard.uncompared(target.expr), "15s"))
        assert found, f"nothing: {target.expr}"
        for series in found:
            assert target.labels <= series.metric.keys(), target


def known_labels(prometheus: Prometheus) -> dict[str, set[str]]:
    """Tell which labels the series of each metric have."""
    found: dict[str, set[str]] = defaultdict(set)
    for series in prometheus.query('{__name__=~".+"}'):
        found[series.metric["__name__"]] |= series.metric.keys()
    return found


def report(
    watched: Watched, series: float, fired: dict[tuple[str, str], float], resolved: float
) -> None:
    """Print the figures: pytest shows them with -s."""
    prometheus, nodes = watched.prometheus, watched.nodes.nodes
    first = next(iter(nodes.values()))
    assert first.daemon is not None
    size = len(first.daemon.ask("/metrics")[1])
    took = prometheus.query(f'quantile(0.5, scrape_duration_seconds{{job="{JOB}"}})')[0].number
    slow = prometheus.query(f'max(max_over_time(scrape_duration_seconds{{job="{JOB}"}}[5m]))')[
        0
    ].number
    memory = sorted(node.memory / 2**20 for node in nodes.values())
    lines = [
        f"{len(nodes)} nodes: {series:.0f} series each, a scrape is {size:,} bytes",
        f"scrape: median {took * 1000:.0f} ms, longest {slow * 1000:.0f} ms",
        f"memory: median {memory[len(memory) // 2]:.0f} MiB PSS, most {memory[-1]:.0f}",
        f"all alerts fired after {max(fired.values()):.0f} s, resolved after {resolved:.0f} s",
    ]
    print("\n" + "\n".join(lines))  # noqa: T201 - the figures of a soak
