"""No module needs itself: imports in functions and for types alone count, too.

A late import hides a circle from Python, and not from whoever has to read both modules at once.
"""

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest


def imports(package: str) -> dict[str, set[str]]:
    graph = grimp.build_graph(package, cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def circle(imported: Mapping[str, set[str]]) -> list[str]:
    """Name the modules of one circle, the first of them once more at its end; empty if none is."""
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_module_imports_itself_by_way_of_others() -> None:
    imported = imports("reconciler")
    assert "reconciler.cli.options" in imported["reconciler.cli.commands.clean"]
    assert circle(imported) == []


def test_a_circle_of_late_imports_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "round"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "late.py").write_text("def go() -> None:\n    from round import typed\n")
    (package / "typed.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import round.late\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert set(circle(imports("round"))) == {"round.late", "round.typed"}
