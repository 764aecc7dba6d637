"""Leaked shims of a real containerd: told from stopped tasks, and ended where that is wanted.

containerd is started again while some bundles are out of its sight, and then loses the containers'
records: whatever lives of those bundles lives on, and it knows nothing of it.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.product import Watching
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

CONFIG = """
mode = "enforce"
[cleanup]
grace = "1s"
settle = "1s"
threshold = "0s"
shims = "kill"
[log]
format = "json"
level = "debug"
"""
_NOBODY = 65534
LONG_AGO = 1_700_000_000.0


@contextlib.contextmanager
def ending(node: Node, config: Path) -> Iterator[Watching]:
    """Keep the program going with abandoned shims to be ended."""
    words = product.words(node, "--config", config, "run", "--enforce", "-v")
    process = subprocess.Popen(
        node.apart.command(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=product.environment(),
    )
    with Watching(process) as watching:
        yield watching


@contextlib.contextmanager
def impostor(task: Task) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process of nobody's with a shim's name and the very words of this one."""
    script = "printf containerd-shim >/proc/$$/comm; read _"
    words = ["containerd-shim-runc-v2", "-c", script, *task.shim.cmdline[1:]]
    child = subprocess.Popen(
        words, executable="/bin/sh", stdin=subprocess.PIPE, user=_NOBODY, start_new_session=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def forget(node: Node, *tasks: Task) -> None:
    """Let containerd lose tasks: it starts without seeing them."""
    node.containerd.kill()
    node.restart(unseen=tasks)


def test_only_leaked_shims_are_ended_and_what_is_left_of_them_is_cleaned(
    node: Node, tmp_path: Path
) -> None:
    keeper = node.run("keeper")
    node.run("pod", pod="pod")
    member = node.stopped("member", pod="pod")
    leaked, recorded = node.stopped("leaked"), node.stopped("recorded")
    lost = node.run("lost")
    forget(node, leaked, recorded, lost, member)
    idle = node.stopped("idle")  # a later containerd than 1.6 deletes such a one when it starts
    for task in (leaked, lost, member):
        node.ctr("containers", "rm", task.id)
    for task in (leaked, recorded, lost, member, idle):  # so that none of them is young
        for path in (node.bundle(task.id), *node.bundle(task.id).iterdir()):
            os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    rows = {row["id"]: row for row in product.scan(node, "--config", config)["bundles"]}
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts == {
        "keeper": "running",
        "idle": "stopped",
        "pod": "running",
        "member": "stopped",
        "leaked": "abandoned",
        "recorded": "stopped",
        "lost": "running",
    }
    assert {name for name, row in rows.items() if row["unlisted"]} == {"lost"}
    told = product.run(node, *product.words(node, "--config", config, "explain", leaked.name))
    assert "its records" in told.out, told
    untouched = [keeper, idle, recorded, lost, member, node.task("pod")]
    before = Snapshot.take(node, untouched)
    with impostor(leaked) as canary, ending(node, config) as watching:
        watching.wait_for("workload.killed", leaked)
        watching.wait_for("bundle.cleaned", leaked)
        assert canary.poll() is None
        watching.stop()
    assert not leaked.shim.alive
    assert remains(node, leaked.id) == []
    assert before.changes(Snapshot.take(node, untouched)) == []
    assert [one["event"] for one in watching.lines].count("workload.killed") == 1
    node.run("leaked")  # its name is free at once


def test_a_shim_whose_bundle_containerd_removed_is_ended_and_a_living_one_stays(
    node: Node, tmp_path: Path
) -> None:
    """containerd calls a bundle `.<id>` and removes it then: that is where its shim works."""
    node.run("keeper")
    leaked, lost = node.stopped("leaked"), node.run("lost")
    forget(node, leaked, lost)
    for task in (leaked, lost):
        node.ctr("containers", "rm", task.id)
        bundle = node.bundle(task.id)
        hidden = bundle.rename(bundle.with_name(f".{task.id}"))
        node.apart.run("umount", f"{node.inside(task.id).rpartition('/')[0]}/.{task.id}/rootfs")
        shutil.rmtree(hidden)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG + '[debris.shim]\nage = "0s"\n')
    options = ("--config", config, "--debris", "shim", "--grace", "1s")
    result = product.run(node, *product.words(node, "clean", *options, "--yes"))
    assert result.code == 0, result
    assert not leaked.shim.alive
    assert lost.shim.alive
