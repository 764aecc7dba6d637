"""Is the process that a file names alive, and is it ours? Against real processes."""

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.cgroups import CgroupSource, NamedCgroup
from reconciler.model.evidence import Init, InitState
from reconciler.probe import process
from reconciler.probe.process import Candidate, ExpectedCgroup, Stat, candidates, judge
from tests.probe.world import World, start_of
from tests.support.children import WITHOUT_FIRST_THREAD, wait_for_its_first_thread_to_end

STRANGER = ExpectedCgroup("c1", NamedCgroup(CgroupSource.RUNTIME, ("/nowhere/c1",)))
UNKNOWN = ExpectedCgroup("c1")
NOW = time.time()


def judged(candidate: Candidate, expected_cgroup: ExpectedCgroup = STRANGER) -> Init:
    return judge([candidate], expected_cgroup)


def own_cgroup(pid: int) -> str:
    return max(process.read_cgroups(pid), key=len)


class FakeProc:
    """A /proc in which a real, living pid has what files we like."""

    def __init__(self, root: Path, pid: int) -> None:
        self.root, self.pid = os.fsencode(root), pid
        self.here = root / str(pid)
        self.here.mkdir()
        self.stat()
        self.cgroup("/")
        self.mounts(root / "1", "mnt:[1]")
        self.mounts(self.here, "mnt:[1]")
        (root / "stat").write_text(f"cpu 1 2\nbtime {int(NOW) - 1000}\nprocesses 5\n")

    def stat(self, state: str = "S", start: int = 5000, flags: int = 0) -> None:
        rest = " ".join([*["0"] * 4, str(flags), *["0"] * 12])
        (self.here / "stat").write_text(f"{self.pid} (a) b (c) {state} 1 {rest} {start} 0 0\n")

    def cgroup(self, path: str) -> None:
        (self.here / "cgroup").write_text(f"4:cpu,cpuacct:{path}\n0::/\n")

    def mounts(self, where: Path, namespace: str) -> None:
        link = where / "ns/mnt"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(namespace)

    def judge(self, candidate: Candidate, expected_cgroup: ExpectedCgroup = UNKNOWN) -> Init:
        return judge([candidate], expected_cgroup, self.root)


@pytest.fixture
def fake(tmp_path: Path, world: World) -> FakeProc:
    root = tmp_path / "proc"
    root.mkdir()
    return FakeProc(root, world.child())


def ticks(seconds_after_boot: float) -> int:
    return int(seconds_after_boot * os.sysconf("SC_CLK_TCK"))


def test_nobody_named_is_absent() -> None:
    assert judge([], UNKNOWN).state is InitState.ABSENT


def test_the_named_start_time_confirms(world: World) -> None:
    pid = world.child()
    assert judged(Candidate(pid, start_of(pid))).state is InitState.ALIVE


def test_another_start_time_refutes(world: World) -> None:
    pid = world.child()
    assert judged(Candidate(pid, start_of(pid) - 1), UNKNOWN).state is InitState.DEAD


def test_a_reaped_process_is_dead(world: World) -> None:
    assert judged(Candidate(world.dead(), 1)).detail == "no such process"


def test_a_zombie_is_dead(world: World) -> None:
    pid = world.zombie()
    init = judged(Candidate(pid, start_of(pid)))
    assert (init.state, init.detail) == (InitState.DEAD, "zombie")


def test_threads_outlive_their_first(world: World) -> None:
    pid = world.start(sys.executable, "-c", WITHOUT_FIRST_THREAD)
    wait_for_its_first_thread_to_end(pid)
    init = judged(Candidate(pid, start_of(pid)))
    assert (init.state, init.detail) == (InitState.ALIVE, "its first thread ended, others live")


@pytest.mark.safety
def test_a_thread_of_the_kernel_is_in_no_container(fake: FakeProc) -> None:
    """After a boot the pid of a bundle on a disk may be one's."""
    assert fake.judge(Candidate(fake.pid)).state is InitState.NONE
    fake.stat(flags=0x00200000)
    assert fake.judge(Candidate(fake.pid)).state is InitState.DEAD


@pytest.mark.safety
def test_a_void_pid_is_somebody_elses_unless_the_cgroup_speaks(fake: FakeProc) -> None:
    void = Candidate(fake.pid, is_void=True)
    assert fake.judge(void).state is InitState.DEAD
    fake.cgroup("/default/c1")
    assert fake.judge(void).state is InitState.ALIVE
    fake.cgroup("/nowhere/c1")
    assert fake.judge(void, STRANGER).state is InitState.ALIVE


def test_a_threads_pid_is_not_a_process(world: World) -> None:
    code = (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "print(flush=True)\n"
    )
    pid = world.start(sys.executable, "-c", code)
    threads = {int(name) for name in os.listdir(f"/proc/{pid}/task")} - {pid}
    assert judged(Candidate(threads.pop())).state is InitState.DEAD


def test_its_cgroup_confirms(world: World, fake: FakeProc) -> None:
    fake.cgroup("/nowhere/c1")
    assert fake.judge(Candidate(fake.pid, 1), STRANGER).state is InitState.ALIVE


@pytest.mark.fault("a reused pid whose cgroup path contains the id")
@pytest.mark.parametrize("path", ["/default/c1", "/c1/abc", "/user.slice/session-c1.scope"])
def test_a_name_in_its_cgroup_does_not_make_up_for_another_start_time(
    fake: FakeProc, path: str
) -> None:
    fake.cgroup(path)
    for expected_cgroup in (UNKNOWN, STRANGER):
        assert fake.judge(Candidate(fake.pid, 1), expected_cgroup).state is InitState.DEAD


@pytest.mark.safety
@pytest.mark.fault("a cgroup made by another driver than config.json asks")
@pytest.mark.parametrize(
    ("path", "state"),
    [("/odd/c1", InitState.ALIVE), ("/x.slice/y-c1.scope", InitState.ALIVE),
     ("/system.slice/x.slice:cri-containerd:c1", InitState.ALIVE),
     ("/c1/abc", InitState.NONE), ("/default/other", InitState.NONE)],
)  # fmt: skip
def test_what_was_only_asked_for_and_is_not_there_may_be_elsewhere(
    fake: FakeProc, path: str, state: InitState
) -> None:
    asked = NamedCgroup(CgroupSource.CONFIG, ("/default/c1",))
    fake.cgroup(path)
    assert fake.judge(Candidate(fake.pid), ExpectedCgroup("c1", asked)).state is state
    done = asked._replace(exists=True)
    assert fake.judge(Candidate(fake.pid), ExpectedCgroup("c1", done)).state is InitState.DEAD


@pytest.mark.parametrize(
    "path",
    [
        "/default/c1",
        "/default/c1/init",
        "/system.slice/cri-containerd-c1.scope",
        "/system.slice/c1.scope/container",
        "/../../other/c1",
    ],
)
def test_a_cgroup_named_after_the_id_confirms(fake: FakeProc, path: str) -> None:
    fake.cgroup(path)
    assert fake.judge(Candidate(fake.pid)).state is InitState.ALIVE


@pytest.mark.parametrize("path", ["/default/c11", "/c1x/y", "/xc1", "/a-c1/b", "/c1.service"])
def test_a_cgroup_that_only_looks_like_the_id_does_not(fake: FakeProc, path: str) -> None:
    fake.cgroup(path)
    assert fake.judge(Candidate(fake.pid), STRANGER).state is InitState.DEAD


@pytest.mark.parametrize("path", ["/pods/odd", "/pods/odd/below", "/docker/x/pods/odd"])
def test_a_process_at_or_below_the_known_cgroup_is_ours(fake: FakeProc, path: str) -> None:
    fake.cgroup(path)
    known = ExpectedCgroup("c1", NamedCgroup(CgroupSource.CONFIG, ("/pods/odd",)))
    assert fake.judge(Candidate(fake.pid), known).state is InitState.ALIVE


@pytest.mark.safety
@pytest.mark.fault("a cgroup made by another driver than config.json asks")
@pytest.mark.parametrize(
    ("source", "exists", "state"),
    [
        (CgroupSource.RUNTIME, True, InitState.DEAD),
        (CgroupSource.RUNTIME, False, InitState.DEAD),
        (CgroupSource.CONFIG, True, InitState.DEAD),
        (CgroupSource.CONFIG, False, InitState.NONE),
        (CgroupSource.NONE, False, InitState.NONE),
    ],
)
def test_only_a_cgroup_that_was_made_refutes_who_is_outside(
    fake: FakeProc, source: CgroupSource, exists: bool, state: InitState
) -> None:
    fake.cgroup("/pods/odder")
    paths = () if source is CgroupSource.NONE else ("/pods/odd",)
    known = ExpectedCgroup("c1", NamedCgroup(source, paths, exists))
    assert fake.judge(Candidate(fake.pid), known).state is state
    late = Candidate(fake.pid, None, int(NOW) - 500)
    fake.stat(start=ticks(900))
    assert fake.judge(late, known).state is InitState.DEAD


@pytest.mark.parametrize(
    ("age", "state"), [(-1, InitState.NONE), (1.0, InitState.NONE), (4.0, InitState.DEAD)]
)
def test_a_process_younger_than_its_pid_file_is_refuted(
    fake: FakeProc, age: float, state: InitState
) -> None:
    written = int(NOW) - 500
    fake.stat(start=ticks(500 + age))
    assert fake.judge(Candidate(fake.pid, None, written)).state is state


@pytest.mark.parametrize("namespace", ["mnt:[2]", None])
def test_a_container_seems_younger_than_its_pid_file_once_the_clock_was_set(
    fake: FakeProc, namespace: str | None
) -> None:
    """Wall-clock times may lie; a process that may be in a container is no stranger by them."""
    fake.stat(start=ticks(900))
    late = Candidate(fake.pid, None, int(NOW) - 500)
    assert fake.judge(late).state is InitState.DEAD
    if namespace is None:
        (fake.here / "ns/mnt").unlink()
    else:
        fake.mounts(fake.here, namespace)
    assert fake.judge(late).state is InitState.NONE


def test_a_pid_file_older_than_the_boot_proves_nothing(fake: FakeProc) -> None:
    fake.stat(start=ticks(900))
    assert fake.judge(Candidate(fake.pid, None, NOW - 5000)).state is InitState.NONE


def test_nothing_to_compare_with_is_no_answer(fake: FakeProc) -> None:
    assert fake.judge(Candidate(fake.pid)).state is InitState.NONE


@pytest.mark.parametrize("file", ["stat", "cgroup"])
def test_a_living_process_that_proc_hides_is_no_answer(fake: FakeProc, file: str) -> None:
    (fake.here / file).unlink()
    assert fake.judge(Candidate(fake.pid, 5000)).state is InitState.NONE


def test_a_stat_that_cannot_be_understood_is_no_answer(fake: FakeProc) -> None:
    (fake.here / "stat").write_text("garbage")
    assert fake.judge(Candidate(fake.pid, 5000)).state is InitState.NONE


def test_the_most_alive_candidate_wins(world: World) -> None:
    living, dead = world.child(), world.dead()
    alive = Candidate(living, start_of(living))
    gone = Candidate(dead)
    for order in ([alive, gone], [gone, alive]):
        init = judge(order, STRANGER)
        assert (init.state, init.pid) == (InitState.ALIVE, living)


def test_the_runtimes_state_overrules_the_pid_file(fake: FakeProc, world: World) -> None:
    found = candidates(fake.pid, None, world.dead(), 1)
    assert judge(found, UNKNOWN, fake.root).state is InitState.DEAD
    assert judge(candidates(fake.pid, None, None, None), UNKNOWN, fake.root).state is InitState.NONE


def test_what_both_files_agree_on_is_one_candidate() -> None:
    assert candidates(7, 1.0, 7, 5) == (Candidate(7, 5, 1.0),)
    assert candidates(7, 1.0, 8, 5) == (Candidate(7, None, 1.0), Candidate(8, 5))
    assert candidates(None, 1.0, 8, 0) == (Candidate(8),)
    assert candidates(None, None, None, None) == ()


def test_a_commands_name_may_look_like_fields() -> None:
    told = b"7 (x) R 1 (y) S 42 " + b"0 " * 4 + b"4 " + b"0 " * 10 + b"3 0 99 0"
    assert process.parse_stat(told) == Stat(b"S", 42, 99, 4, 3, None)
    placed = told + b" 0" * 24 + b" 4096 4100 0"
    assert process.parse_stat(placed) == Stat(b"S", 42, 99, 4, 3, (4096, 4100))
    hidden = told + b" 0" * 27
    assert process.parse_stat(hidden) == Stat(b"S", 42, 99, 4, 3, None)


@given(st.binary())
def test_any_stat_is_read_or_none(data: bytes) -> None:
    process.parse_stat(data)
    process.parse_cgroups(data)


def test_own_cgroups_are_read() -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    assert process.read_cgroups(os.getpid()) == tuple(line.split(":", 2)[2] for line in lines)
