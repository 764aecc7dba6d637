"""The service: one loop for as long as the machine runs, and everything that belongs to a daemon.

Around the same loop that `run` turns: a configuration that can be loaded anew, endpoints, metrics,
a ledger, and a service manager that is told how we are. It ends in order on SIGTERM and SIGINT,
and loads anew on SIGHUP, on an order over the unix socket and when a configuration file changes.
"""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import TaskGroup
from structlog.typing import FilteringBoundLogger

from reconciler import __version__
from reconciler.act.executor import Executor
from reconciler.assembly import acts, opened, setup_from
from reconciler.daemon import endpoints, ledger
from reconciler.daemon.configuration import Configuration, Reload
from reconciler.daemon.endpoints import Desk
from reconciler.daemon.files import changes_of
from reconciler.daemon.listening import listen_tcp, listen_unix
from reconciler.daemon.notify import Notifier
from reconciler.daemon.readiness import Readiness
from reconciler.decide.engine import Engine
from reconciler.errors import RefusedError
from reconciler.journal.recorder import Options, recording
from reconciler.loop import Loop, Stages
from reconciler.model.observations import Doubt, DoubtKind, Stamp
from reconciler.settings.load import Loaded
from reconciler.telemetry.http import Server
from reconciler.telemetry.logs import LogListener, iso
from reconciler.telemetry.metrics import Metrics
from reconciler.telemetry.status import About, Attempts, Status, gather

if TYPE_CHECKING:
    from reconciler.ports import Listener

STOP_WITHIN: Final = 10.0
"""Seconds an end in order may take; hands stop at an entry boundary long before."""

_BEATS: Final = 3  # times the watchdog is fed before it would bite


@dataclass(frozen=True, slots=True)
class Start:
    """What a daemon is started with.

    Attributes:
        load: Reads all layers of the configuration anew.
        loaded: What it gave just now.
        environ: The environment, for the service manager and our own places.
        logger: Where records go.
    """

    load: Callable[[], Loaded]
    loaded: Loaded
    environ: Mapping[str, str]
    logger: FilteringBoundLogger


async def serve(start: Start) -> int:
    """Run until told to end.

    Returns:
        The exit code.

    Raises:
        RefusedError: It is to enforce and a guard refuses.
        ReconcilerError: An address is taken.
    """
    setup = setup_from(start.loaded)
    async with AsyncExitStack() as closes, anyio.create_task_group() as tasks:
        session = await closes.enter_async_context(
            opened(setup, acting=acts(setup.policies), watching=True)
        )
        recorders = await closes.enter_async_context(
            recording(_journal(start.loaded), session.stages.clock, setup.policies)
        )
        stages = replace(session.stages, recorders=recorders)
        service = _Service(start, stages, session.executor)
        await service.run(tasks)
        tasks.cancel_scope.cancel()
    if service.readiness.refused_at_start:
        reasons = "; ".join(one.reason for one in service.readiness.refused_at_start)
        raise RefusedError(reasons)
    return 0


def _journal(loaded: Loaded) -> Options | None:
    """Say how to record; a restart keeps the journal of the run before as an earlier file."""
    journal = loaded.settings.journal
    if not journal.path:
        return None
    return Options(Path(journal.path), max_size=journal.max_bytes, keep=journal.keep)


class _Service:
    """One running daemon: the loop, and whoever is asked or told about it."""

    def __init__(self, start: Start, stages: Stages, executor: Executor) -> None:
        self._start = start
        self._clock = stages.clock
        self._executor = executor
        self._began = stages.clock.monotonic()
        self._boot = ledger.boot_id()
        self._notifier = Notifier(start.environ)
        setup = setup_from(start.loaded)
        self._engine = Engine(setup.policies)
        self._watcher = stages.watcher
        self._configuration = Configuration(start.load, start.loaded, stages.clock.wall())
        self._metrics = Metrics(self._engine, stages.clock, stages.watcher)
        self._attempts = Attempts(setup.layout)
        self.readiness = Readiness(enforce=acts(setup.policies), became_ready=self._ready)
        listeners: tuple[Listener, ...] = (
            LogListener(start.logger),
            self._metrics,
            self._attempts,
            self.readiness,
        )
        heard = replace(stages, listeners=(*stages.listeners, *listeners))
        self._loop = Loop(self._engine, heard, relist=setup.relist)
        self.readiness.stop = self._loop.stop
        self._reloading = anyio.Lock()

    async def run(self, tasks: TaskGroup) -> None:
        """Serve, watch and turn until told to end."""
        self._tell("starting", version=__version__, mode=self._mode, files=self._files)
        for hint in self._start.loaded.hints:
            self._tell("configuration hint", hint=hint)
        await self._open_endpoints(tasks)
        for memory in ledger.read(self._ledger, self._boot, self._clock.monotonic()):
            self._loop.emit(memory)
        tasks.start_soon(self._heed_signals)
        tasks.start_soon(self._feed_watchdog)
        tasks.start_soon(self._watch_files)
        tasks.start_soon(self._keep_ledger)
        await self._loop.run()
        self._write_ledger()
        self._tell("stopped")
        self._notifier.close()

    # ------------------------------------------------------------------ what goes on beside

    async def _open_endpoints(self, tasks: TaskGroup) -> None:
        http = self._start.loaded.settings.http
        desk = Desk(
            self._loop.ping, self.readiness.checks, self._status, self._metrics, self._order
        )
        if http.listen:
            open_to_all = Server(endpoints.routes(desk, orders=False))
            for listener in await listen_tcp(http.listen):
                tasks.start_soon(open_to_all.serve, listener)
        if http.socket:
            ours = Server(endpoints.routes(desk, orders=True))
            tasks.start_soon(ours.serve, await listen_unix(http.socket))

    async def _heed_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for caught in signals:
                if caught is signal.SIGHUP:
                    await self._reload("SIGHUP")
                    continue
                self._tell("stopping", signal=signal.Signals(caught).name)
                self._notifier.stopping("finishing what is under way", within=STOP_WITHIN)
                await self._executor.stop()
                self._loop.stop()

    async def _feed_watchdog(self) -> None:
        """Feed it only while the loop turns: that is what it watches."""
        within = self._notifier.watchdog
        while within is not None:
            await self._loop.ping()
            self._notifier.alive()
            await self._clock.wait(anyio.Event(), self._clock.monotonic() + within / _BEATS)

    async def _watch_files(self) -> None:
        async for changed in changes_of(self._configuration):
            await self._reload(changed)

    async def _keep_ledger(self) -> None:
        while True:
            relist = self._start.loaded.settings.watch.relist_seconds
            await self._clock.wait(anyio.Event(), self._clock.monotonic() + min(relist, 60.0))
            self._write_ledger()

    # ------------------------------------------------------------------ configuration

    async def _order(self) -> str:
        return "; ".join((await self._reload("order")).trouble)

    async def _reload(self, why: str) -> Reload:
        """Load the configuration anew; what is under way goes on under the old one."""
        async with self._reloading:
            self._notifier.reloading(self._clock.monotonic())
            done = self._configuration.reload(self._clock.wall())
            self._metrics.reloaded(ok=not done.trouble)
            if done.trouble:
                for line in done.trouble:
                    self._warn("configuration refused", why=why, problem=line)
            elif done.changes:
                self._loop.configure(setup_from(self._configuration.loaded).policies)
                self._loop.emit(Doubt(DoubtKind.ASKED))
                self._tell(
                    "configuration loaded",
                    why=why,
                    changes=list(done.changes),
                    after_restart=list(done.later),
                )
            self._notifier.ready(self._status_line())
            return done

    # ------------------------------------------------------------------ what is said

    def _ready(self) -> None:
        self._notifier.ready(self._status_line())
        self._tell("ready", seconds=round(self._clock.monotonic() - self._began, 3))

    def _status(self) -> Status:
        stamp = self._now()
        about = About(
            version=__version__,
            mode=self._mode,
            pid=os.getpid(),
            backend=self._watcher.backend if self._watcher else "none",
            uptime_seconds=stamp.mono - self._began,
            ready=all(check.ok for check in self.readiness.checks()),
            config=self._configuration.status,
        )
        return gather(self._engine, self._attempts, about, stamp)

    def _status_line(self) -> str:
        summary = self._engine.summary(self._clock.monotonic())
        leftovers = summary.phases.total()
        return f"{self._mode}: {summary.verdicts.total()} bundles, {leftovers} leftovers"

    @property
    def _mode(self) -> str:
        return self._configuration.loaded.settings.mode.value

    @property
    def _files(self) -> list[str]:
        return list(self._configuration.loaded.files)

    @property
    def _ledger(self) -> str:
        directory = self._start.environ.get("RUNTIME_DIRECTORY", "/run/containerd-reconciler")
        return os.path.join(directory.split(":", 1)[0], "ledger.json")

    def _write_ledger(self) -> None:
        try:
            ledger.write(self._ledger, self._boot, self._clock.monotonic(), self._engine.tracks)
        except OSError as error:
            self._warn("ledger not written", path=self._ledger, problem=str(error.strerror))

    def _now(self) -> Stamp:
        return Stamp(self._clock.monotonic(), self._clock.wall())

    def _tell(self, event: str, **fields: object) -> None:
        self._start.logger.info(event, **fields, timestamp=iso(self._clock.wall()))

    def _warn(self, event: str, **fields: object) -> None:
        self._start.logger.warning(event, **fields, timestamp=iso(self._clock.wall()))
