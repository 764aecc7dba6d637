"""Before containerd starts: who would hold it up is named, and ended where that is wanted."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.processes import Process
from tests.e2e.snapshot import remains

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

DEAD = 4
"""How many dead bundles lie beside it; more of them show nothing more."""


def lives(process: Process) -> bool:
    """Return whether it lives now."""
    return process.alive


def test_a_wedged_shim_is_named_and_ended_and_containerd_starts(
    node: Node, record_property: Callable[[str, object], None]
) -> None:
    keeper, stuck = node.run("keeper"), node.stopped("stuck")
    busy = node.run("busy")
    gone = node.run_all(f"dead-{number}" for number in range(DEAD))
    node.crash(*gone)
    try:
        for shim in (stuck.shim, busy.shim):
            os.kill(shim.pid, signal.SIGSTOP)
        rescue = ("clean", "--rescue", "--yes", "--settle", "0s")
        ran = product.run(node, *product.words(node, *rescue))
        assert ran.code == 0, ran
        for task in (stuck, busy):
            (line,) = [line for line in ran.err.splitlines() if task.name in line]
            assert f"pid {task.shim.pid}" in line, line
        assert keeper.name not in ran.err
        assert [left for task in gone for left in remains(node, task.id)] == [], ran
        assert lives(stuck.shim)

        for task, says in ((stuck, "wedged"), (keeper, "answers")):
            told = product.run(node, *product.words(node, "explain", task.name, "--ask-shim"))
            assert f"shim asked       {says}" in told.out, told

        ran = product.run(node, *product.words(node, *rescue, "--kill-wedged"))
        assert ran.code == 0, ran
        assert not lives(stuck.shim)
        assert remains(node, stuck.id) == []
        assert lives(busy.shim)
        assert lives(busy.init)
    finally:
        os.kill(busy.shim.pid, signal.SIGCONT)
    began = time.monotonic()
    node.containerd.start()
    record_property("containerd started after", f"{time.monotonic() - began:.2f} s")
    assert {node.status(task.id) for task in (keeper, busy)} == {"RUNNING"}
