"""`run --enforce` on a node that breaks under its eyes: noticed at once, cleaned in its time."""

import os
import signal
import time

import pytest

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.processes import kill_all, until
from tests.e2e.snapshot import Snapshot, remains

pytestmark = pytest.mark.containerd

GRACE = 1.0
QUIET = 1.0
CHANGES = 20_000
ENFORCE = ("--enforce", "--grace", "1s", "--threshold", "0s")
INTERRUPTED = 130


def test_a_death_is_noticed_within_100_ms_and_cleaned_after_the_grace(node: Node) -> None:
    keeper = node.run("keeper")  # whoever lives says in which namespaces this node is
    victims = node.run_all(f"victim-{number}" for number in range(3))
    node.containerd.kill()
    before = Snapshot.take(node, [keeper])
    with product.watching(node, *ENFORCE) as watching:
        for task in (keeper, *victims):
            watching.wait_for("bundle.judged", task, verdict="running")
        watching.wait_ready("down")
        for task in victims:
            watching.wait_quiet(QUIET)
            killed = time.monotonic()
            kill_all([task.shim, task.init])
            noticed = product.mono(watching.wait_for("bundle.judged", task, verdict="leftover"))
            assert noticed - killed < 0.1
            cleaned = product.mono(watching.wait_for("bundle.cleaned", task))
            assert GRACE <= cleaned - noticed < GRACE + 1
            assert remains(node, task.id) == []
        assert watching.stop() == INTERRUPTED
    assert before.changes(Snapshot.take(node, [keeper])) == []


@pytest.mark.fault("I4")
def test_nothing_is_cleaned_under_a_containerd_that_comes_back_in_other_namespaces(
    node: Node,
) -> None:
    keeper, victim = node.run("keeper"), node.run("doomed")
    before = Snapshot.take(node, [keeper])
    with product.watching(node, *ENFORCE) as watching:
        watching.wait_ready("up")
        watching.wait_for("bundle.judged", victim, verdict="running")
        node.crash(victim)
        node.restart("unshare", "--mount", "--propagation", "private", unseen=[victim])
        watching.wait_since(0.0, {"event": "guards.checked", "ok": False})
        watching.wait_quiet(2 * GRACE)
        assert remains(node, victim.id) != []
        node.containerd.kill()
        node.restart(unseen=[victim])
        watching.wait_for("bundle.cleaned", victim)
        assert watching.stop() == INTERRUPTED
    assert remains(node, victim.id) == []
    assert before.changes(Snapshot.take(node, [keeper])) == []


@pytest.mark.fault("I16")
@pytest.mark.parametrize("backend", ["inotify", "watchfiles", "poll"])
def test_every_backend_comes_to_the_same_end(node: Node, backend: str) -> None:
    keeper, early = node.run("keeper"), node.run("early")
    before = Snapshot.take(node, [keeper])
    with product.watching(node, *ENFORCE, "--backend", backend) as watching:
        watching.wait_for("bundle.judged", early, verdict="running")
        late = node.run("late")
        watching.wait_for("bundle.judged", late, verdict="running")
        node.crash(early, late)
        for task in (early, late):
            watching.wait_for("bundle.cleaned", task)
            assert remains(node, task.id) == []
        assert watching.stop() == INTERRUPTED
    assert before.changes(Snapshot.take(node, [keeper])) == []


@pytest.mark.fault("I17")
@pytest.mark.parametrize("backend", ["inotify", "watchfiles", "poll"])
def test_nothing_is_lost_of_what_happens_while_it_is_stopped(node: Node, backend: str) -> None:
    """More than any queue of events holds."""
    keeper, victim = node.run("keeper"), node.run("doomed")
    before = Snapshot.take(node, [keeper])
    noise = node.bundle("noise", "noise")
    with product.watching(node, *ENFORCE, "--backend", backend) as watching:
        for task in (keeper, victim):
            watching.wait_for("bundle.judged", task, verdict="running")
        watching.wait_ready("up")
        watching.process.send_signal(signal.SIGSTOP)
        node.crash(victim)
        noise.mkdir(parents=True)
        for number in range(CHANGES // 2):
            file = noise / f"file-{number}"
            file.touch()
            file.unlink()
        for number in range(20):
            noise.with_name(f"late-{number}").mkdir()
        for number in range(10):
            noise.with_name(f"late-{number}").rmdir()
        watching.process.send_signal(signal.SIGCONT)
        watching.wait_for("bundle.cleaned", victim, seconds=60)
        assert remains(node, victim.id) == []
        # containerd is down and no shim serves that namespace: all of it is dead, and removed.
        until(lambda: not os.listdir(noise.parent), "every late bundle is removed", seconds=60)
        assert watching.stop() == INTERRUPTED
        told = {line.get("id") for line in watching.lines if line["event"] == "bundle.cleaned"}
        assert told == {"doomed", "noise", *(f"late-{number}" for number in range(10, 20))}
    assert before.changes(Snapshot.take(node, [keeper])) == []


@pytest.mark.fault("busy rootfs")
def test_a_busy_rootfs_is_blocked_by_name_and_cleaned_when_its_holder_ends(node: Node) -> None:
    keeper, busy = node.run("keeper"), node.run("busy")
    before = Snapshot.take(node, [keeper])
    with product.watching(node, *ENFORCE) as watching:
        watching.wait_for("bundle.judged", busy, verdict="running")
        node.crash(busy)
        holder = node.occupy(busy)
        line = watching.wait_for("bundle.blocked", busy)
        named = line["holders"]
        assert isinstance(named, list)
        assert [str(who).split()[0] for who in named] == [str(holder.pid)]
        assert any("/rootfs #" in one for one in remains(node, "busy"))
        holder.communicate()
        watching.wait_for("bundle.cleaned", busy)
        assert remains(node, "busy") == []
        assert watching.stop() == INTERRUPTED
    assert before.changes(Snapshot.take(node, [keeper])) == []


def test_nothing_is_removed_unless_told_to(node: Node) -> None:
    keeper, dead = node.run("keeper"), node.run("dead")
    node.crash(dead)
    before = Snapshot.take(node, [dead])
    with product.watching(node, "--grace", "0s", "--threshold", "0s") as watching:
        watching.wait_for("bundle.judged", dead, verdict="leftover")
        kill_all([keeper.shim, keeper.init])
        watching.wait_for("bundle.judged", keeper, verdict="leftover")
        assert watching.stop() == INTERRUPTED
    assert before.changes(Snapshot.take(node, [dead])) == []
    assert node.bundle("keeper").is_dir()
