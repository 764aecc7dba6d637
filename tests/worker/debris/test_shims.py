"""A living shim without a bundle is ended, and whoever may be served keeps it."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.model.debris import DebrisKind, DebrisResult, Place, PlaceKey
from reconciler.model.evidence import Answer, Containerd, ContainerdState
from reconciler.model.ids import Identity
from reconciler.model.outcome import Result
from reconciler.model.policy import DebrisAction, Match, Policies, Policy, Rule, Shims
from reconciler.worker.debris import clean
from reconciler.worker.inventory import take
from reconciler.worker.messages import DebrisJob
from tests.support.inline import InlineWorker, inline_worker
from tests.support.mountns import private_mounts
from tests.support.shims import living_shim

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


@private_mounts
def test_a_shim_that_has_lost_its_bundle_is_ended_unless_somebody_may_need_it(short: Path) -> None:
    with inline_worker(short) as (site, inline):
        bundle = site.bundle("pod", mounted=False)
        pod = {"io.kubernetes.cri.sandbox-id": bundle.key.id}
        address = os.fsdecode(site.layout.address)
        with living_shim(bundle.path, bundle.socket, address) as shim:
            shutil.rmtree(bundle.path)
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
