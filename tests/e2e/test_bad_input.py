"""What cannot be done is said in one line, with the right code, and nothing is touched."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e import product
from tests.e2e.apart import Word
from tests.e2e.node import Node
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

LEFTOVERS, UNPROVEN, NO_CONTAINERD, REFUSED = 10, 11, 69, 77
SLAVE = ("unshare", "-m", "--propagation", "slave")
FOREIGN = {
    "pid namespace": ("unshare", "-p", "-f", "--mount-proc"),
    "pid namespace, /proc of the machine": ("unshare", "-p", "-f"),
    "time namespace": ("unshare", "-T", "--boottime", "1000000", "-f"),
    "mount namespace": ("unshare", "-m", "--propagation", "private"),
    "slave mount namespace": SLAVE,
}
CLEAN = ("clean", *product.NOW)
ENFORCE = ("run", "--enforce", "--once", "--grace", "0s", "--threshold", "0s")


@pytest.fixture
def dead(node: Node) -> Task:
    """A leftover that `clean` would remove at once, beside a container that lives."""
    node.run("keeper")
    task = node.run("dead")
    node.crash(task)
    node.restart(unseen=[task])
    return task


@pytest.mark.fault("a wrong root with a stale database")
def test_a_stale_database_of_another_root_removes_nothing(node: Node, tmp_path: Path) -> None:
    keeper, task = node.run("keeper"), node.run("dead")
    node.crash(task)
    stale = tmp_path / "stale"
    shutil.copytree(
        node.root / "io.containerd.metadata.v1.bolt", stale / "io.containerd.metadata.v1.bolt"
    )
    before = Snapshot.take(node, [keeper])
    left = remains(node, task.id)
    told = product.run(node, *product.words(node, *CLEAN, root=stale))
    assert f"belong to a containerd with root {node.root}" in told.err
    assert remains(node, task.id) == left
    assert product.results(product.clean(node)) == {task.id: "cleaned"}, "it is down all the same"
    assert before.changes(Snapshot.take(node, [keeper])) == []


@pytest.mark.parametrize("wrong", ["missing", "empty", "file", "another", "namespace"])
def test_a_wrong_state_directory_is_refused(node: Node, wrong: str) -> None:
    place = f"/run/{wrong}"
    if wrong in ("empty", "another"):
        node.apart.path(place).mkdir()
    if wrong == "another":
        node.apart.path(f"{place}/dbus").mkdir()
    if wrong == "file":
        node.apart.path(place).write_text("")
    if wrong == "namespace":
        node.run("web")
        place = node.inside("web")
    for command in (("scan",), CLEAN, ENFORCE):
        ran = product.run(node, *product.words(node, *command, "--state", place))
        assert ran.code == NO_CONTAINERD, ran
        assert place in ran.complaint()


def test_a_state_directory_that_cannot_be_read_is_refused(node: Node, dead: Task) -> None:
    node.apart.run("chown", "1:1", node.state)
    node.apart.run("chmod", "0700", node.state)
    before = Snapshot.take(node, [dead])
    weak = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    for command in (("scan",), CLEAN, ENFORCE):
        ran = product.run(node, *product.words(node, *command), before=weak)
        assert ran.code == REFUSED, ran
        assert "permission" in ran.complaint()
    assert before.changes(Snapshot.take(node, [dead])) == []


@pytest.mark.parametrize("weak", ["sys_admin", "sys_ptrace"])
def test_missing_privileges_are_named(node: Node, dead: Task, weak: str) -> None:
    before = Snapshot.take(node, [dead])
    ran = product.run(
        node,
        *product.words(node, *CLEAN),
        before=("setpriv", "--bounding-set", f"-{weak}"),
    )
    assert ran.code == REFUSED
    assert f"CAP_{weak.upper()}" in ran.complaint()
    assert before.changes(Snapshot.take(node, [dead])) == []


def test_neither_containerd_nor_its_lock_is_no_proof(node: Node, dead: Task) -> None:
    node.containerd.kill()
    before = Snapshot.take(node, [dead])
    ran = product.run(node, *product.words(node, *CLEAN, "-q", "--root", "/run/elsewhere"))
    assert ran.code == NO_CONTAINERD
    assert ran.complaint()
    assert before.changes(Snapshot.take(node, [dead])) == []


@pytest.mark.fault("containerd SIGSTOPped")
def test_a_containerd_that_hangs_is_waited_for_and_not_taken_for_dead(
    node: Node, dead: Task
) -> None:
    before = Snapshot.take(node, [dead])
    node.containerd.freeze()
    ran = product.run(node, *product.words(node, *CLEAN, "-q"))
    node.containerd.thaw()
    assert ran.code == NO_CONTAINERD
    assert ran.complaint()
    assert before.changes(Snapshot.take(node, [dead])) == []


@pytest.mark.parametrize("before", FOREIGN.values(), ids=FOREIGN)
def test_from_a_foreign_namespace_it_can_be_scanned_and_nothing_is_removed(
    node: Node, dead: Task, before: Sequence[Word]
) -> None:
    ran = product.run(
        node, *product.words(node, "scan", "-o", "json", "--exit-code"), before=before
    )
    assert "warning: not everything can be seen from here" in ran.err.splitlines()[0]
    seen = {one["id"]: one["verdict"] for one in json.loads(ran.out)["bundles"]}
    if "-m" in before:
        assert (seen[dead.id], ran.code) == ("leftover", LEFTOVERS), "processes are seen from there"
    else:
        assert (seen[dead.id], ran.code) == ("unknown", UNPROVEN), ran
        assert set(seen.values()) <= {"unknown", "running"}, "a sign of life counts from anywhere"
    if before == SLAVE:
        node.apart.run("mount", "--make-rshared", "/run")
    there = Snapshot.take(node, [dead])
    for command in (CLEAN, ENFORCE):
        ran = product.run(node, *product.words(node, *command, "-q"), before=before)
        assert ran.code == REFUSED, ran
        assert "namespace" in ran.complaint()
    assert there.changes(Snapshot.take(node, [dead])) == []


def test_a_dry_run_says_that_it_would_be_refused(node: Node, dead: Task) -> None:
    there = Snapshot.take(node, [dead])
    before = FOREIGN["mount namespace"]
    ran = product.run(node, *product.words(node, *CLEAN, "--dry-run", "-q"), before=before)
    assert ran.code == 0, ran
    assert "it would be refused: " in ran.complaint()
    assert "mount namespace" in ran.complaint()
    assert there.changes(Snapshot.take(node, [dead])) == []


def test_a_shared_mount_namespace_is_as_good_as_the_same(node: Node, dead: Task) -> None:
    node.apart.run("mount", "--make-rshared", "/run")
    beside = ("unshare", "-m", "--propagation", "unchanged")
    ran = product.run(node, *product.words(node, *CLEAN), before=beside)
    assert ran.code == 0, ran
    assert remains(node, "dead") == []


def test_a_second_instance_is_refused(node: Node, dead: Task) -> None:
    watch = ("--enforce", "--grace", "1h")
    before = Snapshot.take(node, [dead])
    with product.watching(node, *watch) as watching:
        watching.wait_for("bundle.judged", dead, verdict="leftover")
        watching.wait_ready("up")
        ran = product.run(node, *product.words(node, *CLEAN, "-q"))
        assert ran.code == REFUSED
        assert str(watching.process.pid) in ran.complaint()
    assert before.changes(Snapshot.take(node, [dead])) == []
    ran = product.run(node, *product.words(node, *CLEAN))
    assert ran.code == 0, ran
    assert remains(node, "dead") == []


def test_a_wrong_word_is_a_usage_error(node: Node) -> None:
    for words in (("clean", "--grace", "soon"), ("scan", "-o", "yaml"), ("tidy",)):
        ran = product.run(node, *product.words(node, *words))
        assert ran.code == 2, ran
        assert ran.complaint()
