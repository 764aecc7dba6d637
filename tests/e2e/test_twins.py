"""Two containerds with the same namespaces and ids: what is dead in one may be alive in the other.

Whatever the one's dead have lost, and whatever they have in common with the other's living, not a
byte of the living changes, and they can still be used. What is the dead one's alone is removed, and
the rest when its namesake has gone.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.e2e.snapshot import Snapshot
from tests.e2e.twins import ROWS, Twin, Twins, every_pair, some_pairs

pytestmark = [pytest.mark.containerd, pytest.mark.safety, pytest.mark.timeout(600)]

CONFIG: Final = """
mode = "enforce"
[watch]
relist = "3s"
[cleanup]
grace = "0s"
settle = "0s"
[brake]
max_per_minute = 10000
mass_deaths = 10000
[http]
listen = ""
"""
FEW: Final = ("whole", "no-options", "no-config", "all-gone")
INTERRUPTED: Final = 130
QUIET: Final = 1.0
"""Seconds without a word after which whoever enforces has done all it will do for now.

Less than a relist takes to come: each says a word.
"""

Tool = Callable[[Node, Path], contextlib.AbstractContextManager[Callable[[], None]]]
"""Begins to enforce; the call it gives returns when all is done that can be done now."""


@contextlib.contextmanager
def by_clean(node: Node, config: Path) -> Iterator[Callable[[], None]]:
    del config

    def clean() -> None:
        product.clean(node, "--settle", "0s")

    yield clean


@contextlib.contextmanager
def by_run(node: Node, config: Path) -> Iterator[Callable[[], None]]:
    with product.watching(node, "--config", config, "--enforce") as watching:
        watching.wait_ready("up")
        yield lambda: watching.wait_quiet(QUIET)
        assert watching.stop() == INTERRUPTED


@contextlib.contextmanager
def by_the_daemon(node: Node, config: Path) -> Iterator[Callable[[], None]]:
    with product.watching(node, "--config", config, command=["daemon", "-v"]) as watching:
        watching.wait_ready("up")
        yield lambda: watching.wait_quiet(QUIET)
        assert watching.stop(signal.SIGTERM) == 0


@pytest.mark.fault("I6", "I8", "the crash matrix beside another containerd")
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("tool", "rows"),
    [
        pytest.param(by_clean, ROWS, id="clean"),
        pytest.param(by_run, FEW, id="run"),
        pytest.param(by_the_daemon, FEW, id="daemon"),
    ],
)
def test_the_living_of_another_containerd_are_untouched_and_the_dead_of_ours_are_removed(
    tmp_path: Path, tool: Tool, rows: tuple[str, ...], whole: bool
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    with Node(tmp_path) as one, Twin(one) as other:
        twins = Twins(one, other, every_pair() if whole else some_pairs(rows))
        keeper = one.run("keeper")  # whoever lives says in which namespaces this node is
        twins.run_first()
        twins.crash()
        twins.run_second()
        before, kept = twins.second_part(), Snapshot.take(one, [keeper])
        firsts = {pair.id: twins.first_part([pair]) for pair in twins.pairs}
        with tool(one, config) as settle:
            settle()
            alone = [one.bundle(pair.id) for pair in twins.pairs if pair.separate]
            until(lambda: not any(map(Path.exists, alone)), "all that is the dead one's alone goes")
            settle()
            assert before.changes(twins.second_part()) == []
            assert kept.changes(Snapshot.take(one, [keeper])) == []
            gone = {pair.id for pair in twins.pairs if not one.bundle(pair.id).exists()}
            for pair in twins.pairs:
                if pair.id in gone:
                    assert twins.remains(pair, cgroups=False) == []
                else:
                    assert firsts[pair.id].changes(twins.first_part([pair])) == []
            twins.use_second()
            settle()
            at_once = tool is by_clean  # whoever watches may be there before the namesake has gone

            def left() -> list[str]:
                dead = [pair for pair in twins.pairs if pair.provable]
                every = [
                    twins.remains(pair, cgroups=at_once and pair.id not in gone) for pair in dead
                ]
                return [path for paths in every for path in paths]

            until(lambda: not left(), f"nothing is left of the dead, such as {left()[:3]}")
            for pair in (pair for pair in twins.pairs if not pair.provable):
                assert firsts[pair.id].changes(twins.first_part([pair])) == []
            assert kept.changes(Snapshot.take(one, [keeper])) == []
