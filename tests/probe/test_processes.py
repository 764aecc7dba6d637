"""One pass over /proc, over the real one and over ones made up."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import kernel
from reconciler.model.evidence import ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.probe.commands import CommandLines
from reconciler.probe.processes import ShimCommand, parse_command, scan, scan_since, users_of
from tests.probe.world import World, end
from tests.support.children import WITHOUT_FIRST_THREAD, wait_for_its_first_thread_to_end

SHIM = "/usr/bin/containerd-shim-runc-v2"
KEY = BundleKey("k8s.io", "pod1")


class FakeProc:
    """A /proc of our own making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options = "rw"
        (root / "self").mkdir(parents=True)
        self.status(capabilities=0x1FFFFFFFFFF)
        (root / "stat").write_text("btime 1\n")

    def status(self, capabilities: int) -> None:
        (self.root / "self" / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")

    def add(
        self,
        pid: int,
        *command: str,
        cgroup: str = "/",
        state: str = "S",
        flags: int = 0,
        comm: str | None = None,
        uids: tuple[int, ...] = (0, 0, 0, 0),
        pids: str = "",
        cwd: str = "/",
    ) -> None:
        here = self.root / str(pid)
        here.mkdir()
        comm = os.path.basename(command[0])[:15] if comm is None and command else comm or "x"
        (here / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))
        (here / "comm").write_text(f"{comm}\n")
        (here / "cgroup").write_text(f"2:cpu:{cgroup}\n0::{cgroup}\n")
        (here / "cwd").symlink_to(cwd)
        ids = "\t".join(str(uid) for uid in uids)
        (here / "status").write_text(
            f"Name:\t{comm}\nTgid:\t{pid}\nUid:\t{ids}\nNSpid:\t{pid}{pids}\n"
        )
        rest = " ".join(["0"] * 10)
        (here / "stat").write_text(f"{pid} ({comm}) {state} 1 1 1 0 -1 {flags} {rest} 1 0 7 0\n")

    def write_table(self) -> None:
        """Have a mount table that says how this /proc is mounted."""
        number = kernel.statx(kernel.AT_FDCWD, os.fsencode(self.root)).mount_id
        line = f"{number} 1 0:9 / {self.root} rw - proc proc {self.options}\n"
        (self.root / "self" / "mountinfo").write_text(line)

    def thread(self, tid: int, pid: int) -> None:
        """Add a thread: /proc does not list it, and knows it by its number."""
        (self.root / str(tid)).mkdir()
        (self.root / str(tid) / "status").write_text(f"Name:\tx\nTgid:\t{pid}\nPid:\t{tid}\n")

    def scan(self) -> ProcessScan:
        self.write_table()
        return scan(os.fsencode(self.root))

    def scan_since(self, before: ProcessScan, *pids: int) -> ProcessScan:
        proc, commands = os.fsencode(self.root), CommandLines()
        return scan_since(before, pids, proc, users=users_of(None), commands=commands)


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


def test_shims_and_helpers_are_told_apart(fake: FakeProc) -> None:
    told = ("-namespace", "k8s.io", "-id", "pod1", "-address", "/c.sock")
    fake.add(10, SHIM, *told)
    fake.add(11, SHIM, *told, "start")
    fake.add(12, SHIM, *told, "-bundle", "/b", "delete")
    fake.add(13, "/bin/sleep", "containerd-shim")
    found = fake.scan()
    assert found.answered
    assert found.shims == (ShimProcess(KEY, 10, "/c.sock"),)
    assert found.helpers == {KEY}


@pytest.mark.safety
def test_who_came_since_a_pass_is_found_by_the_pids_that_were_given_out(fake: FakeProc) -> None:
    told = ("-namespace", "k8s.io", "-id")
    fake.add(10, SHIM, *told, "pod1")
    before = fake.scan()
    fake.add(20, "/bin/sh")
    fake.add(21, "/bin/sleep", "containerd-shim")
    assert fake.scan_since(before, 20, 21, 22) is before
    fake.add(30, SHIM, *told, "pod2")
    fake.add(31, SHIM, *told, "pod3", "delete")
    found = fake.scan_since(before, *range(20, 40))
    assert {shim.key.id for shim in found.shims} == {"pod1", "pod2"}
    assert found.helpers == {BundleKey("k8s.io", "pod3")}
    assert fake.scan_since(found, *range(20, 40)) is found
    everybody = fake.scan()
    assert (set(everybody.shims), everybody.helpers) == (set(found.shims), found.helpers)


@pytest.mark.safety
def test_a_pass_that_asks_for_no_cgroups_finds_the_same_shims(fake: FakeProc) -> None:
    told = ("-namespace", "k8s.io", "-id")
    fake.add(10, SHIM, *told, "pod1")
    fake.add(11, f"/opt/bin/.{SHIM[9:]}", *told, "pod2", comm=".containerd-shi")
    fake.add(12, SHIM, *told, "pod3", "delete")
    fake.add(13, SHIM, *told, "dead", state="Z")
    fake.add(14, "/bin/sleep", comm="sleep (container")
    fake.add(15, SHIM, *told, "pod4")
    (fake.root / "15" / "cmdline").unlink()
    (fake.root / "15" / "cmdline").mkdir()
    whole = fake.scan()
    assert [shim.key.id for shim in whole.shims] == ["pod1"]
    assert [one.pid for one in whole.unread] == [15]
    found = scan(os.fsencode(fake.root), cgroups=False)
    assert (found.shims, found.helpers) == (whole.shims, whole.helpers)
    assert found.unread == whole.unread
    (fake.root / "12" / "comm").unlink()
    (fake.root / "12" / "comm").mkdir()
    assert not scan(os.fsencode(fake.root), cgroups=False).answered


@pytest.mark.safety
def test_a_process_that_becomes_a_shim_is_found_by_the_threads_it_makes(fake: FakeProc) -> None:
    before = fake.scan()
    fake.add(10, SHIM, "-namespace", "k8s.io", "-id", "pod1")
    fake.thread(25, of := 10)
    assert [shim.pid for shim in fake.scan_since(before, 25).shims] == [of]


@pytest.mark.safety
def test_who_cannot_be_read_or_has_ended_keeps_what_was_known(fake: FakeProc) -> None:
    fake.add(10, SHIM, "-namespace", "k8s.io", "-id", "pod1")
    before = fake.scan()
    shutil.rmtree(fake.root / "10")
    assert fake.scan_since(before, 11) is before
    fake.add(12, SHIM, "-namespace", "k8s.io", "-id", "pod2")
    (fake.root / "12" / "cmdline").unlink()
    (fake.root / "12" / "cmdline").mkdir()
    assert [one.pid for one in fake.scan_since(before, 12).unread] == [12]
    (fake.root / "12" / "status").unlink()
    (fake.root / "12" / "status").mkdir()
    assert not fake.scan_since(before, 12).answered


@pytest.mark.parametrize(
    "words",
    [
        [SHIM, "-namespace", "k8s.io", "-id", "pod1", "-address", "/a"],
        [SHIM, "-namespace=k8s.io", "--id=pod1", "--address", "/a"],
        ["containerd-shim-kata-v2", "-id", "pod1", "-debug", "-namespace", "k8s.io", "-address=/a"],
        [
            "/bin/sh",
            "/opt/containerd-shim-wrapped",
            "-namespace",
            "k8s.io",
            "-id",
            "pod1",
            "-address",
            "/a",
        ],
    ],
)
def test_shims_of_every_name_and_spelling_are_known(words: list[str]) -> None:
    assert parse_command([word.encode() for word in words]) == ShimCommand(KEY, b"/a", b"")


@pytest.mark.parametrize("action", ["start", "delete"])
def test_helpers_end_in_what_they_do(action: str) -> None:
    words = f"{SHIM} -namespace k8s.io -address /a -publish-binary /c -id pod1 -debug {action}"
    assert parse_command(words.encode().split()) == ShimCommand(KEY, b"/a", action.encode())


@pytest.mark.parametrize(
    "words",
    [
        "",
        "sleep 1",
        f"{SHIM}",
        f"{SHIM} -namespace x",
        f"{SHIM} -id",
        f"{SHIM} -id x -namespace",
        "a b c containerd-shim -id x -namespace y",
    ],
)
def test_other_commands_are_no_shims(words: str) -> None:
    assert parse_command(words.encode().split()) is None


def test_an_id_named_like_an_action_is_an_id() -> None:
    words = [SHIM.encode(), b"-namespace", b"k8s.io", b"-id", b"start"]
    assert parse_command(words) == ShimCommand(BundleKey("k8s.io", "start"), b"", b"")


@given(st.lists(st.binary()))
def test_any_command_line_is_read_or_not(words: list[bytes]) -> None:
    parse_command(words)
    parse_command([SHIM.encode(), *words])


def test_cgroups_of_the_living_are_told(fake: FakeProc) -> None:
    fake.add(10, "sleep", cgroup="/k8s.io/abc")
    fake.add(11, "sleep", cgroup="/system.slice/cri-containerd-def.scope")
    fake.add(12, cgroup="/default/no-command-line")
    assert fake.scan().cgroup_paths >= {
        "/k8s.io/abc",
        "/system.slice/cri-containerd-def.scope",
        "/default/no-command-line",
    }


def test_the_dead_and_the_kernels_own_do_not_count(fake: FakeProc) -> None:
    fake.add(10, cgroup="/default/zombie", state="Z")
    fake.add(11, cgroup="/default/kernel", flags=0x00200040)
    found = fake.scan()
    assert found.answered
    assert found.cgroup_paths == frozenset()


def test_the_vanished_do_not_matter(fake: FakeProc) -> None:
    fake.add(10, "sleep", cgroup="/default/a")
    (fake.root / "11").mkdir()
    found = fake.scan()
    assert found.answered
    assert "/default/a" in found.cgroup_paths


@pytest.mark.fault("hidepid /proc")
@pytest.mark.parametrize(
    "options", ["rw,hidepid=1", "rw,hidepid=2", "rw,hidepid=invisible", "rw,hidepid=4"]
)
def test_a_hiding_proc_gives_no_answer_without_the_capability(fake: FakeProc, options: str) -> None:
    fake.add(10, "sleep", cgroup="/default/a")
    fake.options = options
    assert fake.scan().answered
    fake.status(capabilities=~(1 << 19) & 0xFFFF)
    assert fake.scan() == ProcessScan()


@pytest.mark.parametrize("options", ["rw", "rw,hidepid=0", "rw,hidepid=off,gid=5"])
def test_a_proc_that_hides_nothing_answers(fake: FakeProc, options: str) -> None:
    fake.options = options
    fake.status(capabilities=0)
    assert fake.scan().answered


def test_no_proc_is_no_answer(tmp_path: Path) -> None:
    assert scan(os.fsencode(tmp_path / "absent")) == ProcessScan()
    assert scan(os.fsencode(tmp_path)) == ProcessScan()


def test_a_proc_of_another_pid_namespace_is_no_answer(fake: FakeProc) -> None:
    (fake.root / "self" / "status").rename(fake.root / "status")
    (fake.root / "self").rmdir()
    (fake.root / "1").mkdir()
    (fake.root / "self").symlink_to("1")
    (fake.root / "status").rename(fake.root / "1" / "status")
    assert fake.scan() == ProcessScan()


def test_an_unreadable_process_is_no_answer(fake: FakeProc) -> None:
    fake.add(10, "sleep")
    (fake.root / "10" / "cgroup").unlink()
    (fake.root / "10" / "cgroup").mkdir()
    assert fake.scan() == ProcessScan()


def test_a_real_shim_is_found(world: World) -> None:
    script = world.base / "containerd-shim-runc-v2"
    script.write_text("#!/bin/sh\necho\nread x\n")
    script.chmod(0o755)
    id_ = world.base.name
    pid = world.start(str(script), "-namespace", "test", "-id", id_, "-address", "/x.sock")
    key = BundleKey("test", id_)
    found = scan()
    assert found.answered
    assert ShimProcess(key, pid, "/x.sock") in found.shims
    end(pid)
    assert key not in {shim.key for shim in scan().shims}


@pytest.mark.safety
def test_a_shim_whose_first_thread_has_ended_is_not_gone(world: World) -> None:
    """The kernel shows neither words nor directory of one, while its other threads serve."""
    script = world.base / "containerd-shim-runc-v2"
    script.write_text(f"#!{sys.executable}\n{WITHOUT_FIRST_THREAD}")
    script.chmod(0o755)
    pid = world.start(str(script), "-namespace", "test", "-id", world.base.name)
    wait_for_its_first_thread_to_end(pid)
    for found in (scan(cgroups=False), scan()):
        assert found.answered
        assert pid in {one.pid for one in found.unread}
    end(pid)
    assert pid not in {one.pid for one in scan().unread}
