"""-q means what its help says, whatever the command: no messages but errors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.demo.node import DemoNode
from tests.cli.program import program, tree

COMMANDS = (
    "scan",
    "explain {id}",
    "clean --dry-run --grace 0s --threshold 0s",
    "run --once",
    "record --once --force {journal}",
    "replay {journal}",
    "config check",
    "config show",
    "config schema",
)


def words(demo: DemoNode, journal: Path) -> Iterator[list[str]]:
    (web,) = (str(one.key) for one in demo.fixtures if one.key.id == "web")
    for command in COMMANDS:
        said = command.format(id=web, journal=journal).split()
        on_a_tree = said[0] not in ("replay", "config")
        yield [*said, *tree(demo)] if on_a_tree else said


@pytest.mark.parametrize("more", [(), ("-v",)], ids=["alone", "beats -v"])
def test_quiet_is_quiet(demo: DemoNode, tmp_path: Path, more: tuple[str, ...]) -> None:
    for said in words(demo, tmp_path / "journal"):
        done = program(demo, *said, "-q", *more)
        assert (done.returncode, done.stderr) == (0, ""), said


def test_errors_are_said_all_the_same(demo: DemoNode) -> None:
    done = program(demo, "explain", "no/such", "-q", *tree(demo))
    assert done.returncode == 1
    assert done.stderr.startswith("containerd-reconciler: ")
    assert len(done.stderr.splitlines()) == 1
