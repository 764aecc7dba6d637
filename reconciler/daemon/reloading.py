"""Reloading: puts another configuration into force while everything goes on, or nothing of it.

A load that fails changes nothing and is remembered, so that status, metric and log can say so.
What is under way goes on under the old one. Nothing may be removed by the new one before every
bundle was looked at as it requires, and the guards have said that this place is safe.
"""

from collections.abc import Callable
from typing import Final

import anyio
import msgspec
from msgspec import structs
from msgspec.structs import replace

from reconciler.assembly import Opened
from reconciler.daemon.notify import Notifier, ServiceLog
from reconciler.daemon.readiness import Readiness
from reconciler.loop import Loop
from reconciler.loop.looks import SLICE
from reconciler.model.decisions import Phase
from reconciler.model.observations import GuardsChecked, Resync, ResyncKind
from reconciler.present.events import LogEvent
from reconciler.present.status import ConfigStatus, Reload
from reconciler.settings.load import Loaded
from reconciler.settings.problems import SettingsError
from reconciler.settings.schema import LogLevel
from reconciler.settings.show import changed
from reconciler.setup import Setup, acts, setup_from
from reconciler.supervision import Supervisor
from reconciler.telemetry.metrics import Metrics

FIXED: Final = ("containerd.", "watch.backend:", "journal.", "http.", "log.format:")
"""Keys that take effect only at a start: they say what is opened, not what is decided."""

LOOK_WITHIN: Final = 30.0
"""Seconds within which every bundle can be looked at once; 100,000 take a fifth of it."""


class Configuration:
    """What is in force, and why nothing else is; ``load`` reads all layers anew."""

    def __init__(self, load: Callable[[], Loaded], loaded: Loaded, wall: float) -> None:
        self.load = load
        self.loaded = loaded
        self._started = loaded
        self.status = ConfigStatus(list(loaded.files), wall, ok=True, after_restart=[])

    def refuse(self, trouble: tuple[str, ...]) -> Reload:
        """Keep what is in force, and remember why nothing else is."""
        old = self.status
        self.status = structs.replace(old, ok=False, error=trouble[0])
        return Reload(trouble=trouble)

    def pending(self, fresh: Loaded) -> tuple[str, ...]:
        """Say what waits for a restart: beside what was opened at the start, not at any reload."""
        return tuple(line for line in changed(self._started, fresh) if line.startswith(FIXED))

    def accept(self, fresh: Loaded, wall: float, pending: tuple[str, ...]) -> None:
        """Note that another configuration is in force."""
        self.loaded = fresh
        files = list(fresh.files)
        self.status = ConfigStatus(files, wall, ok=True, after_restart=list(pending))


class Reachable(msgspec.Struct, frozen=True):
    """Whom a new configuration must reach, and who is told how it went.

    Attributes:
        session: The stages.
        loop: What turns on them.
        readiness: Whether the guards are needed.
        metrics: Told of success and failure.
        notifier: The service manager, told of begin and end.
        service_log: The log.
        status_line: What the service manager shows.
        watch: Counts what fails: the old configuration stays then.
        log_level: Sets the least important level that is logged.
    """

    session: Opened
    loop: Loop
    readiness: Readiness
    metrics: Metrics
    notifier: Notifier
    service_log: ServiceLog
    status_line: Callable[[], str]
    watch: Supervisor
    log_level: Callable[[LogLevel], None] = lambda _: None


class Reloader:
    """Loads the configuration anew, one request at a time."""

    def __init__(self, configuration: Configuration, reached: Reachable) -> None:
        self._configuration = configuration
        self._to = reached
        self._clock = reached.session.stages.clock
        self._turn = anyio.Lock()
        self._relist = reached.session.setup.relist

    async def order(self) -> Reload:
        """Load on an order."""
        return await self.reload("order", is_order=True)

    async def reload(self, why: str, *, is_order: bool = False) -> Reload:
        """Load, and log why; an order is answered also if nothing is different."""
        to = self._to
        async with self._turn:
            was_ready = to.readiness.was_ready
            if was_ready:  # before, the service manager waits for the start to end
                to.notifier.reloading(self._clock.monotonic())
            done: Reload | None = None
            with to.watch.part("reload"):
                done = await self._load()
            if done is None:
                done = self._configuration.refuse(("internal error, see the log",))
            to.metrics.reloaded(ok=not done.trouble)
            for line in done.trouble:
                to.service_log.warn(LogEvent.CONFIG_REJECTED, why=why, problem=line)
            for hint in done.hints if done.changes else ():
                to.service_log.report(LogEvent.CONFIG_QUESTIONED, hint=hint)
            if done.changes:
                to.service_log.report(
                    LogEvent.CONFIG_LOADED,
                    why=why,
                    changes=list(done.changes),
                    after_restart=list(done.after_restart),
                )
            elif is_order and not done.trouble:
                to.service_log.report(LogEvent.CONFIG_UNCHANGED, why=why)
            if was_ready:
                to.notifier.ready(to.status_line())
            return done

    async def _load(self) -> Reload:
        configuration = self._configuration
        try:
            fresh = configuration.load()
        except SettingsError as error:
            return configuration.refuse(tuple(str(problem) for problem in error.problems))
        setup = self.setup(fresh)
        trouble = await self._look_with(setup) or await self._guard(setup)
        if trouble:
            return configuration.refuse((trouble,))
        # What can fail comes first: the old configuration stays whole then.
        changes = tuple(changed(configuration.loaded, fresh))
        pending = configuration.pending(fresh)
        self._apply(setup)
        self._to.log_level(fresh.settings.log.level)
        configuration.accept(fresh, self._clock.wall(), pending)
        return Reload(changes=changes, after_restart=pending, hints=fresh.hints)

    def setup(self, loaded: Loaded) -> Setup:
        """Make a setup of it; where things are is not changed by a reload."""
        opened = self._to.session.setup
        fresh = setup_from(structs.replace(loaded, layout=opened.layout))
        return replace(fresh, namespaces=opened.namespaces)

    async def _look_with(self, setup: Setup) -> str:
        """Look at everything anew if rules match on annotations that no look has kept yet.

        Until then such a rule would not protect what it is meant for.
        """
        inspector, wanted = self._to.session.inspector, setup.policies.annotation_keys
        if wanted <= inspector.annotation_keys:
            return ""
        before = inspector.annotation_keys
        inspector.annotation_keys |= wanted
        since = self._clock.monotonic()
        self._to.loop.emit(Resync(ResyncKind.ASKED))
        while not self._has_looked(since):
            if self._clock.monotonic() > since + LOOK_WITHIN:
                inspector.annotation_keys = (
                    before  # or the next reload would take all for looked at
                )
                return "rule: the bundles' annotations cannot be read; look at the state tree"
            await self._clock.wait(anyio.Event(), self._clock.monotonic() + SLICE)
        return ""

    def _has_looked(self, since: float) -> bool:
        tracks = self._to.loop.engine.tracks
        return all(t.looked_at >= since or t.phase is Phase.CLEANING for t in tracks)

    async def _guard(self, setup: Setup) -> str:
        """Ask the guards, and take the lock, before an observer begins to act."""
        session = self._to.session
        if not acts(setup.policies) or session.lock.acting:
            return ""
        session.lock.acting = True
        refused = await session.stages.guards.check()
        if refused:
            session.lock.acting = False
            session.lock.release()
            return f"mode: cannot enforce: {'; '.join(one.reason for one in refused)}"
        await self._to.loop.deliver(GuardsChecked(refused))
        return ""

    def _apply(self, setup: Setup) -> None:
        to = self._to
        to.session.configure(setup)
        to.readiness.enforce = acts(setup.policies)
        to.loop.configure(setup.policies)
        if setup.relist != self._relist:
            self._relist = setup.relist
            to.loop.relist_every(setup.relist)
