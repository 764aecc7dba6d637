"""Orphans on a real node, to be ended if they may: who is proven to be one is, the others live."""

import contextlib
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.daemon.running import free_port
from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.processes import kill_all, until
from tests.e2e.product import Watching
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

CONFIG = """
mode = "enforce"
[cleanup]
grace = "1s"
threshold = "0s"
orphans = "kill"
[http]
listen = "127.0.0.1:{port}"
[log]
format = "json"
level = "debug"
"""
COMMANDS = {"run": ("run", "--enforce", "-v"), "daemon": ("daemon",)}


@contextlib.contextmanager
def killing(node: Node, base: Path, command: str) -> Iterator[tuple[Watching, int]]:
    """Keep the program going with orphans to be killed; gives it and its port."""
    config, port = base / "config.toml", free_port()
    config.write_text(CONFIG.format(port=port))
    process = subprocess.Popen(
        node.apart.command(product.words(node, "--config", config, *COMMANDS[command])),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=product.environment(),
    )
    with Watching(process) as watching:
        yield watching, port


def results(port: int) -> dict[str, int]:
    """What the metrics count, by result."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    rows = re.findall(
        r'^containerd_reconciler_cleanups_total\{.*result="(\w+)"\} (\S+)$', text, re.MULTILINE
    )
    found: dict[str, int] = {}
    for name, value in rows:
        found[name] = found.get(name, 0) + int(float(value))
    return {name: value for name, value in found.items() if value}


def frozen(node: Node, task: Task) -> bool:
    """Freeze a container, if the machine has what freezes one for good."""
    for state in (top / task.id / "freezer.state" for top in node.cgroups()):
        if state.exists():
            state.write_text("FROZEN")
            until(partial(_says, state, "FROZEN"), f"{task.name} is frozen")
            return True
    return False


def _says(file: Path, what: str) -> bool:
    return file.read_text().strip() == what


@pytest.mark.fault("I15", "a container in or below another's cgroup", "cgroup frozen")
@pytest.mark.parametrize("command", COMMANDS)
def test_who_may_be_ended_is_and_is_cleaned_and_who_may_not_lives(
    node: Node, tmp_path: Path, command: str
) -> None:
    keeper, own, cold = node.run("keeper"), node.run("own"), node.run("cold")
    host, later = node.run("host"), node.run("later")
    guest = node.run("guest", "--cgroup", f"/{node.namespace}/host/below")
    node.containerd.kill()
    frozen(node, cold)
    kill_all([own.shim, cold.shim, host.shim])
    alive = [keeper, host, guest]
    before = Snapshot.take(node, alive)
    with killing(node, tmp_path, command) as (watching, port):
        for task in (own, cold):
            watching.wait_for("workload.killed", task)
            watching.wait_for("bundle.cleaned", task)
            assert remains(node, task.id) == []
        line = watching.wait_for("bundle.blocked", host)
        assert f"of {guest.name}" in json.dumps(line)
        kill_all([later.shim, later.init])
        watching.wait_for("bundle.cleaned", later)
        assert host.init.alive
        assert guest.init.alive
        told = [line["event"] for line in watching.lines]
        names = {"workload.killed": "killed", "bundle.cleaned": "cleaned"}
        expected = {result: told.count(event) for event, result in names.items()}
        assert expected == {"killed": 2, "cleaned": 3}
        if command == "daemon":
            counted = results(port)
            assert {name: counted.get(name, 0) for name in expected} == expected
        assert before.changes(Snapshot.take(node, alive)) == []
        watching.stop()


@pytest.mark.fault("the same name in another containerd")
def test_an_orphan_whose_state_is_of_another_tree_lives(node: Node, tmp_path: Path) -> None:
    """Another containerd has started the id, and what is left of ours names all that it has."""
    keeper, twin = node.run("keeper"), node.run("twin")
    node.containerd.kill()
    kill_all([twin.shim])
    state = node.apart.path(f"/run/containerd/runc/{node.namespace}/twin/state.json")
    state.write_text(state.read_text().replace(node.inside("twin"), "/run/other/twin"))
    before = Snapshot.take(node, [keeper, twin])
    with killing(node, tmp_path, "run") as (watching, _):
        line = watching.wait_for("bundle.blocked", twin)
        assert "is that of /run/other/twin" in json.dumps(line)
        assert twin.init.alive
        watching.stop()
    assert before.changes(Snapshot.take(node, [keeper, twin])) == []


@pytest.mark.fault("an id that is a word of somebody's cgroup path")
def test_an_id_that_is_a_word_of_others_cgroups_is_cleaned(node: Node) -> None:
    """`c1` beside a login session's scope, its namespace's own name, and a parent of others."""
    keeper = node.run("keeper")
    names = ["c1", "parent", node.namespace]
    dead = node.run_all(names)
    node.containerd.kill()
    kill_all([one for task in dead for one in (task.shim, task.init)])
    guest = node.occupy(keeper)
    places = [top / "user.slice" / "session-c1.scope" for top in node.cgroups()]
    places += [top / "parent" / "abc" for top in node.cgroups()]
    made = [place for place in places if "pids" in place.parts or "memory" in place.parts]
    for place in made:
        place.mkdir(parents=True)
        (place / "cgroup.procs").write_text(str(guest.pid))
    try:
        (row,) = [r for r in product.scan(node)["bundles"] if r["id"] == "parent"]
        told = product.results(product.clean(node))
        assert row["verdict"] == "orphaned"  # whoever is below a cgroup it names may be its own
        assert told == {"c1": "cleaned", node.namespace: "cleaned"}
    finally:
        guest.communicate()
        for place in made:
            until(partial(_says, place / "cgroup.procs", ""), "the guest has left")
            place.rmdir()
            with contextlib.suppress(OSError):
                place.parent.rmdir()
    assert keeper.init.alive
