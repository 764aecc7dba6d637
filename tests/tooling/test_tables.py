"""Tables keyed by an enumeration have all of its members, wherever they stand.

Every dict that is written down in the program is read from its source, so none can be forgotten to
be listed here; one that is incomplete on purpose is named with the reason.
"""

import ast
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Final

import pytest

import reconciler
from reconciler.model.decisions import Phase, Verdict
from reconciler.model.outcome import Result
from reconciler.present.records import Level

PARTIAL: Final = {
    ("cli.cleaning", "Phase"): "only what is kept back although it is a leftover",
    ("cli.debris", "Phase"): "only what is kept back although it is debris",
    ("decide.debris_track", "Phase"): "only what will happen at some time",
    ("decide.views", "Phase"): "only what will happen at some time",
    ("model.facts", "ContainerdState"): "only what is no answer about any task",
    ("worker.pool", "Verdict"): "only what a cleanup is ever asked for",
    ("present.page", "Phase"): "only what will happen at some time",
}
"""By module and enumeration: why the members that are missing are looked up by nobody."""


@dataclass(frozen=True)
class Table:
    """A dict whose keys are members of one enumeration, or the values of such."""

    module: str
    line: int
    kind: type[Enum]
    keys: frozenset[Enum]

    @property
    def missing(self) -> set[str]:
        return {one.name for one in self.kind} - {one.name for one in self.keys}


@cache
def modules() -> tuple[ModuleType, ...]:
    names = [
        one.name
        for one in pkgutil.walk_packages(reconciler.__path__, "reconciler.")
        if not one.name.endswith(("__main__", "_pb2"))
    ]
    return tuple(importlib.import_module(name) for name in names)


def member(module: ModuleType, node: ast.expr | None) -> Enum | None:
    """Give the member that an expression names: ``Result.KILLED`` or ``Result.KILLED.value``."""
    if isinstance(node, ast.Attribute) and node.attr == "value":
        node = node.value
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
        return None
    kind = getattr(module, node.value.id, None)
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return None
    return kind.__members__.get(node.attr)


def tables(module: ModuleType) -> Iterator[Table]:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.Dict) or not node.keys:
            continue
        keys = [member(module, key) for key in node.keys]
        found = [key for key in keys if key is not None]
        if len(found) == len(keys) and len({type(key) for key in found}) == 1:
            yield Table(module.__name__, node.lineno, type(found[0]), frozenset(found))


def all_tables() -> list[Table]:
    return [table for module in modules() for table in tables(module)]


def name_of(table: Table) -> tuple[str, str]:
    return table.module.removeprefix("reconciler."), table.kind.__name__


def test_every_table_keyed_by_an_enumeration_is_complete() -> None:
    found = all_tables()
    assert len(found) >= 10, "they are found"
    incomplete = {name_of(one): one for one in found if one.missing}
    new = {name: one for name, one in incomplete.items() if name not in PARTIAL}
    assert not new, [f"{one.module}:{one.line} lacks {sorted(one.missing)}" for one in new.values()]
    assert incomplete.keys() == PARTIAL.keys(), "an exception that is none any more"


def test_the_search_finds_what_is_missing() -> None:
    """The instance: the levels of the log, without the one of a workload that was ended."""
    from reconciler.present import observations

    (levels,) = [one for one in tables(observations) if one.kind is Result]
    assert levels.keys == frozenset(Result)
    source = "{Result.CLEANED: 1, Result.BLOCKED: 2}"
    keys = ast.parse(source, mode="eval").body
    assert isinstance(keys, ast.Dict)
    assert [member(observations, key) for key in keys.keys] == [Result.CLEANED, Result.BLOCKED]


@pytest.mark.parametrize("level", Level)
def test_every_level_has_its_number(level: Level) -> None:
    assert level.number % 10 == 0


def test_everything_that_is_listed_can_be_styled() -> None:
    from reconciler.present import formatting

    assert all(formatting.style(one.value) for one in (*Verdict, *Phase, *Result))


def test_the_report_has_a_colour_and_a_rank_for_every_state() -> None:
    from reconciler.present import report

    template = resources.files("reconciler.present").joinpath("report.html").read_text()
    assert all(template.count(f" --{state}: #") == 2 for state in report.STATES), "light and dark"
    (ranked,) = re.findall(r"const WORST = (\[.*\]);", template)
    assert sorted(json.loads(ranked)) == sorted(report.STATES)


def test_the_report_has_words_for_every_symbol() -> None:
    from reconciler.present.records import MARKS

    template = resources.files("reconciler.present").joinpath("report.html").read_text()
    (legend,) = re.findall(r"const LEGEND = (\{.*?\});", template, re.DOTALL)
    assert json.loads(legend).keys() == {*MARKS, "cleaned", "blocked"}
