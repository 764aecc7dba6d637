"""A real Prometheus that scrapes daemons, with the rules of contrib/prometheus.

with serving(directory, {"node-01": 9618}) as prometheus:
    prometheus.firing()
"""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import yaml

from tests.daemon.running import REPOSITORY, free_port, needs, until

JOB: Final = "containerd-reconciler"
RULES: Final = REPOSITORY / "contrib/prometheus/rules.yml"
INTERVAL: Final = 1.0
"""Seconds between two scrapes of a daemon."""

FOR: Final = "2s"
"""How long an alert's condition has to be true here."""

Labels = dict[str, str]


class Series(msgspec.Struct):
    """A series of an answer: its labels, and one value or many, each with its time."""

    metric: Labels
    value: tuple[float, str] = (0.0, "nan")
    values: list[tuple[float, str]] = []

    @property
    def number(self) -> float:
        """The value."""
        return float(self.value[1])


class _Data(msgspec.Struct, rename="camel"):
    result: list[Series]


class _Answer(msgspec.Struct):
    status: str
    data: _Data


def hurried(rules: str) -> str:
    """Shorten how long each condition has to be true; everything else stays as it is shipped."""
    said = yaml.safe_load(rules)
    for group in said["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = FOR
    return yaml.safe_dump(said, sort_keys=False)


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    port: int
    process: subprocess.Popen[bytes]

    def query(self, expression: str) -> list[Series]:
        """Evaluate an expression now."""
        return self._ask("query", query=expression)

    def range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Evaluate an expression from ``start`` to ``end``, every ``step`` seconds."""
        return self._ask("query_range", query=expression, start=start, end=end, step=step)

    def by_node(self, expression: str) -> dict[str, float]:
        """Evaluate an expression that has one value for each node."""
        return {one.metric["instance"]: one.number for one in self.query(expression)}

    def firing(self) -> set[tuple[str, str]]:
        """Give the alerts that fire, each with its node."""
        found = self.query('ALERTS{alertstate="firing"}')
        return {(one.metric["instance"], one.metric["alertname"]) for one in found}

    def _ask(self, what: str, **said: object) -> list[Series]:
        body = urllib.parse.urlencode(said).encode()
        address = f"http://127.0.0.1:{self.port}/api/v1/{what}"
        try:
            with urllib.request.urlopen(address, body, timeout=20) as answer:
                return msgspec.json.decode(answer.read(), type=_Answer).data.result
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{said}: {error.read().decode()}") from None

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _configuration(ports: Mapping[str, int], rules: Path) -> str:
    """Write the configuration: a node's name is its instance, as the chart's PodMonitor has it."""
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
        for name, port in ports.items()
    ]
    seconds = f"{INTERVAL:g}s"
    said = {
        "global": {
            "scrape_interval": seconds,
            "scrape_timeout": seconds,
            "evaluation_interval": seconds,
        },
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": JOB, "static_configs": targets}],
    }
    return json.dumps(said)


@contextmanager
def serving(directory: Path, ports: Mapping[str, int]) -> Iterator[Prometheus]:
    """Run one that keeps its data below a directory; it is ended whatever happens."""
    directory.mkdir()
    rules = directory / "rules.yml"
    rules.write_text(hurried(RULES.read_text()))
    (directory / "prometheus.yml").write_text(_configuration(ports, rules))
    port = free_port()
    command = [
        needs("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    log = directory / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=directory
        )
    prometheus = Prometheus(port, process)
    try:
        until(lambda: prometheus.is_ready() or process.poll() is not None, "it is ready")
        assert process.poll() is None, log.read_text()
        yield prometheus
    except BaseException as error:
        error.add_note(log.read_text()[-2000:])
        raise
    finally:
        process.kill()
        process.wait()
