"""What an unprivileged neighbour does costs a cleanup twice its time at most, and nobody anything.

Each attack runs as user 65534 without groups, capabilities or a way to get any
(`tests.support.hostile`), beside the real program and a pile of dead bundles. In small here, in
large with `make soak`.
"""

import fcntl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from tests.safety.ground import NOW, Ground, environment, ground
from tests.safety.watched import LAG, Watched, run
from tests.support import given_cgroups, hostile
from tests.support.bundles import Bundle
from tests.support.fake_containerd import FakeContainerd
from tests.support.mountns import in_private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

PILE = 16
RSS = 128 << 20
SLACK = 0.3
"""Seconds by which a run may differ from the one before it on a machine that does other things."""
MEASURED = 3
"""How often a pace that is too slow is measured: two of three are no bad moment of the machine."""

Attack = Callable[[Ground, Sequence[Bundle]], AbstractContextManager[int]]


@dataclass(frozen=True)
class Ran:
    """How a cleanup ended, and what it took."""

    code: int
    seconds: float
    rss: int
    err: str


MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Calls the program from a small process: what a child had before its exec counts as its own."""


def clean(on: Ground) -> Ran:
    """Run `clean`; its memory is that of its largest process."""
    log = on.site.base / "log"
    with log.open("wb") as err:
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MEASURE, *on.words("clean", *NOW)],
            env=environment(on.programs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            cwd="/",
            check=False,
        )
        took = time.monotonic() - begun
    rss = int(done.stdout.split()[-1])
    return Ran(done.returncode, took, rss << 10, log.read_text())


@contextmanager
def containerd(on: Ground) -> Iterator[None]:
    """Have a containerd that answers and holds its lock: this process, in a thread of its own."""
    fake = FakeContainerd(on.site.base)
    fake.layout = on.site.layout
    fake.tasks = {one.bundle.key for one in on.live}
    with (
        open(on.site.layout.metadata_lock, "rb") as lock,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(fake),
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pile(on: Ground, name: str) -> list[Bundle]:
    return [on.dead(f"{name}-{number}") for number in range(PILE)]


def silent(on: Ground, _: Sequence[Bundle]) -> AbstractContextManager[int]:
    place = on.site.base / "stuck"
    place.mkdir()
    return hostile.silent(place)


def pretend(on: Ground, bundles: Sequence[Bundle], *, count: int) -> AbstractContextManager[int]:
    ids = [one.path.name for one in bundles]
    return hostile.attacked(hostile.pretend, count, 1, "default", *ids)


def own_namespaces(on: Ground, bundles: Sequence[Bundle]) -> AbstractContextManager[int]:
    bundle = bundles[0].path
    return hostile.attacked(hostile.own_namespaces, "default", bundle.name, cwd=bundle)


def lock_files(on: Ground, _: Sequence[Bundle]) -> AbstractContextManager[int]:
    return hostile.attacked(hostile.lock_files, on.site.base, on.site.run)


def fill_cgroups(_on: Ground, _: Sequence[Bundle]) -> AbstractContextManager[int]:
    return given_cgroups.filled(60)


def many(attack: hostile.Attack, count: int) -> Attack:
    return lambda _on, _bundles: hostile.attacked(attack, count)


ATTACKS: dict[str, tuple[str, Attack]] = {
    "words": ("argv of gigabytes", many(hostile.endless_words, 64)),
    "silent": ("a process whose cmdline cannot be read at all", silent),
    "locks": ("300,000 POSIX locks", many(hostile.many_locks, 20_000)),
    "pretend": ("argv that says shim, with any namespace and id", partial(pretend, count=45)),
    "namespaces": ("a pretended shim in its own user and mount namespace", own_namespaces),
    "handles": ("a million open descriptors", many(hostile.many_handles, 50_000)),
    "flock": ("flock on all files it may read, beside a pile", lock_files),
    "processes": ("very many processes", many(hostile.many_processes, 200)),
    "mounts": ("mounts in namespaces of anybody's own", many(hostile.many_mounts, 500)),
    "cgroups": ("megabytes of cgroup paths", fill_cgroups),
}

LARGE: dict[str, tuple[str, Attack]] = {
    "all locks": ("300,000 POSIX locks", many(hostile.many_locks, 300_000)),
    "all pretend": ("argv that says shim, with any namespace and id", partial(pretend, count=1000)),
    "all handles": ("a million open descriptors", many(hostile.many_handles, 1_000_000)),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name",
    [
        *[pytest.param(name, marks=pytest.mark.fault(row)) for name, (row, _) in ATTACKS.items()],
        *[
            pytest.param(name, marks=[pytest.mark.slow, pytest.mark.fault(row)])
            for name, (row, _) in LARGE.items()
        ],
    ],
)
def test_a_pile_is_cleaned_beside_it(tmp_path: Path, name: str) -> None:
    _, attack = (ATTACKS | LARGE)[name]
    in_private_mounts(lambda: _beside(tmp_path, attack), 290.0)


def _beside(base: Path, attack: Attack) -> None:
    with ground(base) as on, containerd(on):
        slow: list[tuple[Ran, Ran]] = []
        for number in range(MEASURED):
            pile(on, f"alone{number}")
            alone = clean(on)
            assert alone.code == 0, alone
            bundles = pile(on, f"beside{number}")
            with attack(on, bundles):
                beside = clean(on)
                assert beside.code == 0, beside
                assert [one.left() for one in bundles if one.left()] == []
                assert beside.rss < RSS, beside
                if number == 0:
                    others = pile(on, "others")
                    watched = run(on, partial(_are_cleaned, others))
                    assert watched.lag < LAG
            assert on.harm() == []
            if beside.seconds < 2 * alone.seconds + SLACK:
                break
            slow.append((alone, beside))
            assert len(slow) < MEASURED - 1, slow


@pytest.mark.fault("megabytes of cgroup paths")
def test_more_paths_of_cgroups_than_can_be_told_keep_nobodys_bundle(tmp_path: Path) -> None:
    in_private_mounts(lambda: _beside_cgroups(tmp_path))


def _beside_cgroups(base: Path) -> None:
    with ground(base) as on, containerd(on), given_cgroups.filled(290):
        bundles = pile(on, "beside")
        beside = clean(on)
        assert beside.code == 0, beside
        assert [one.left() for one in bundles if one.left()] == []
        assert beside.rss < RSS, beside
        others = pile(on, "others")
        watched = run(on, partial(_are_cleaned, others))
        assert watched.lag < LAG
        assert on.harm() == []


def _are_cleaned(bundles: Sequence[Bundle], watched: Watched) -> bool:
    return watched.cleaned(*bundles)


# ------------------------------------------------------------------------------- a sick node


@pytest.mark.fault("one process in D state")
def test_a_real_shim_that_is_stuck_keeps_its_own_bundle_alone(tmp_path: Path) -> None:
    in_private_mounts(lambda: _stuck(tmp_path))


def _stuck(base: Path) -> None:
    with ground(base) as on, containerd(on):
        stuck, others = on.dead("stuck"), pile(on, "others")
        place = base / "stuck"
        place.mkdir()
        with hostile.silent(place, privileged=True, cwd=stuck.path) as pid:
            ran = clean(on)
            assert ran.code == 0, ran
            assert f"process {pid} may be the shim of {stuck.key}" in ran.err
            assert [one.left() for one in others if one.left()] == []
            assert stuck.path.exists()
            assert ran.seconds < 15
            assert on.run("scan", "-o", "json").verdicts()[stuck.path.name] == "unknown"
        assert clean(on).code == 0
        assert stuck.left() == []
        assert on.harm() == []


@pytest.mark.fault("one process in D state")
def test_where_a_stuck_one_could_be_anybodys_nothing_is_removed_and_that_is_said(
    tmp_path: Path,
) -> None:
    in_private_mounts(lambda: _stuck_anywhere(tmp_path))


def _stuck_anywhere(base: Path) -> None:
    with ground(base) as on, containerd(on):
        dead = on.dead("dead")
        place = base / "stuck"
        place.mkdir()
        with hostile.silent(place, privileged=True) as pid:
            ran = clean(on)
            assert ran.code == 70, ran
            assert f"process {pid} may be the shim of any bundle" in ran.err
        assert dead.path.exists()
        assert clean(on).code == 0
        assert dead.left() == []
        assert on.harm() == []
