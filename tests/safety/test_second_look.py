"""What comes to life after it was judged dead is not removed; without a second look it would be.

The whole program watches a dead bundle, judges it and asks its cleaner to remove it. Just then the
task lives again, in the same directory: a shim listens, an init runs. Nobody has told the engine.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typing_extensions import override

from reconciler.demo.node import Processes
from reconciler.model.debris import DebrisResult, Place
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Containerd, Node
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.outcome import Outcome, Result
from reconciler.ports import Cleaner, Permit
from tests.safety.blind import blind_workers
from tests.safety.ground import Ground, Live, ground, name_init
from tests.safety.watched import Watched, run
from tests.support.bundles import Bundle
from tests.support.mountns import private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]


@dataclass
class Late(Cleaner):
    """A cleaner that is slow: something happens before it begins."""

    ours: Cleaner
    meanwhile: Callable[[], None]

    @override
    async def clean(
        self,
        key: BundleKey,
        identity: Identity,
        node: Node,
        permit: Permit,
        *,
        wanted: Verdict = Verdict.LEFTOVER,
        patient: bool = False,
    ) -> Outcome:
        if wanted is Verdict.LEFTOVER:
            self.meanwhile()
        return await self.ours.clean(key, identity, node, permit, wanted=wanted, patient=patient)

    @override
    async def finish(self, key: BundleKey, identity: Identity, permit: Permit) -> Outcome:
        return await self.ours.finish(key, identity, permit)

    @override
    async def clean_debris(
        self, places: tuple[Place, ...], containerd: Containerd, permit: Permit
    ) -> tuple[DebrisResult, ...]:
        return await self.ours.clean_debris(places, containerd, permit)


def revive(on: Ground, processes: Processes, bundle: Bundle) -> None:
    """Let a dead task live, in the same directory."""
    if bundle.key in {one.bundle.key for one in on.live}:
        return
    namespace, name, _ = bundle.key
    bundle.socket.unlink()
    address = os.fsdecode(on.site.layout.address)
    shim = processes.shim(
        namespace, name, address, os.fsencode(bundle.socket), os.fsencode(bundle.path)
    )
    init = processes.init(name)
    name_init(bundle, init)
    for group in bundle.cgroups:
        if "cpuset" not in group.parts:
            (group / "cgroup.procs").write_text(str(init.pid))
    on.live.append(Live(bundle, shim, init))
    on.remember()


def harmed(base: Path) -> tuple[list[str], Outcome]:
    """Let a task live again just before the cleaner begin; give the harm, and what came of it."""
    with ground(base) as on, Processes() as processes:
        task = on.dead("task")

        def until(watched: Watched) -> bool:
            return task.path.name in watched.done

        watched = run(
            on, until, cleaner=lambda ours: Late(ours, lambda: revive(on, processes, task))
        )
        assert len(on.live) == 3, "it was never asked for"
        return on.harm(), watched.done[task.path.name][0]


@pytest.mark.fault("I6", "id created again between look and action")
@private_mounts
def test_a_task_that_lives_again_at_the_last_moment_is_untouched(tmp_path: Path) -> None:
    harm, outcome = harmed(tmp_path)
    assert harm == []
    assert outcome.result is Result.SKIPPED, outcome
    assert "running" in outcome.detail


@pytest.mark.fault("control: no second look")
@private_mounts
def test_without_a_second_look_it_is_lost(tmp_path: Path) -> None:
    with blind_workers():
        harm, outcome = harmed(tmp_path)
    assert harm, f"nothing was lost, so the second look proves nothing: {outcome}"
