"""The demo's tree looks like containerd's, and nothing of it outlives the demo."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from reconciler.demo.fixtures import Fixture, Promise
from reconciler.demo.node import DemoNode
from reconciler.demo.promises import compare, pictures
from reconciler.model.evidence import ENTRY_NAMES
from reconciler.model.ids import is_identifier


@pytest.fixture
def node() -> Iterator[DemoNode]:
    with DemoNode(time.time()) as node:
        yield node


def test_nothing_outlives_the_demo() -> None:
    with DemoNode(time.time()) as node:
        top = Path(os.fsdecode(node.top))
        pids = [process.pid for process in node._processes._all]
        assert top.is_dir()
        assert len(pids) > len(node.fixtures) / 2
    assert not top.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_fault_while_it_is_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    node = DemoNode(time.time())
    made = node._make
    left = iter([None, None, None])

    def fail(fixture: Fixture) -> None:
        if next(left, "over") == "over":
            raise OSError("no space left")
        made(fixture)

    monkeypatch.setattr(node, "_make", fail)
    with pytest.raises(OSError, match="no space"):
        node.__enter__()
    assert not Path(os.fsdecode(node.top)).exists()
    assert not [p for p in node._processes._all if p.alive]


def test_every_process_ends_when_the_demo_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from reconciler.demo.node import DemoNode\n"
        "node = DemoNode(time.time()).__enter__()\n"
        "print(node.top.decode(), *(p.pid for p in node._processes._all if p.alive), flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    top, *pids = child.stdout.readline().split()
    try:
        assert len(pids) >= 6
        child.send_signal(signal.SIGKILL)
        child.wait()
        until(lambda: not [pid for pid in pids if lives(pid)])
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
        subprocess.run(["rm", "-rf", top], check=True)


def test_every_shim_answers_and_every_dead_one_refuses(node: DemoNode) -> None:
    for fixture in node.fixtures:
        group = fixture.key.id if fixture.group is None else fixture.group
        path = node.layout.shim_socket(fixture.key.namespace, group)
        with socket.socket(socket.AF_UNIX) as client:
            if fixture.shim:
                client.connect(path)
            else:
                with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
                    client.connect(path)


def test_the_files_are_those_of_a_bundle(node: DemoNode) -> None:
    for fixture in node.fixtures:
        bundle = node.layout.bundle(fixture.key)
        names = set(os.listdir(os.fsdecode(bundle)))
        assert names <= set(ENTRY_NAMES)
        assert is_identifier(fixture.key.id)
        assert is_identifier(fixture.key.namespace)
        assert not names & set(fixture.missing)
        assert ("*" in fixture.missing) == (not names)
        if names:
            config = msgspec.json.decode(Path(os.fsdecode(bundle), "config.json").read_bytes())
            assert config["linux"]["cgroupsPath"].endswith(fixture.key.id)


def test_a_promise_broken_is_noticed(node: DemoNode) -> None:
    before = pictures(node)
    seen = {fixture.key: {fixture.verdict} for fixture in node.fixtures}
    kept = {one.fixture.key: one.broken for one in compare(node, before, seen)}
    for fixture in node.fixtures:  # nobody has cleaned: only what should be gone is at fault
        assert bool(kept[fixture.key]) == (fixture.promise is Promise.CLEANED), kept[fixture.key]

    web = node.fixtures[0]
    Path(os.fsdecode(node.layout.bundle(web.key)), "runtime").write_bytes(b"x")
    node.kill_victims()
    seen[node.fixtures[1].key] = set()
    kept = {one.fixture.key: one.broken for one in compare(node, before, seen)}
    assert kept[web.key] == "changed"
    assert "never judged" in kept[node.fixtures[1].key]


def test_a_killed_process_is_noticed(node: DemoNode) -> None:
    before = pictures(node)
    node._inits[node.fixtures[0].key].end()
    kept = {
        one.fixture.key: one.broken
        for one in compare(
            node, before, {fixture.key: {fixture.verdict} for fixture in node.fixtures}
        )
    }
    assert kept[node.fixtures[0].key] == "a process is gone"


def lives(pid: str) -> bool:
    """Return whether a process runs; a zombie that nobody reaps does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        os.sched_yield()


def test_demos_that_run_at_a_time_share_no_name() -> None:
    with DemoNode(time.time()) as one, DemoNode(time.time()) as other:
        names = {fixture.key for fixture in one.fixtures}
        others = {fixture.key for fixture in other.fixtures}
        assert not names & others
        assert all(
            is_identifier(part) for key in names | others for part in (key.namespace, key.id)
        )
