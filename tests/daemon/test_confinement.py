"""What the parent of a daemon can do once confined, and that it and its workers still work."""

import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from reconciler import kernel
from reconciler.daemon.confinement import Confinement, confine
from reconciler.errors import ConfigError
from reconciler.kernel import confine as giving_up
from reconciler.model.evidence import InitState, Look, PartialLook
from reconciler.model.layout import Layout
from reconciler.model.observations import Guard
from reconciler.model.outcome import Result
from reconciler.probe.privileges import PARENT, WORKER, numbers
from reconciler.probe.tree import TreeInspector
from reconciler.worker.guards import Preflight, refusals
from reconciler.worker.messages import PreflightReport, WorkerScope
from reconciler.worker.pool import WorkerPool
from tests.support import bundles, mountns
from tests.support.bundles import DOWN, Bundle
from tests.support.forked import REFUSED, in_a_child, mask, outcome, status_of
from tests.support.mountns import private_mounts
from tests.worker.test_orphans import name_init, workload

MAPPED = 100_000
"""The root of a container with a user namespace, as the machine sees it."""

with_landlock = pytest.mark.skipif(
    not giving_up.landlock_abi(), reason="this kernel has no Landlock, or does not let us use it"
)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def own(base: Path) -> dict[str, str]:
    """The environment that names our own directory."""
    return {"RUNTIME_DIRECTORY": str(base / "own"), "RECONCILER_LOCK_DIR": str(base / "own")}


def confined(made: bundles.Site, pool: WorkerPool, journal: str = "") -> Confinement:
    return confine(pool, made.layout, journal, own(made.base))


def run(main: Callable[[bundles.Site, WorkerPool], Awaitable[None]], base: Path) -> None:
    """Run it in a child, which may confine itself: we still have to remove the cgroups."""
    with bundles.site(base) as made:

        async def whole() -> None:
            async with WorkerPool(WorkerScope(made.layout)) as pool:
                await main(made, pool)

        in_a_child(lambda: anyio.run(whole))


def give_to(bundle: Bundle, uid: int) -> Bundle:
    """Have it belong to a user of its own, as a container with a user namespace does."""
    for path in (bundle.path, *bundle.path.rglob("*"), bundle.socket):
        if bundle.rootfs not in path.parents:
            os.chown(path, uid, uid, follow_symlinks=False)
    bundle.path.chmod(0o700)
    bundle.socket.chmod(0o600)
    return bundle


# ---------------------------------------------------------------------- what it cannot do any more


def attempts(made: bundles.Site, bundle: Bundle) -> dict[str, int]:
    """Try what a daemon that somebody has taken over might try on a bundle."""
    path, tree = bundle.path, bundle.path.parent
    return {
        "umount": outcome(lambda: kernel.umount2(bytes(bundle.rootfs), kernel.UMOUNT_NOFOLLOW)),
        "detach": outcome(lambda: kernel.umount2(bytes(bundle.rootfs), kernel.MNT_DETACH)),
        "mount": outcome(lambda: mountns.tmpfs(made.base / "lib")),
        "truncate": outcome(lambda: os.truncate(path / "config.json", 0)),
        "write": outcome(lambda: os.close(os.open(path / "address", os.O_WRONLY))),
        "mkdir": outcome(lambda: os.mkdir(tree / "made")),
        "create": outcome(lambda: os.mknod(tree / "created")),
        "unlink": outcome(lambda: os.unlink(path / "init.pid")),
        "rmdir": outcome(lambda: os.rmdir(bundle.runc_state.parent / "empty")),
        "cgroup": outcome(lambda: os.rmdir(bundle.cgroups[0])),
        "rename": outcome(lambda: os.rename(path, tree / ".renamed")),
    }


def prey(made: bundles.Site) -> Bundle:
    bundle = made.bundle()
    (bundle.runc_state.parent / "empty").mkdir()
    return bundle


@with_landlock
@private_mounts
def test_the_parent_changes_nothing_any_more_and_a_worker_still_cleans(tmp_path: Path) -> None:
    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        bundle = prey(made)
        assert not confined(made, pool).trouble
        left = bundle.left()
        tried = attempts(made, bundle)
        assert set(tried.values()) <= REFUSED, tried
        assert bundle.left() == left
        assert bundle.mounts()
        done = await pool.clean(bundle.key, bundle.identity, DOWN)
        assert done.result is Result.CLEANED, done
        assert (bundle.left(), bundle.mounts()) == ([], [])

    run(main, tmp_path)


@private_mounts
def test_without_confinement_the_parent_can_do_all_of_it(tmp_path: Path) -> None:
    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        bundle = prey(made)
        tried = attempts(made, bundle)
        # After the first unmount there is nothing left to detach.
        assert tried.pop("detach") == errno.EINVAL
        assert set(tried.values()) == {0}, tried

    run(main, tmp_path)


@contextmanager
def waiting(script: str) -> Iterator[Callable[[], object]]:
    """Run a script from the moment it is told to; give what tells it."""
    with subprocess.Popen(
        ["sh", "-c", f"read go; {script}"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield lambda: process.communicate(b"go\n")


@with_landlock
@private_mounts
def test_it_writes_in_its_own_directory_and_leaves_the_journal_to_its_writer(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()

    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        holds = confined(made, pool, str(journal / "run.jsonl"))
        with waiting(f"echo line > {journal}/written; rm {journal}/old {tmp_path}/file") as go:
            (journal / "old").write_text("")
            holds.narrow()
            assert outcome(lambda: os.unlink(journal / "old")) in REFUSED
            go()
        assert os.listdir(journal) == ["written"]
        assert (tmp_path / "file").exists()
        (tmp_path / "own" / "checkpoint.new").write_text("checkpoint")
        os.replace(tmp_path / "own" / "checkpoint.new", tmp_path / "own" / "checkpoint.json")
        os.unlink(tmp_path / "own" / "checkpoint.json")

    (tmp_path / "file").write_text("precious")
    run(main, tmp_path)


@private_mounts
def test_every_process_holds_what_is_listed_and_nothing_else(tmp_path: Path) -> None:
    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        assert (await pool.scan()).answered
        confined(made, pool)
        found = status_of()
        kept = mask(numbers(PARENT))
        assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (kept, kept, kept)
        assert (found["CapInh"], found["CapAmb"], found["NoNewPrivs"]) == (0, 0, 1)
        assert pool.fork_server is not None
        held = mask(numbers(WORKER))
        (child,) = children(pool.fork_server)
        for pid in (pool.fork_server, child):
            found = status_of(pid)
            assert (found["CapPrm"], found["CapEff"]) == (held, held)
            assert (found["CapInh"], found["CapAmb"]) == (0, 0)

    run(main, tmp_path)


# ---------------------------------------------------------------------- what it still can


@private_mounts
def test_it_sees_what_it_saw_before(tmp_path: Path) -> None:
    """Of a running bundle, a dead one, and both of a container with users of its own."""

    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        dead, running_ = made.bundle("dead"), made.bundle("running")
        mapped, lives = give_to(made.bundle("mapped"), MAPPED), made.bundle("lives")
        with (
            workload(*running_.cgroups[:0]) as init,
            workload() as another,
            listening(running_.socket),
            listening(lives.socket),
        ):
            name_init(running_, init.pid)
            name_init(lives, another.pid)
            give_to(lives, MAPPED)
            inspector = TreeInspector(made.layout)
            keys = [one.key for one in (dead, running_, mapped, lives)]

            def looks() -> list[Look | PartialLook | None]:
                with inspector.moment():
                    return [inspector.look(key) for key in keys]

            before, listed = looks(), inspector.list()
            confined(made, pool)
            assert looks() == before
            assert inspector.list().bundles == listed.bundles
            assert (await pool.scan()).answered
            fresh = TreeInspector(made.layout)
            assert [fresh.look(key) for key in keys] == before
            whole = [look for look in before if isinstance(look, Look)]
            inits = [look.init.state for look in whole]
            assert len(inits) == 4
            assert inits[0] is inits[2] is InitState.DEAD
            for look in whole:
                assert look.mounts
                assert look.labels.known
            for closes in (inspector, fresh):
                closes.close()

    run(main, tmp_path)


@contextmanager
def listening(path: Path) -> Iterator[None]:
    path.unlink()
    listener = bundles.listen(path)
    try:
        yield
    finally:
        listener.close()


@private_mounts
def test_without_its_two_capabilities_it_would_be_blind(tmp_path: Path) -> None:
    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        mapped = give_to(made.bundle("mapped"), MAPPED)
        inspector = TreeInspector(made.layout)
        before = inspector.look(mapped.key)
        confined(made, pool)
        giving_up.drop_capabilities(())
        assert isinstance(before, Look)
        assert before.labels.known
        blind = inspector.look(mapped.key)
        assert blind is None or (isinstance(blind, Look) and not blind.labels.known)
        inspector.close()

    run(main, tmp_path)


@pytest.mark.fault("hidepid /proc")
@private_mounts
@pytest.mark.parametrize("options", ["hidepid=2,gid=4321", "hidepid=4"])
def test_a_process_that_is_hidden_from_it_is_no_answer(tmp_path: Path, options: str) -> None:
    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        with workload() as init:
            name_init(bundle, init.pid)
            mountns.mount("proc", "/proc", "proc", 0, options)
            inspector = TreeInspector(made.layout)
            before = inspector.look(bundle.key)
            confined(made, pool)
            after = inspector.look(bundle.key)
            inspector.close()
        assert isinstance(before, Look)
        assert isinstance(after, Look)
        assert before.init.state is not InitState.DEAD
        assert after.init.state is InitState.NONE

    run(main, tmp_path)


@private_mounts
def test_the_guards_still_measure_right(tmp_path: Path) -> None:
    """The listener is in our own namespaces; then another one stands elsewhere."""

    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        address = os.fsdecode(made.layout.address)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            confined(made, pool)
            assert await refused(made, pool) == []

    run(main, tmp_path)


async def refused(made: bundles.Site, pool: WorkerPool) -> list[Guard]:
    stood = await pool.preflight()
    assert isinstance(stood, PreflightReport)
    return [one.guard for one in refusals(Preflight(stood, made.layout.tasks, allow_disk=True))]


@private_mounts
def test_a_foreign_mount_namespace_is_still_refused(tmp_path: Path) -> None:
    """A containerd that listens from a mount namespace of its own."""

    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        address = os.fsdecode(made.layout.address)
        with elsewhere(address):
            confined(made, pool)
            assert await refused(made, pool) == [Guard.MOUNT_NAMESPACE]

    run(main, tmp_path)


@contextmanager
def elsewhere(address: str) -> Iterator[None]:
    """Listen from another mount namespace, until the end."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            mountns.enter_private_mounts()
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(address)
                listener.listen()
                os.write(told, b"x")
                signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"x"
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)


# ---------------------------------------------------------------------- how it is entered


def layout_in(base: Path) -> Layout:
    top = os.fsencode(base)
    for name in ("state", "root", "run"):
        (base / name).mkdir(exist_ok=True)
    return Layout(top + b"/state", top + b"/root", top + b"/c.sock", top + b"/run")


@pytest.mark.parametrize("where", ["", "state", "state/sub", "root", "run/x"])
def test_an_own_directory_that_is_containerds_is_refused(tmp_path: Path, where: str) -> None:
    layout = layout_in(tmp_path)
    environ = own(tmp_path) | {"RUNTIME_DIRECTORY": str(tmp_path / where)}
    with pytest.raises(ConfigError, match="overlaps containerd's"):
        confine(WorkerPool(WorkerScope(layout)), layout, "", environ)
    assert status_of()["NoNewPrivs"] == 0


@private_mounts
def test_a_second_thread_is_a_bug_and_not_overlooked(tmp_path: Path) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    layout = layout_in(tmp_path)
    try:
        with pytest.raises(RuntimeError, match="second thread"):
            confine(WorkerPool(WorkerScope(layout)), layout, "", own(tmp_path))
    finally:
        end.set()
        thread.join()


@private_mounts
def test_without_landlock_capabilities_are_dropped_all_the_same_and_it_is_told(
    tmp_path: Path,
) -> None:
    def missing(_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    async def main(made: bundles.Site, pool: WorkerPool) -> None:
        bundle = made.bundle()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(giving_up, "forbid_changes", missing)
            holds = confined(made, pool)
            holds.narrow()
        assert holds.trouble == "no Landlock: Function not implemented"
        assert holds.check().name == (
            "confined by capabilities alone (no Landlock: Function not implemented)"
        )
        assert holds.check().ok
        assert status_of()["CapEff"] == mask(numbers(PARENT))
        tried = attempts(made, bundle)
        assert {tried[name] for name in ("umount", "detach", "mount")} == {errno.EPERM}

    run(main, tmp_path)
