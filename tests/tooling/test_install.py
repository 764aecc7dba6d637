"""What the README tells to type installs the program, and needs no more than it says."""

import re
import subprocess
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).resolve().parents[2]
MOST_LINES = 8
RECIPES = ("Debian host", "Kubernetes", "k3s", "Without internet")


def pinned() -> dict[str, str]:
    lines = (TOP / ".ci" / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def needed(name: str) -> set[str]:
    """Name all that a distribution needs to run, and all that these need."""
    found: set[str] = set()
    todo = [name]
    while todo:
        try:
            asked = [Requirement(one) for one in requires(todo.pop()) or ()]
        except PackageNotFoundError:
            continue
        for one in asked:
            key = canonicalize_name(one.name)
            if key not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
                found.add(key)
                todo.append(key)
    return found


def test_everything_the_program_needs_is_pinned() -> None:
    assert {"msgspec", "h2", "idna"} <= needed("containerd-reconciler") <= pinned().keys()


def test_the_constraints_name_versions_alone() -> None:
    """No index and no file: whoever installs uses the index that he has."""
    text = (TOP / ".ci" / "constraints.txt").read_text()
    for line in text.splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line), line


@pytest.mark.parametrize("target", ["wheel", "wheelhouse"])
def test_a_wheel_needs_no_environment_of_the_tests(target: str, tmp_path: Path) -> None:
    told = subprocess.run(
        ["make", "-n", target, f"VENV={tmp_path / 'venv'}"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert " wheel " in told
    assert "dist/constraints.txt" in told
    assert "[dev]" not in told


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short(name: str) -> None:
    readme = (TOP / "README.md").read_text()
    section = readme.partition("## Install\n")[2].partition("\n## ")[0]
    _, begin, rest = section.partition(f"**{name}**")
    assert begin, name
    recipe = re.split(r"\n\*\*", rest)[0]
    typed = "".join(re.findall(r"```\n(.*?)```", recipe, re.DOTALL)).splitlines()
    assert len(typed) <= MOST_LINES
    assert len(recipe.splitlines()) <= 2 * MOST_LINES


def test_the_recipe_without_internet_asks_no_index() -> None:
    (line,) = re.findall(
        r"^.*pip install.*wheelhouse.*$", (TOP / "README.md").read_text(), re.MULTILINE
    )
    assert "--no-index" in line
