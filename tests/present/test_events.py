"""The vocabulary of the log: the table that operators read is what the code says."""

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec
import pytest

import reconciler
from reconciler.model.observations import Stamp
from reconciler.present import decisions, observations
from reconciler.present.events import LogEvent
from reconciler.present.records import Level
from reconciler.settings.schema import Settings
from tests.present.test_every_value import decisions as all_decisions
from tests.present.test_every_value import observations as all_observations
from tests.telemetry.test_logs import DECISIONS, OBSERVATIONS

SOURCES: Final = Path(reconciler.__file__).parent
PAGE: Final = SOURCES.parent / "contrib" / "systemd" / "README.md"
ROWS: Final = re.findall(
    r"^\| `([a-z_.]+)` \| ([a-z, ]+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE
)
SUBJECTS: Final = sorted({event.value.partition(".")[0] for event in LogEvent})
KEYS: Final = {
    f"{section}.{key}"
    for section, table in msgspec.to_builtins(Settings()).items()
    if isinstance(table, dict)
    for key in table
}
"""The keys of the configuration, which look like events."""
IRREGULAR: Final = {"found", "held", "lost"}
BY_METHOD: Final = {"report": "info", "warn": "warning"}


def uses() -> dict[str, set[str]]:
    """Which events the code names, and the levels that stand beside them."""
    found: dict[str, set[str]] = {}
    for path in SOURCES.rglob("*.py"):
        if path.name == "events.py" and path.parent.name == "present":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = named(node)
            if name:
                found.setdefault(name, set())
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                level, name = BY_METHOD.get(node.func.attr), named(node.args[0])
                if level and name:
                    found.setdefault(name, set()).add(level)
    return found


def named(node: ast.AST) -> str:
    """The member that an expression names; empty if it is none."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == LogEvent.__name__ else ""
    return ""


def test_the_table_lists_every_event_once_and_in_order() -> None:
    assert [name for name, _, _ in ROWS] == [event.value for event in LogEvent]


def test_every_event_is_said_somewhere() -> None:
    assert uses().keys() == LogEvent.__members__.keys()


@pytest.mark.parametrize("event", LogEvent)
def test_an_event_is_what_it_is_about_and_a_verb_in_the_past_tense(event: LogEvent) -> None:
    about, _, verb = event.value.partition(".")
    assert about.isidentifier()
    assert verb.endswith("ed") or verb.rpartition("_")[2] in IRREGULAR


def test_the_levels_are_those_of_the_table() -> None:
    said: dict[str, set[str]] = defaultdict(set)
    for name, levels in uses().items():
        said[LogEvent[name].value] |= levels
    stamp = Stamp(1.0, 1.0)
    for observation in (*all_observations("x"), *(one for one, _ in OBSERVATIONS)):
        for record in observations.records(observation):
            said[record.event.value].add(record.level.value)
    for decision in (*all_decisions("x"), *(one for one, _ in DECISIONS)):
        for observed in (False, True):
            made = decisions.record(stamp, decision, observed=observed)
            if made is not None:
                said[made.event.value].add(made.level.value)
    table = {name: set(levels.split(", ")) for name, levels, _ in ROWS}
    known = {level.value for level in Level}
    assert all(levels <= known for levels in table.values())
    for name, levels in said.items():
        assert levels <= table[name], name


def test_the_runbook_names_no_event_that_is_none() -> None:
    runbook = (PAGE.parents[1] / "prometheus" / "runbook.md").read_text()
    named_there = set(re.findall(rf"`((?:{'|'.join(SUBJECTS)})\.[a-z_]+)`", runbook))
    assert named_there, "it sends to the log"
    assert named_there <= {event.value for event in LogEvent} | KEYS
