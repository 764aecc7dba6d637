"""What containerd knows of a shim at all: only "not found", to every question, is a denial."""

from collections.abc import Iterable
from pathlib import Path

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from reconciler.containerd import records
from reconciler.containerd.answers import Singles
from reconciler.model.containerd import ShimGroup
from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.ids import BundleKey
from tests.support.asking import ask
from tests.support.fake_containerd import CONTAINER, GET, SANDBOX, FakeContainerd

pytestmark = pytest.mark.safety

WEB, POD, APP = (BundleKey("k8s.io", name) for name in ("web", "pod", "app"))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContainerd:
    monkeypatch.setattr(records, "ALONE", 0.3)
    fake = FakeContainerd(tmp_path)
    fake.version, fake.sandboxes, fake.namespaces = "2.1.9", set(), {"k8s.io"}
    return fake


async def said_of(fake: FakeContainerd, *groups: ShimGroup) -> Containerd:
    async with fake:
        with fake.lock(), anyio.fail_after(10):
            return await ask(fake.layout, singles=Singles(shims=lambda: groups))


def assert_known(said: Containerd, known: Iterable[BundleKey], denied: Iterable[BundleKey]) -> None:
    assert said.state is ContainerdState.UP
    assert said.recorded == frozenset(known)
    assert said.unrecorded == frozenset(denied)


async def test_nothing_is_asked_where_no_shim_may_be_leaked(fake: FakeContainerd) -> None:
    said = await said_of(fake)
    assert_known(said, (), ())
    assert {method for method, _ in fake.calls}.isdisjoint({GET, CONTAINER, SANDBOX})


async def test_only_a_group_of_which_every_name_is_denied_is_unknown(fake: FakeContainerd) -> None:
    assert_known(await said_of(fake, (WEB,), (POD, APP)), (), (WEB, POD, APP))
    fake.containers = {APP}
    assert_known(await said_of(fake, (WEB,), (POD, APP)), (POD, APP), (WEB,))
    fake.containers, fake.sandboxes = set(), {POD}
    assert_known(await said_of(fake, (WEB,), (APP, POD)), (POD, APP), (WEB,))
    fake.sandboxes, fake.tasks = set(), {POD}
    assert_known(await said_of(fake, (WEB,), (APP, POD)), (POD, APP), (WEB,))


@pytest.mark.parametrize("method", [GET, CONTAINER, SANDBOX])
async def test_whatever_is_no_answer_is_no_denial(fake: FakeContainerd, method: str) -> None:
    for status in (Status.UNAVAILABLE, Status.UNIMPLEMENTED, Status.UNKNOWN):
        fake.errors = {method: GRPCError(status, "no")}
        assert_known(await said_of(fake, (WEB,)), (), ())
    fake.errors, fake.delays = {}, {method: 60.0}
    assert_known(await said_of(fake, (WEB,), (POD,)), (), ())
    fake.delays, fake.drops = {}, {method}
    assert_known(await said_of(fake, (WEB,)), (), ())


async def test_a_missing_store_of_sandboxes_is_none_only_where_there_was_none_yet(
    fake: FakeContainerd,
) -> None:
    fake.sandboxes = None
    for version, denied in (("1.6.20~ds1", (WEB,)), ("v1.7.24", ()), ("2.1.9", ()), ("dev", ())):
        fake.version = version
        assert_known(await said_of(fake, (WEB,)), (), denied)
