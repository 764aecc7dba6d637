"""The service: one loop for as long as the machine runs, and everything that belongs to a daemon.

Around the same loop that `run` turns: a configuration that can be loaded anew, endpoints, metrics,
a checkpoint, and a service manager that is told how we are. It ends in order on SIGTERM and SIGINT,
and loads anew on SIGHUP, on an order over the unix socket and when a configuration file changes.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
from anyio.abc import TaskGroup
from msgspec.structs import replace

from reconciler import __version__
from reconciler.assembly import Opened, opened
from reconciler.clock import SystemClock
from reconciler.daemon import checkpoint, endpoints
from reconciler.daemon.config_files import ConfigFiles
from reconciler.daemon.confinement import Confinement, confine
from reconciler.daemon.endpoints import Check, Handlers
from reconciler.daemon.housekeeping import CHECKPOINT_EVERY, Housekeeping, recording
from reconciler.daemon.listening import HttpListeners, open_listeners
from reconciler.daemon.notify import Notifier, ServiceLog
from reconciler.daemon.readiness import Readiness, held
from reconciler.daemon.reloading import Configuration, Reachable, Reloader
from reconciler.daemon.remembering import BootRecord
from reconciler.daemon.requests import Requests
from reconciler.decide.engine import Engine
from reconciler.errors import NoWorkerError, RefusedError
from reconciler.loop import Loop
from reconciler.model.ids import escape
from reconciler.model.observations import Stamp
from reconciler.present.events import LogEvent
from reconciler.present.records import Level
from reconciler.present.status import About, Attempts, JournalStatus, Status, gather
from reconciler.probe import boots
from reconciler.settings.environment import node_name
from reconciler.settings.load import Loaded
from reconciler.settings.schema import LogLevel
from reconciler.setup import Setup, acts
from reconciler.supervision import Supervisor
from reconciler.telemetry.http import PAUSE, ReservedDescriptor, Server
from reconciler.telemetry.lazy import FilteringBoundLogger
from reconciler.telemetry.logs import LogListener, Threshold
from reconciler.telemetry.metrics import Metrics
from reconciler.worker.client import ForkServerClient

if TYPE_CHECKING:
    from reconciler.journal.recorder import FileRecorder
    from reconciler.ports import Listener

STOP_WITHIN: Final = 10.0
"""Seconds an end in order may take; cleanups stop at an entry boundary long before."""

_BEATS: Final = 3  # times the watchdog is fed before it would bite


class Start(msgspec.Struct, frozen=True):
    """What a daemon is started with.

    Attributes:
        load: Reads all layers of the configuration anew.
        loaded: What it gave just now.
        setup: What a session needs to know of it.
        server: The fork server, started for that.
        files: The files it reads; made before it did.
        environ: The environment, for the service manager and our own places.
        logger: Where records go.
        threshold: From which level on.
    """

    load: Callable[[], Loaded]
    loaded: Loaded
    setup: Setup
    server: ForkServerClient
    files: ConfigFiles
    environ: Mapping[str, str]
    logger: FilteringBoundLogger
    threshold: Threshold


async def serve(start: Start) -> None:
    """Run until asked to end.

    Raises:
        RefusedError: It is to enforce and a guard refuses, or another daemon runs already.
        ConfigError: The journal cannot be written where it is to be.
    """
    setup = start.setup
    clock, log = SystemClock(), LogListener(start.logger)
    watch = Supervisor(lambda fault: log.failed(Stamp(clock.monotonic(), clock.wall()), fault))
    # Signals first of all: none must end it in the middle of what comes next.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with AsyncExitStack() as closes:
            journal = start.loaded.settings.journal
            http_listeners = await closes.enter_async_context(
                open_listeners(start.loaded.settings.http, watch)
            )
            session = await closes.enter_async_context(
                opened(
                    setup,
                    acting=acts(setup.policies),
                    watching=True,
                    server=start.server,
                    listens=start.loaded.settings.http.socket,
                )
            )
            confined = confine(session.pool, setup.layout, journal.path, start.environ)
            recorders = await closes.enter_async_context(
                recording(journal, session.stages.clock, setup.policies, watch)
            )
            confined.narrow()
            session = replace(
                session, stages=replace(session.stages, listeners=(log,), supervisor=watch)
            )
            log.watcher = session.stages.watcher
            service = _Service(start, session, recorders, confined, http_listeners)
            log.find = service.engine.track
            async with anyio.create_task_group() as tasks:
                await service.run(tasks, signals)
                tasks.cancel_scope.cancel()
            refused = service.readiness.refused_at_start
    if refused:
        raise RefusedError("; ".join(one.reason for one in refused))
    if service.crippled:
        raise NoWorkerError(
            "the process that makes the workers has ended, and no other can be made",
            "have the service manager start the daemon again",
        )


class _Service:
    """One running daemon: the loop, and whoever is asked or told about it."""

    def __init__(
        self,
        start: Start,
        session: Opened,
        recorders: "tuple[FileRecorder, ...]",
        confined: Confinement,
        http_listeners: HttpListeners,
    ) -> None:
        stages, setup = session.stages, session.setup
        self._start = start
        self._session = session
        self._recorders = recorders
        self._confined = confined
        self._http_listeners = http_listeners
        self._watch = stages.supervisor
        self.crippled = False
        self._clock = stages.clock
        self._watcher = stages.watcher
        self._node = node_name(start.environ)
        self._began = stages.clock.monotonic()
        self._notifier = Notifier(start.environ)
        self._service_log = ServiceLog(start.logger, stages.clock)
        self.engine = Engine(setup.policies)
        self._configuration = Configuration(start.load, start.loaded, stages.clock.wall())
        self._metrics = Metrics(
            self.engine,
            stages.clock,
            stages.watcher,
            self._watch,
            lost=lambda: sum(one.lost for one in recorders),
        )
        self._attempts = Attempts(setup.layout, self.engine.labels)
        self._checkpoint = checkpoint.place(start.environ, setup.layout)
        self._keeper = Housekeeping(
            self._checkpoint,
            lambda: self.engine.tracks,
            stages.clock,
            self._service_log,
            pause=self._pause,
            gone=lambda: self.engine.had_cgroups,
            over_boots=BootRecord(setup.layout, boots.boot_id()) if setup.layout.boots else None,
            recorders=recorders,
        )
        self.readiness = Readiness(enforce=acts(setup.policies), became_ready=self._ready)
        listeners: tuple[Listener, ...] = (
            self._metrics,
            self._attempts,
            self._keeper,
            self.readiness,
        )
        supervised = replace(
            stages, listeners=(*stages.listeners, *listeners), recorders=(*recorders,)
        )
        self._loop = Loop(self.engine, supervised, relist=setup.relist)
        self.readiness.stop = self._loop.stop
        reached = Reachable(
            session=session,
            loop=self._loop,
            readiness=self.readiness,
            metrics=self._metrics,
            notifier=self._notifier,
            service_log=self._service_log,
            status_line=self._status_line,
            watch=self._watch,
            log_level=self._set_log_level,
        )
        self._reloader = Reloader(self._configuration, reached)

    async def run(self, tasks: TaskGroup, signals: AsyncIterator[signal.Signals]) -> None:
        """Serve, watch and turn until asked to end."""
        loaded = self._start.loaded
        self._service_log.report(
            LogEvent.DAEMON_STARTED, version=__version__, mode=self._mode, files=list(loaded.files)
        )
        confined = self._confined
        self._service_log.report(
            LogEvent.DAEMON_CONFINED, places=list(confined.places), trouble=confined.trouble
        )
        for hint in loaded.hints:
            self._service_log.report(LogEvent.CONFIG_QUESTIONED, hint=hint)
        for memory in checkpoint.read(
            self._checkpoint, checkpoint.boot_id(), self._clock.monotonic()
        ):
            self._loop.emit(memory)
        tasks.start_soon(self._heed, signals, tasks)
        self._serve(tasks)
        tasks.start_soon(self._watch_fork_server)
        beside: dict[str, Callable[[], Awaitable[None]]] = {
            "watchdog": self._feed_watchdog,
            "configuration files": self._watch_files,
            "checkpoint": self._keeper.run,
        }
        self._watch.know(*beside)
        for where, work in beside.items():
            tasks.start_soon(self._watch.keep_running, where, work, self._wait)
        await self._loop.run()
        self._http_listeners.ours.withdraw()
        self._watch.call("checkpoint", self._keeper.write)
        self._service_log.report(LogEvent.DAEMON_STOPPED)
        self._notifier.close()

    # ------------------------------------------------------------------ what goes on beside

    def _serve(self, tasks: TaskGroup) -> None:
        handlers = Handlers(
            ping=self._loop.ping,
            checks=self._checks,
            status=self._status,
            metrics=self._metrics,
            reload=self._reloader.order,
            now=self._clock.monotonic,
            watch=self._watch,
            requests=Requests(
                self.engine,
                self._loop.deliver,
                self._whoami,
                lambda: list(self._attempts.recent),
                lambda: Stamp(self._clock.monotonic(), self._clock.wall()),
            ),
        )
        spare, http_listeners = ReservedDescriptor(), self._http_listeners
        for endpoint, orders in ((http_listeners.ours, True), (http_listeners.public, False)):
            if endpoint.trouble:
                self._service_log.warn(LogEvent.ENDPOINT_FAILED, problem=endpoint.trouble)
            routes = endpoints.routes(handlers, orders=orders)
            server = Server(routes, spare, self._watch, pause=0.0 if orders else PAUSE)
            tasks.start_soon(endpoint.serve, server, self._wait, self._reachable)

    def _reachable(self, address: str) -> None:
        self._service_log.report(LogEvent.ENDPOINT_OPENED, address=address)

    async def _wait(self, seconds: float) -> None:
        await self._clock.wait(anyio.Event(), self._clock.monotonic() + seconds)

    async def _heed(self, signals: AsyncIterator[signal.Signals], tasks: TaskGroup) -> None:
        async for caught in signals:
            if caught is signal.SIGHUP:
                # Beside, because it may have to wait, and the next signal may be the last.
                tasks.start_soon(partial(self._reloader.reload, "SIGHUP", is_order=True))
                continue
            self._service_log.report(LogEvent.STOP_REQUESTED, signal=signal.Signals(caught).name)
            self._notifier.stopping("finishing what is under way", within=STOP_WITHIN)
            with self._watch.part("cleaner"):
                await self._session.pool.stop()
            self._loop.stop()

    async def _watch_fork_server(self) -> None:
        """End with it: what it could do was given up here, so another could do nothing."""
        await self._session.pool.fork_server_ended()
        self.crippled = True
        self._loop.stop()

    async def _feed_watchdog(self) -> None:
        """Feed it only while the loop turns: that is what it watches."""
        within = self._notifier.watchdog
        while within is not None:
            await self._loop.ping()
            self._notifier.alive()
            await self._wait(within / _BEATS)

    async def _watch_files(self) -> None:
        def trouble(problem: str) -> None:
            self._service_log.warn(LogEvent.CONFIG_UNWATCHED, problem=problem)

        async for changed in self._start.files.changes(trouble):
            await self._reloader.reload(changed)

    def _set_log_level(self, level: LogLevel) -> None:
        self._start.threshold.level = Level(level.value)

    def _pause(self) -> float:
        return min(self._configuration.loaded.settings.watch.relist_seconds, CHECKPOINT_EVERY)

    # ------------------------------------------------------------------ what is said

    def _ready(self) -> None:
        self._notifier.ready(self._status_line())
        self._service_log.report(
            LogEvent.READINESS_REACHED, seconds=round(self._clock.monotonic() - self._began, 3)
        )

    def _checks(self) -> tuple[Check, ...]:
        return (*self.readiness.checks(), held(self.engine.hold), self._confined.check())

    def _status(self, text: str = "") -> Status:
        stamp = Stamp(self._clock.monotonic(), self._clock.wall())
        about = About(
            node=self._node,
            version=__version__,
            mode=self._mode,
            pid=os.getpid(),
            backend=self._watcher.backend if self._watcher else "none",
            backend_trouble=self._watcher.reason if self._watcher else "",
            uptime_seconds=stamp.mono - self._began,
            ready=all(check.ok for check in self.readiness.checks()),
            config=self._configuration.status,
            journal=self._journal_status(),
            endpoints=[
                one.status for one in (self._http_listeners.ours, self._http_listeners.public)
            ],
            internal_errors=self._watch.counts,
        )
        return gather(self.engine, self._attempts, about, stamp, text)

    def _journal_status(self) -> JournalStatus | None:
        path = self._start.loaded.settings.journal.path
        for recorder in self._recorders:
            return JournalStatus(path, recorder.lost, recorder.trouble)
        return None

    def _status_line(self) -> str:
        summary = self.engine.summary(self._clock.monotonic())
        leftovers = summary.phases.total()
        return f"{self._mode}: {summary.verdicts.total()} bundles, {leftovers} leftovers"

    def _whoami(self) -> tuple[str, str, int, str]:
        state = escape(self._session.setup.layout.state)
        return __version__, self._mode, os.getpid(), state

    @property
    def _mode(self) -> str:
        return self._configuration.loaded.settings.mode.value
