"""State on a disk after a boot: pids of another boot say nothing, where that is certain.

The tree is an ext4 on a loop device. Everything that was in memory is gone, as it is after a boot:
mounts, cgroups, runc's state, sockets. Each bundle's pid is by now a living process's.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from reconciler import kernel
from reconciler.daemon.remembering import BootRecord
from reconciler.model.evidence import InitState, Look
from reconciler.model.layout import Layout
from reconciler.model.outcome import Outcome, Result
from reconciler.probe import boots
from reconciler.probe.boots import Born, Record
from reconciler.probe.tree import TreeInspector
from reconciler.worker.messages import WorkerScope
from tests.support.bundles import Bundle, Site, identify, site
from tests.support.inline import InlineWorker, assert_cleaned
from tests.support.mountns import private_mounts
from tests.worker.test_sandboxes import Sandbox
from tests.worker.test_sandboxes import clean as clean_sandbox

pytestmark = pytest.mark.safety

ANOTHER = "0b8a5d0e-another-boot"
LONG_AGO = 1_500_000_000


@dataclass
class Disk:
    """A site whose state is on a disk, and the bundle on it whose pid was given out again."""

    made: Site
    layout: Layout
    bundle: Bundle
    pid: int

    def record(
        self, boot: str = ANOTHER, seen: Born | None = None, version: int = boots.VERSION
    ) -> None:
        """Write down, as a daemon of a boot would, that the bundle was seen in it."""
        there = kernel.statx(kernel.AT_FDCWD, os.fsencode(self.bundle.path))
        born = seen or boots.born(self.bundle.key, there)
        assert born is not None
        self.write(msgspec.json.encode(Record(version, boot, [born])))

    def write(self, data: bytes) -> None:
        path = Path(os.fsdecode(self.layout.boots))
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)

    def restore(self) -> None:
        """Put back what a test has spoilt."""
        Path(os.fsdecode(self.layout.boots)).unlink(missing_ok=True)
        os.utime(self.bundle.path / "init.pid", (LONG_AGO, LONG_AGO))
        shutil.rmtree(self.bundle.runc_state, ignore_errors=True)

    def init(self) -> InitState:
        look = TreeInspector(self.layout).look(self.bundle.key)
        assert isinstance(look, Look)
        return look.init.state

    def clean(self) -> Outcome:
        worker = InlineWorker(self.made)
        worker.bind(WorkerScope(self.layout))
        return worker.clean(self.bundle)


@contextmanager
def disk(base: Path) -> Iterator[Disk]:
    """Give a dead bundle on a disk, a boot later."""
    with site(base) as made:
        image = base / "disk"
        with image.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, made.run], check=True)
        for directory in (made.layout.tasks, made.layout.sockets):
            os.makedirs(directory)
        bundle = made.bundle(mounted=False, cgroups=False)
        for gone in (bundle.runc_state / "state.json", bundle.runc_state, bundle.socket):
            gone.rmdir() if gone.is_dir() else gone.unlink()
        # A process in a mount namespace of its own might be anybody's container.
        with subprocess.Popen(["unshare", "-m", "sleep", "600"]) as process:
            (bundle.path / "init.pid").write_text(str(process.pid))
            os.utime(bundle.path / "init.pid", (LONG_AGO, LONG_AGO))
            bundle = replace(bundle, identity=identify(bundle.path))
            layout = msgspec.structs.replace(
                made.layout, boots=os.fsencode(base / "own" / "boots.json")
            )
            try:
                yield Disk(made, layout, bundle, process.pid)
            finally:
                process.kill()


@private_mounts
def test_pids_of_an_earlier_boot_are_void(tmp_path: Path) -> None:
    with disk(tmp_path) as it:
        it.record()
        assert it.init() is InitState.DEAD
        assert_cleaned(it.clean(), it.bundle)
        os.kill(it.pid, 0)


def _nothing(it: Disk) -> None:
    """Nobody has written anything down: the file times are old, and a clock can be set."""
    assert not os.path.exists(it.layout.boots)


def _of_this_boot(it: Disk) -> None:
    it.record(boots.boot_id())


def _made_anew(it: Disk) -> None:
    seen = os.stat(it.bundle.path)
    it.record(seen=Born(it.bundle.key.namespace, it.bundle.key.id, seen.st_ino, 1))


def _of_another_name(it: Disk) -> None:
    seen = kernel.statx(kernel.AT_FDCWD, os.fsencode(it.bundle.path))
    it.record(seen=Born("default", "another", seen.ino, seen.btime_ns))


def _written_since(it: Disk) -> None:
    it.record()
    os.utime(it.bundle.path / "init.pid")


def _runtime_remembers(it: Disk) -> None:
    """Its state is in memory, so this boot has made it; without a start time nobody is refuted."""
    it.record()
    it.bundle.runc_state.mkdir()
    (it.bundle.runc_state / "state.json").write_text("{")


def _open_to_others(it: Disk) -> None:
    it.record()
    os.chmod(it.layout.boots, 0o622)  # noqa: S103 - that it is so is the point


def _torn(it: Disk) -> None:
    it.write(b'{"version":1,"boot":"x","seen":[["default"')


def _of_another_version(it: Disk) -> None:
    it.record(version=boots.VERSION + 1)


def _without_a_boot(it: Disk) -> None:
    it.record("")


SPOILS: tuple[Callable[[Disk], None], ...] = (
    _nothing,
    _of_this_boot,
    _made_anew,
    _of_another_name,
    _written_since,
    _runtime_remembers,
    _open_to_others,
    _torn,
    _of_another_version,
    _without_a_boot,
)


@private_mounts
def test_what_is_not_certain_stays_unknown(tmp_path: Path) -> None:
    with disk(tmp_path) as it:
        for spoil in SPOILS:
            spoil(it)
            assert it.init() is InitState.NONE, spoil.__name__
            outcome = it.clean()
            assert outcome.result is Result.SKIPPED, (spoil.__name__, outcome)
            it.restore()
        it.record()
        assert it.init() is InitState.DEAD, "nothing was spoilt for good"


@private_mounts
def test_a_sandbox_goes_after_its_member_whoever_has_that_ones_pid(tmp_path: Path) -> None:
    """It has no pid of its own, and containerd keeps its records of sandboxes over a boot."""
    with disk(tmp_path) as it:
        pod = Sandbox(it.made, it.made.unique("pod"))
        pod.socket.unlink()
        (it.bundle.path / "sandbox").write_text(pod.key.id)
        worker = InlineWorker(it.made)
        worker.bind(WorkerScope(it.layout))

        def clean(*, kept: bool = False) -> Result:
            return clean_sandbox(worker, pod.key, pod.path, kept=kept).result

        everything = pod.left()
        assert it.clean().result is Result.SKIPPED, "a living process may be its init"
        assert clean() is Result.SKIPPED, "its member may live"
        it.record()
        assert clean() is Result.SKIPPED, "its member goes first"
        assert it.clean().result is Result.CLEANED
        assert clean(kept=True) is Result.SKIPPED, "containerd may start it again"
        assert pod.left() == everything
        assert clean() is Result.CLEANED
        assert pod.left() == []
        os.kill(it.pid, 0)


@private_mounts
def test_on_a_tmpfs_no_record_counts(tmp_path: Path) -> None:
    with disk(tmp_path) as it:
        it.record()
        subprocess.run(["umount", "-l", it.made.run], check=True)
        path = it.bundle.path
        path.mkdir(parents=True)
        (path / "init.pid").write_text(str(it.pid))
        os.utime(path / "init.pid", (LONG_AGO, LONG_AGO))
        it.record()
        assert it.init() is InitState.NONE


@private_mounts
def test_a_daemon_writes_down_what_it_sees_and_what_is_left_of_earlier_boots(
    tmp_path: Path,
) -> None:
    with disk(tmp_path) as it:
        other = it.made.bundle("c2", mounted=False, cgroups=False)
        there = [(one.key, identify(one.path)) for one in (it.bundle, other)]

        def told(boot: str) -> set[str]:
            return {one.id for one in boots.read(it.layout.boots, boot)}

        now = boots.boot_id()
        BootRecord(it.layout, now).write(there[:1])
        assert told(now) == set()
        assert told(ANOTHER) == {it.bundle.key.id}
        # The file is as a boot before this one left it.
        it.record()
        record = BootRecord(it.layout, now)
        record.write(there)
        assert told(now) == {it.bundle.key.id}
        assert told(ANOTHER) == {it.bundle.key.id, other.key.id}
        before = os.stat(it.layout.boots)
        record.write(there)
        assert os.stat(it.layout.boots).st_ino == before.st_ino, "nothing has changed"
        # Another object by now, and gone: neither was there in an earlier boot.
        shutil.rmtree(it.bundle.path)
        record.write(there[1:])
        assert told(now) == set()
        assert told(ANOTHER) == {other.key.id}


@private_mounts
def test_a_daemon_that_was_thawed_in_another_boot_writes_nothing(tmp_path: Path) -> None:
    with disk(tmp_path) as it:
        record = BootRecord(it.layout, ANOTHER)
        record.write([(it.bundle.key, it.bundle.identity)])
        assert not os.path.exists(it.layout.boots)
        assert it.init() is InitState.NONE
