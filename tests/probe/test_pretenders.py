"""Who may be a shim, and what one that does not answer makes of everybody else."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from reconciler.model.evidence import ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.model.processes import UnreadProcess
from reconciler.probe import commands, process
from reconciler.probe.commands import Asked, CommandLines
from reconciler.probe.processes import scan, users_of
from tests.probe.test_processes import KEY, SHIM, FakeProc
from tests.probe.world import World, end
from tests.support import hostile
from tests.support.handles import open_files
from tests.support.lag import Stopwatch
from tests.support.mountns import private_mounts

pytestmark = pytest.mark.safety

TOLD = ("-namespace", "k8s.io", "-id", "pod1", "-address", "/c.sock")
BUNDLE = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/pod1"


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


def unreadable(fake: FakeProc, pid: int) -> None:
    cmdline = fake.root / str(pid) / "cmdline"
    cmdline.unlink()
    cmdline.mkdir()


def stuck(fake: FakeProc, pid: int) -> None:
    """Have it give no answer: opening it waits for a writer that never comes."""
    cmdline = fake.root / str(pid) / "cmdline"
    cmdline.unlink()
    os.mkfifo(cmdline)


@pytest.mark.parametrize("action", [(), ("start",), ("delete",)])
@pytest.mark.parametrize(
    "uids", [(65534,) * 4, (65534, 0, 0, 0), (0, 65534, 0, 0), (0, 0, 65534, 0), (0, 0, 0, 65534)]
)
def test_another_users_process_is_nobody_whatever_it_calls_itself(
    fake: FakeProc, uids: tuple[int, ...], action: tuple[str, ...]
) -> None:
    """Not even one with a setuid program's rights: he chose its name and its words."""
    fake.add(10, SHIM, *TOLD, *action, uids=uids)
    assert fake.scan() == ProcessScan(answered=True)


def test_a_process_of_another_pid_namespace_is_nobody(fake: FakeProc) -> None:
    fake.add(10, SHIM, *TOLD, pids="\t1")
    assert fake.scan() == ProcessScan(answered=True)


def test_words_alone_make_no_shim(fake: FakeProc) -> None:
    fake.add(10, SHIM, *TOLD, comm="python3")
    assert fake.scan() == ProcessScan(answered=True)


def test_command_lines_of_others_are_not_even_read(fake: FakeProc) -> None:
    fake.add(10, "sleep", "1", cgroup="/k8s.io/pod2")
    fake.add(11, SHIM, *TOLD, uids=(65534,) * 4)
    stuck(fake, 10)
    stuck(fake, 11)
    found = fake.scan()
    assert (found.answered, found.unread) == (True, ())
    assert "/k8s.io/pod2" in found.cgroup_paths


def test_who_may_be_a_shim(tmp_path: Path) -> None:
    assert users_of(None) == {os.geteuid()}
    assert users_of(os.fsencode(tmp_path / "absent")) == {os.geteuid()}
    os.chown(tmp_path, 1234, -1)  # a rootless containerd's
    assert users_of(os.fsencode(tmp_path)) == {os.geteuid(), 1234}
    os.chown(tmp_path, 65534, -1)  # that stands for everybody without a number here
    assert users_of(os.fsencode(tmp_path)) == {os.geteuid()}


@pytest.mark.parametrize("suffix", ["", " (deleted)"])
def test_an_unreadable_one_may_be_of_the_bundle_it_works_in(fake: FakeProc, suffix: str) -> None:
    fake.add(10, SHIM, *TOLD, cwd=BUNDLE + suffix)
    unreadable(fake, 10)
    assert fake.scan() == ProcessScan(
        answered=True, cgroup_paths=frozenset(), unread=(UnreadProcess(10, KEY),)
    )


@pytest.mark.parametrize("cwd", ["/", "/run/containerd", BUNDLE + "/rootfs", BUNDLE[:-5]])
def test_an_unreadable_one_elsewhere_may_be_anybodys(fake: FakeProc, cwd: str) -> None:
    fake.add(10, SHIM, *TOLD, cwd=cwd)
    unreadable(fake, 10)
    assert fake.scan().unread == (UnreadProcess(10, None),)


def test_a_command_line_without_end_is_no_answer(fake: FakeProc) -> None:
    fake.add(10, SHIM, *TOLD, "x" * commands.LIMIT, cwd=BUNDLE)
    found = fake.scan()
    assert found.unread == (UnreadProcess(10, KEY),)
    assert found.shims == ()


@pytest.mark.fault("one process in D state")
def test_one_that_does_not_answer_costs_its_own_deadline_and_is_remembered(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 0.2)
    fake.add(10, SHIM, "-namespace", "k8s.io", "-id", "first")
    fake.add(11, SHIM, *TOLD, cwd=BUNDLE)
    fake.add(12, SHIM, "-namespace", "k8s.io", "-id", "last")
    stuck(fake, 11)
    lines = CommandLines()

    def scanned() -> tuple[ProcessScan, float]:
        watch = Stopwatch()
        return scan(os.fsencode(fake.root), commands=lines), watch.read()

    fake.write_table()
    found, took = scanned()
    assert found.answered
    assert {shim.key.id for shim in found.shims} == {"first", "last"}
    assert found.unread == (UnreadProcess(11, KEY),)
    assert took < 2
    again, took = scanned()
    assert again.unread == found.unread
    assert took < 0.2


def test_a_shim_that_was_read_is_read_again_only_as_another_program(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child made for that would give out a pid, and all that is known by pids be asked anew."""
    name = world.base / "containerd-shim-runc-v2"
    scripts = (name, name.with_suffix(".next"))
    for path, then in zip(
        scripts, (f"exec {scripts[1]} -namespace test -id second", ""), strict=True
    ):
        path.write_text(f"#!/bin/sh\necho\nread x\n{then}\n")
        path.chmod(0o755)
    asked: list[int] = []
    real = CommandLines._ask

    def ask(
        self: CommandLines, proc: int, waiting: list[Asked], found: dict[Asked, bytes | None]
    ) -> list[Asked]:
        asked.extend(one.pid for one in waiting)
        return real(self, proc, waiting, found)

    monkeypatch.setattr(CommandLines, "_ask", ask)
    lines = CommandLines()
    pid = world.start(str(name), "-namespace", "test", "-id", "first")

    def ids() -> list[str]:
        return [shim.key.id for shim in scan(commands=lines).shims if shim.pid == pid]

    assert ids() == ids() == ["first"]
    assert asked.count(pid) == 1
    world.tell(pid)  # to go on as another program, under the same pid and start time
    assert ids() == ids() == ["second"]
    assert asked.count(pid) == 2


def test_a_node_too_busy_to_let_the_reader_run_makes_nobody_look_stuck(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = commands._read

    def slowly(proc_fd: int, pid: int) -> tuple[int, bytes]:
        watch = Stopwatch()
        while watch.read() < 0.5:
            pass  # as a process that is runnable and waits for a processor
        return real(proc_fd, pid)

    monkeypatch.setattr(commands, "PATIENCE", 0.2)
    monkeypatch.setattr(commands, "_read", slowly)
    fake.add(10, SHIM, *TOLD, cwd=BUNDLE)
    found = fake.scan()
    assert [shim.pid for shim in found.shims] == [10]
    assert found.unread == ()


def test_a_reader_that_ends_makes_nobody_look_stuck(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lines = commands._read, CommandLines()

    def ended(proc_fd: int, pid: int) -> tuple[int, bytes]:
        os._exit(0)

    fake.add(10, SHIM, *TOLD, cwd=BUNDLE)
    fake.write_table()
    monkeypatch.setattr(commands, "_read", ended)
    root = os.fsencode(fake.root)
    assert scan(root, commands=lines).unread == (UnreadProcess(10, KEY),)
    monkeypatch.setattr(commands, "_read", real)
    assert scan(root, commands=lines).unread == ()


@pytest.mark.parametrize("state", ["Z", ""])
def test_one_that_ended_while_it_was_asked_is_nobody(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    def read(_: int, wanted: Iterable[Asked], **__: object) -> dict[Asked, None]:
        stat.unlink()
        if state:
            stat.write_text(said.replace(" S ", f" {state} "))
        return dict.fromkeys(wanted)

    fake.add(10, SHIM, *TOLD, cwd=BUNDLE)
    fake.write_table()
    stat = fake.root / "10" / "stat"
    said, lines = stat.read_text(), CommandLines()
    monkeypatch.setattr(lines, "read", read)
    assert scan(os.fsencode(fake.root), commands=lines).unread == ()


def test_many_that_do_not_answer_are_not_all_waited_for(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 0.1)
    for pid in range(10, 60):
        fake.add(pid, SHIM, *TOLD, cwd=BUNDLE)
        stuck(fake, pid)
    watch = Stopwatch()
    assert len(fake.scan().unread) == 50
    assert watch.read() < 2


def test_no_child_to_read_with_is_no_answer_about_shims_alone(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise BlockingIOError

    fake.add(10, SHIM, *TOLD, cwd=BUNDLE)
    fake.add(11, "sleep", cgroup="/k8s.io/pod2")
    monkeypatch.setattr(os, "fork", fork)
    before = open_files()
    found = fake.scan()
    assert found.unread == (UnreadProcess(10, KEY),)
    assert "/k8s.io/pod2" in found.cgroup_paths
    assert open_files() <= before


def test_what_is_too_long_for_proc_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    path.write_bytes(b"x" * 100_000)
    assert len(process.read_whole(os.fsencode(path), most=100_000)) == 100_000
    with pytest.raises(OSError, match="too large"):
        process.read_whole(os.fsencode(path), most=99_999)


def test_a_real_shim_is_found_however_many_pretend(world: World) -> None:
    script = world.base / "containerd-shim-runc-v2"
    script.write_text("#!/bin/sh\necho\nread x\n")
    script.chmod(0o755)
    id_ = world.base.name
    words = (f"./{script.name}", "-namespace", "test", "-id", id_, "-address", "/x.sock")
    world.base.chmod(0o755)
    pretenders = {world.start(*words, cwd=world.base, user=65534) for _ in range(5)}
    pid = world.start(str(script), *words[1:])
    key = BundleKey("test", id_)
    found = scan()
    assert ShimProcess(key, pid, "/x.sock") in found.shims
    assert pretenders.isdisjoint(shim.pid for shim in found.shims)
    end(pid)
    assert key not in {shim.key for shim in scan().shims}


@pytest.mark.fault("one process in D state")
@private_mounts
def test_a_shim_stuck_in_the_kernel_is_named_and_nobody_waits_for_it(tmp_path: Path) -> None:
    """As on a node where `ps` hangs."""
    with hostile.silent(tmp_path, privileged=True) as pid:
        watch = Stopwatch()
        lines = CommandLines()
        found = scan(commands=lines)
        assert found.answered
        assert UnreadProcess(pid, None) in found.unread
        assert UnreadProcess(pid, None) in scan(commands=lines).unread
        assert watch.read() < 2 * commands.PATIENCE


@pytest.mark.fault("a process whose cmdline cannot be read at all")
@private_mounts
def test_somebody_stuck_who_calls_himself_a_shim_costs_nothing(tmp_path: Path) -> None:
    with hostile.silent(tmp_path) as pid:
        watch = Stopwatch()
        found = scan()
        assert found.answered
        assert pid not in {one.pid for one in found.unread}
        assert watch.read() < commands.PATIENCE


@pytest.mark.fault("argv of gigabytes")
def test_a_command_line_of_gigabytes_costs_nothing() -> None:
    with hostile.attacked(hostile.endless_words, 64) as pid:
        watch = Stopwatch()
        found = scan()
        assert found.answered
        assert pid not in {one.pid for one in found.unread}
        assert watch.read() < 1
