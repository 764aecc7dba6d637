"""A reload beside a loop in virtual time: whole or not at all, and never on older looks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import anyio
import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.assembly import KillableInspector, Opened
from reconciler.daemon import reloading
from reconciler.daemon.notify import Notifier, ServiceLog
from reconciler.daemon.readiness import Readiness
from reconciler.daemon.reloading import Configuration, Reachable, Reloader
from reconciler.loop import Loop
from reconciler.model.evidence import Look
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.model.observations import Listed
from reconciler.model.policy import Match, Policies, Policy, Rule
from reconciler.ports import Emit, Source
from reconciler.present.status import Reload
from reconciler.probe.tree import TreeInspector
from reconciler.settings.load import Loaded
from reconciler.settings.schema import Settings
from reconciler.setup import Setup
from reconciler.supervision import Supervisor
from reconciler.telemetry.lazy import structlog
from reconciler.telemetry.metrics import Metrics
from reconciler.worker.lock import InstanceLock
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import WorkerPool
from tests.decide.world import dead, key
from tests.support.fakes import FakeWatcher
from tests.support.rig import Rig

KEEP = Rule(Match(annotations=(("keep", "*"),)), Policy("keep", protect=True))
NEW = Policies(rules=(KEEP,), parallel=3)


SILENT = structlog.wrap_logger(structlog.ReturnLogger(), processors=[])


@dataclass
class Reloads(Source):
    """Reloads some times in a row, each into the same policies."""

    rig: Rig
    policies: Policies
    times: int = 1
    watch: Supervisor = field(default_factory=lambda: Supervisor(print))
    done: list[Reload] = field(default_factory=list)

    def __post_init__(self) -> None:
        rig, layout, origins = self.rig, Layout(), defaultdict[str, str](str)
        stages = replace(rig.stages, sources=(self,), supervisor=self.watch)
        rig.loop = Loop(rig.engine, stages, relist=300.0)
        self.pool = WorkerPool(WorkerScope(layout))
        self.inspector = TreeInspector(layout)
        lock = InstanceLock(b"/nowhere", acting=False)
        reached = Reachable(
            session=Opened(Setup(), stages, self.pool, self.inspector, lock),
            loop=rig.loop,
            readiness=Readiness(enforce=False, became_ready=lambda: None),
            metrics=Metrics(rig.engine, rig.clock),
            notifier=Notifier({}),
            service_log=ServiceLog(SILENT, rig.clock),
            status_line=str,
            watch=self.watch,
        )
        self.configuration = Configuration(lambda: fresh, Loaded(Settings(), layout, origins), 0.0)
        fresh = Loaded(Settings(), layout, origins, files=("new",))
        self.reloader = Reloader(self.configuration, reached)

    @override
    async def run(self, emit: Emit) -> None:
        await self.rig.clock.take(1.0)
        for _ in range(self.times):
            self.done.append(await self.reloader.reload("test"))
        await anyio.sleep_forever()


@pytest.fixture(autouse=True)
def into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reloader, "setup", lambda *_: Setup(policies=NEW, relist=7.0))


def is_new(reloads: Reloads) -> tuple[bool, ...]:
    """Tell, of every place, whether the new configuration holds there."""
    return (
        reloads.configuration.loaded.files == ("new",),
        reloads.rig.engine._policies is NEW,
        reloads.pool._jobs.total_tokens == NEW.parallel,
        reloads.inspector.annotation_keys == {"keep"},
    )


@pytest.mark.safety
async def test_a_reload_that_could_not_look_has_not_looked_for_the_next_one_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(Policies())
    rig.inspector.tree[key()] = dead()
    reloads = Reloads(rig, NEW, times=2)
    listings = [rig.inspector.list()]  # and no other is answered
    silence = Listed(answered=False, present=True)
    monkeypatch.setattr(rig.inspector, "list", lambda *_: listings.pop() if listings else silence)
    await rig.run_until(lambda: len(reloads.done) == 2)
    assert [bool(one.trouble) for one in reloads.done] == [True, True]
    assert set(is_new(reloads)) == {False}


@pytest.mark.breaks_parts
async def test_a_reload_whose_changes_cannot_be_told_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reloading, "changed", broken)
    reloads = Reloads(rig := Rig(Policies()), NEW)
    await rig.run_for(10.0)
    assert reloads.done[0].trouble == ("internal error, see the log",)
    assert set(is_new(reloads)[:-1]) == {False}  # to look for more than is needed harms nobody


@pytest.mark.breaks_parts
async def test_a_watcher_that_fails_keeps_no_reload_half_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reloads = Reloads(rig := Rig(Policies()), NEW)
    monkeypatch.setattr(FakeWatcher, "relist_hint", property(broken))
    await rig.run_for(10.0)
    assert reloads.done[0].trouble == ()
    assert set(is_new(reloads)) == {True}
    assert reloads.watch.counts["watcher"]


@pytest.mark.safety
async def test_a_look_sent_before_a_reload_asks_again_for_what_that_needs() -> None:
    inspector, asked = TreeInspector(Layout()), list[frozenset[str]]()

    class Slow(WorkerPool):
        @override
        async def look_far(
            self,
            keys: Sequence[BundleKey],
            annotation_keys: frozenset[str],
            places: frozenset[str],
        ) -> Sequence[Look | None] | None:
            asked.append(annotation_keys)
            inspector.annotation_keys = frozenset({"keep"})
            return [None for _ in keys]

    looks = await KillableInspector(Slow(WorkerScope(Layout())), inspector).look(
        [key()], frozenset({"/far"})
    )
    assert looks == [None]
    assert asked == [frozenset(), {"keep"}]


def broken(*_: object) -> NoReturn:
    raise KeyError("of our own making")
