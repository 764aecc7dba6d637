"""The rules for Prometheus: promtool accepts them, each fires and stays silent as its tests say."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from reconciler.decide.engine import Engine
from reconciler.model.policy import Policies
from reconciler.telemetry.metrics import Metrics
from tests.daemon.running import needs
from tests.support.clock import VirtualClock

PAGES = Path(__file__).resolve().parents[2] / "contrib" / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((PAGES / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = [rule["alert"] for rule in ALERTS]

pytestmark = pytest.mark.kernel


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [needs("promtool"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", PAGES / "rules.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_promtool_accepts_the_metrics() -> None:
    done = subprocess.run(
        [needs("promtool"), "check", "metrics"],
        input=Metrics(Engine(Policies()), VirtualClock()).render(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_each_alert_fires_and_is_silent_where_it_should() -> None:
    done = promtool("test", "rules", PAGES / "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = yaml.safe_load((PAGES / "rules_test.yml").read_text())["tests"]
    expected = {f"{name} {end}" for name in NAMES for end in ("fires", "is silent")}
    assert {test["name"] for test in tests} == expected


def test_alerts_that_never_fire_are_noticed(tmp_path: Path) -> None:
    """A control: each test of a rule can fail."""
    shutil.copy(PAGES / "rules_test.yml", tmp_path)
    text = (PAGES / "rules.yml").read_text()
    (tmp_path / "rules.yml").write_text(re.sub(r"expr: .+", "expr: vector(1) > 1", text))
    done = promtool("test", "rules", tmp_path / "rules_test.yml")
    assert done.returncode != 0
    for name in NAMES:
        assert f"{name} fires" in done.stdout + done.stderr


def test_the_runbook_has_a_section_for_each_alert() -> None:
    runbook = (PAGES / "runbook.md").read_text()
    assert re.findall(r"^## (.+)$", runbook, re.MULTILINE) == NAMES
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"]["runbook_url"] == f"runbook.md#{rule['alert'].lower()}"


def test_every_metric_that_a_rule_asks_for_is_exported() -> None:
    text = Metrics(Engine(Policies()), VirtualClock()).render().decode()
    exported = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    asked = {
        name
        for rule in RULES
        for name in re.findall(r"(?<!:)\bcontainerd_reconciler_\w+", rule["expr"])
    }
    assert asked
    assert asked <= exported
