"""Where a busy mount would be lost, or the living look dead: enforcing is refused, looking works.

Refused means 77, one line that names the guard, and nothing touched.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.safety.ground import NOW, Ground, Ran, ground
from tests.support import mountns
from tests.support.mountns import private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

ELSEWHERE = {
    "slave": (("unshare", "-m", "--propagation", "slave"), "mount namespace"),
    "private": (("unshare", "-m", "--propagation", "private"), "mount namespace"),
    "pid": (("unshare", "-p", "-f", "--propagation", "unchanged"), "pid namespace"),
    "pid-proc": (("unshare", "-p", "-f", "--mount-proc"), "pid namespace"),
    "time": (("unshare", "-T", "--monotonic", "1000"), "time namespace"),
}
"""Ways to start the program where it must not act, and what it says of it."""

SERVER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def complaint(ran: Ran) -> str:
    """The one line that a refused command may print."""
    assert ran.code == 77, ran
    assert ran.out == ""
    lines = [one for one in ran.err.splitlines() if not one.startswith("{")]  # no log lines
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("containerd-reconciler: ")
    return lines[0]


def scanned(ran: Ran) -> dict[str, str]:
    assert ran.code == 0, ran
    return ran.verdicts()


def refused(on: Ground, before: tuple[str, ...], guard: str, how: tuple[str, ...] = ()) -> None:
    """See that it refuses to enforce, that it still scans, and that nothing was touched."""
    dead = on.dead("dead")
    left, mounts = dead.left(), dead.mounts()
    assert guard in complaint(on.run("clean", *NOW, *how, before=before))
    verdicts = scanned(on.run("scan", "-o", "json", *how, before=before))
    assert set(verdicts) == {dead.path.name, *(one.bundle.path.name for one in on.live)}
    assert all(verdicts[one.bundle.path.name] != "leftover" for one in on.live)
    assert (dead.left(), dead.mounts()) == (left, mounts)
    assert on.harm() == []


@pytest.mark.fault("I4")
@pytest.mark.parametrize("where", ELSEWHERE)
@private_mounts
def test_elsewhere_it_refuses_to_enforce_and_still_scans(tmp_path: Path, where: str) -> None:
    before, guard = ELSEWHERE[where]
    with ground(tmp_path) as on:
        refused(on, before, guard)


@pytest.mark.fault("I4")
@private_mounts
def test_a_run_that_enforces_is_refused_as_well(tmp_path: Path) -> None:
    with ground(tmp_path) as on:
        ran = on.run("run", "--enforce", "--once", before=ELSEWHERE["slave"][0])
        assert "mount namespace" in complaint(ran)
        assert on.harm() == []


@contextmanager
def containerd(on: Ground, *before: str) -> Iterator[int]:
    """Have something listen on containerd's socket from another namespace; gives its pid here."""
    address = os.fsdecode(on.site.layout.address)
    child = subprocess.Popen(
        [*before, sys.executable, "-I", "-c", SERVER, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline()
        yield child.pid
    finally:
        child.communicate()
        os.unlink(address)


@pytest.mark.fault("I4")
@pytest.mark.parametrize(
    ("before", "guard"),
    [
        (("unshare", "-m", "--propagation", "private"), "mount namespace"),
        (("unshare", "-m", "--propagation", "slave"), "mount namespace"),
        (("unshare", "-T", "--monotonic", "1000"), "time namespace"),
    ],
    ids=["private-mounts", "slave-mounts", "time"],
)
@private_mounts
def test_a_containerd_in_a_namespace_of_its_own_is_the_one_that_counts(
    tmp_path: Path, before: tuple[str, ...], guard: str
) -> None:
    """The shims of the tree stand where we stand; containerd does not."""
    with ground(tmp_path) as on, containerd(on, *before):
        refused(on, (), guard, ("--without-containerd",))


@pytest.mark.fault("I4")
@private_mounts
def test_a_containerd_whose_pid_is_not_ours_means_a_foreign_pid_namespace(tmp_path: Path) -> None:
    """Seen from a namespace below its own it has no pid at all (SO_PEERCRED says 0)."""
    with ground(tmp_path) as on, containerd(on):
        refused(on, ("unshare", "-p", "-f", "--mount-proc"), "containerd (not seen here)",
                ("--without-containerd",))  # fmt: skip


@pytest.mark.fault("I4", "busy rootfs")
@private_mounts
def test_in_a_shared_peer_group_it_is_allowed_and_busy_mounts_are_protected(tmp_path: Path) -> None:
    """Another mount namespace whose copy of the tree passes every unmount on, and every EBUSY."""
    mountns.mount(None, "/", None, mountns.MS_REC | mountns.MS_SHARED)
    shared = ("unshare", "-m", "--propagation", "unchanged")
    with ground(tmp_path) as on:
        dead, busy = on.dead("dead"), on.dead("busy")
        with open(busy.rootfs / "data", "rb"):
            ran = on.run("clean", *NOW, before=shared)
            results = ran.results()
            assert ran.code == 75, ran
            assert results[dead.path.name]["result"] == "cleaned"
            assert results[busy.path.name]["result"] == "blocked"
            assert results[busy.path.name]["reason"] == "mount busy"
            holders = json.loads(ran.out)["results"]
            assert str(os.getpid()) in json.dumps(holders)
        assert (dead.left(), dead.mounts()) == ([], [])  # here, where containerd lives
        assert busy.mounts()
        assert (busy.rootfs / "data").read_text() == "precious\n"
        assert on.run("clean", *NOW, before=shared).code == 0
        assert (busy.left(), busy.mounts()) == ([], [])
        assert on.harm() == []


@pytest.mark.fault("I4")
@private_mounts
def test_a_copy_of_the_tree_that_is_only_a_slave_is_refused_though_the_rest_is_shared(
    tmp_path: Path,
) -> None:
    mountns.mount(None, "/", None, mountns.MS_REC | mountns.MS_SHARED)
    with ground(tmp_path) as on:
        script = f'mount --make-slave {on.site.run} && exec "$@"'
        before = ("unshare", "-m", "--propagation", "unchanged", "sh", "-c", script, "sh")
        refused(on, before, "mount namespace")
