"""A living shim without a bundle is ended, and whoever may be served keeps it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from msgspec.structs import replace

from reconciler.model.debris import DebrisKind, DebrisResult, Place, PlaceKey
from reconciler.model.evidence import Answer, Containerd, ContainerdState
from reconciler.model.ids import Identity
from reconciler.model.outcome import Result
from reconciler.model.policy import DebrisAction, Match, Policies, Policy, Rule, Shims
from reconciler.worker import context, shims
from reconciler.worker.blocked import Blocked
from reconciler.worker.debris import clean
from reconciler.worker.debris.runtime import target
from reconciler.worker.inventory import take
from reconciler.worker.messages import DebrisJob
from reconciler.worker.shims import end_shim
from reconciler.worker.signals import await_ends
from reconciler.worker.step_log import Tally
from tests.support.bundles import Site
from tests.support.inline import InlineWorker, inline_worker
from tests.support.mountns import private_mounts
from tests.support.shims import SHIM, living_shim, shell_named

pytestmark = pytest.mark.safety

UP = Containerd(ContainerdState.UP)
PLACE_KEY = PlaceKey(DebrisKind.SHIM, "1")


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory whose path leaves room for that of a socket (unix(7))."""
    return tmp_path_factory.mktemp("d")


def found(inline: InlineWorker, pid: int) -> Place:
    places = take(inline.place).places
    (place,) = [one for one in places if one.key.path == str(pid)]
    return place


def end(inline: InlineWorker, place: Place, said: Containerd = UP) -> DebrisResult:
    (result,) = clean(inline.place, DebrisJob((place,), said))
    return result


def as_containerd(bundle: Path) -> None:
    """Remove a bundle as containerd does: by a name that it does not list."""
    shutil.rmtree(bundle.rename(bundle.with_name(f".{bundle.name}")))


@pytest.mark.parametrize("remove", [shutil.rmtree, as_containerd])
@private_mounts
def test_a_shim_that_has_lost_its_bundle_is_ended_unless_somebody_may_need_it(
    short: Path, remove: Callable[[Path], None]
) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle("pod", mounted=False)
        pod = {"io.kubernetes.cri.sandbox-id": bundle.key.id}
        address = os.fsdecode(site.layout.address)
        with living_shim(bundle.path, bundle.socket, address) as shim:
            remove(bundle.path)
            place = found(inline, shim.pid)
            assert (place.lives, place.owned) == (Answer.NO, Answer.NO)

            listed = replace(UP, tasks=frozenset({bundle.key}))
            member = site.bundle("member", mounted=False, annotations=pod)
            for result in (
                end(inline, place, listed),
                end(inline, place, Containerd()),
                end(inline, replace(place, identity=Identity(0, shim.start + 1, 0))),
                end(inline, place),  # a container of its pod, however dead it is
            ):
                assert result.result in {Result.SKIPPED, Result.BLOCKED}, result
                assert sum(step.mutations for step in result.steps) == 0
            assert f"may serve {member.key}" in end(inline, place).detail
            shutil.rmtree(member.path)

            bundle.path.mkdir()
            assert end(inline, place).result is Result.SKIPPED
            bundle.path.rmdir()
            assert shim.process.poll() is None

            result = end(inline, place)
            assert result.result is Result.CLEANED, result
            assert shim.process.wait(5) == -signal.SIGTERM
            assert end(inline, place).result is Result.SKIPPED


@private_mounts
def test_a_shim_stays_while_its_bundle_is_removed_or_anybody_is_left_of_it(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle("pod", mounted=False)
        address = os.fsdecode(site.layout.address)
        with living_shim(bundle.path, bundle.socket, address) as shim:
            hidden = bundle.path.rename(bundle.path.with_name(f".{bundle.key.id}"))
            kinds = {one.key.kind for one in take(inline.place).places}
            assert DebrisKind.SHIM not in kinds, "the bundle is not removed yet"
            shutil.rmtree(hidden)
            assert (place := found(inline, shim.pid)).lives is Answer.NO
            scans = inline.place.scan(anew=True, whole=True)
            for left in (
                replace(scans, cgroup_names=frozenset({bundle.key.id})),
                replace(scans, cgroup_paths=frozenset({f"/{bundle.key}"})),
                replace(scans, unplaced=1),
                replace(scans, helpers=frozenset({bundle.key})),
            ):
                with mock.patch.object(context, "scan", lambda *_a, _l=left, **_k: _l):
                    assert end(inline, place).result in {Result.SKIPPED, Result.BLOCKED}, left
            assert shim.process.poll() is None
            assert end(inline, place).result is Result.CLEANED


@private_mounts
def test_a_shim_with_a_child_serves_somebody(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle(mounted=False)
        address = os.fsdecode(site.layout.address)
        with living_shim(bundle.path, bundle.socket, address) as shim:
            shutil.rmtree(bundle.path)
            place = found(inline, shim.pid)
        with living_shim(
            site.bundle("c2", mounted=False).path, bundle.socket, address, before="sleep 600 &"
        ) as shim:
            shutil.rmtree(site.tree / "default")
            pid = replace(place.key, path=str(shim.pid))
            assert end(inline, replace(place, key=pid)).result is Result.SKIPPED
            assert shim.process.poll() is None


@private_mounts
def test_another_runtimes_shim_without_a_bundle_is_no_debris(short: Path) -> None:
    """A virtual machine is no child of its shim, and needs no bundle that we can see."""
    with inline_worker(short) as (site, inline):
        bundle = site.bundle("vm", mounted=False)
        address, kata = os.fsdecode(site.layout.address), "containerd-shim-kata-v2"
        with living_shim(bundle.path, bundle.socket, address) as shim:
            shutil.rmtree(bundle.path)
            place = found(inline, shim.pid)
        bundle.path.mkdir()
        with living_shim(bundle.path, bundle.socket, address, program=kata) as shim:
            bundle.path.rmdir()
            assert DebrisKind.SHIM not in {one.key.kind for one in take(inline.place).places}
            key = replace(place.key, path=str(shim.pid))
            known = replace(place, key=key, identity=Identity(0, shim.start, 0))
            assert end(inline, known).result is not Result.CLEANED
            with pytest.raises(Blocked, match="is not runc's shim"):
                end_shim(inline.place, target(known), Tally(), lambda: None)
            assert shim.process.poll() is None


@private_mounts
def test_a_shim_that_is_given_a_member_while_it_may_end_is_not_killed(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle("pod", mounted=False)
        pod = {"io.kubernetes.cri.sandbox-id": bundle.key.id}
        address = os.fsdecode(site.layout.address)
        waits = await_ends

        def meanwhile(pidfds: tuple[int, ...], _: int) -> bool:
            site.bundle("member", mounted=False, annotations=pod)
            return waits(pidfds, 50)

        with living_shim(bundle.path, bundle.socket, address, before="trap '' TERM") as shim:
            shutil.rmtree(bundle.path)
            place = found(inline, shim.pid)
            with mock.patch.object(shims, "await_ends", meanwhile):
                result = end(inline, place)
            assert (result.result, "may serve" in result.detail) == (Result.BLOCKED, True), result
            assert shim.process.poll() is None


_ELSEWHERE = """
import os, socket, subprocess, sys
from pathlib import Path
from tests.support import mountns
mountns.enter_private_mounts()
run, bundle, door, shell, address = sys.argv[1:]
mountns.tmpfs(Path(run))
os.makedirs(bundle)
os.makedirs(os.path.dirname(door), exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(door)
listener.listen()
name = os.path.basename(shell)
says = f"printf {name} >/proc/$$/comm; echo $$; read _"
words = ["-namespace", "default", "-id", "pod", "-address", address]
os.chdir(bundle)
os.set_inheritable(listener.fileno(), True)
os.rmdir(bundle)
os.execv(shell, [name, "-c", says, *words])
"""


@contextmanager
def shim_elsewhere(site: Site, below: Path) -> Iterator[int]:
    """Have a shim of another containerd without a bundle: the same paths, other objects there."""
    bundle = site.tree / "default" / "pod"
    door, address = site.layout.shim_socket("default", "pod"), site.layout.address
    with shell_named(SHIM) as shell:
        given = [below, bundle, os.fsdecode(door), shell, os.fsdecode(address)]
        other = subprocess.Popen(
            [sys.executable, "-c", _ELSEWHERE, *map(str, given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert other.stdout is not None
        try:
            yield int(other.stdout.readline())
            assert other.poll() is None, "the shim of another containerd was ended"
        finally:
            other.kill()
            other.communicate()


@pytest.mark.parametrize("below", ["", "io.containerd.runtime.v2.task/default"])
@private_mounts
def test_another_containerds_shim_at_the_same_paths_lives(short: Path, below: str) -> None:
    """In another mount namespace each path may lead to another object, a namespace's alone, too."""
    with inline_worker(short) as (site, inline):
        (site.tree / "default").mkdir()
        with shim_elsewhere(site, site.run / below) as pid:
            place = found(inline, pid)
            assert place.lives is Answer.NONE
            assert end(inline, place).result is Result.SKIPPED
            with pytest.raises(Blocked, match="was removed"):
                end_shim(inline.place, target(place), Tally(), lambda: None)


def test_shims_go_by_what_is_said_of_shims() -> None:
    place = Place(PLACE_KEY, Identity(0, 1, 0), "ns", "id")
    ends, cleans = Policy(enforce=True, shims=Shims.KILL), Policy(enforce=True)
    assert Policies(default=ends).objection_to_debris(place) == ""
    for default in (cleans, replace(cleans, debris=DebrisAction.CLEAN), Policy(shims=Shims.KILL)):
        assert Policies(default=default).objection_to_debris(place)
    rule = Rule(Match(namespace="ns"), replace(ends, name="r", debris=DebrisAction.REPORT))
    assert Policies(default=ends, rules=(rule,)).objection_to_debris(place)
    rule = Rule(Match(namespace="ns"), replace(ends, name="r", protect=True))
    assert Policies(default=ends, rules=(rule,)).objection_to_debris(place)
