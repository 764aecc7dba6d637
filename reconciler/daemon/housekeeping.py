"""What the daemon writes down: the checkpoint, kept fresh by a listener; the journal, if wanted.

While nothing is learnt there is nothing to write, and nobody is woken; only where a grace runs must
the checkpoint stay fresh, or a restart would begin it anew.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from reconciler.daemon import checkpoint
from reconciler.daemon.notify import ServiceLog
from reconciler.daemon.remembering import BootRecord
from reconciler.decide.track import Track
from reconciler.errors import ConfigError, UsageError
from reconciler.model.decisions import Decision
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Observation, Stamp
from reconciler.model.policy import Policies
from reconciler.ports import Clock
from reconciler.present.events import LogEvent
from reconciler.settings.schema import Journal
from reconciler.supervision import Supervisor

if TYPE_CHECKING:
    from reconciler.journal.recorder import FileRecorder

CHECKPOINT_EVERY: Final = 60.0
"""Seconds between something learnt and its being written down, at most."""


class Housekeeping:
    """Writes down what is to survive a restart, ``pause`` seconds after something was learnt."""

    def __init__(  # noqa: PLR0913 - what it keeps, and whom it asks
        self,
        path: str,
        tracks: Callable[[], Iterable[Track]],
        clock: Clock,
        service_log: ServiceLog,
        *,
        pause: Callable[[], float],
        gone: Callable[[], Mapping[BundleKey, float]] = dict,
        over_boots: BootRecord | None = None,
        recorders: "tuple[FileRecorder, ...]" = (),
    ) -> None:
        self._path = path
        self._boot = checkpoint.boot_id()
        self._over_boots = over_boots
        self._tracks = tracks
        self._gone = gone
        self._clock = clock
        self._service_log = service_log
        self._pause = pause
        self._recorders = recorders
        self._reported = 0
        self._news = anyio.Event()

    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Something may be different now."""
        del stamp, observation
        self._news.set()

    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Likewise: a timer fires without an observation."""
        del stamp, decision
        self._news.set()

    async def run(self) -> None:
        """Write whenever there is news, until cancelled."""
        while True:
            await self._news.wait()
            await self._clock.wait(anyio.Event(), self._clock.monotonic() + self._pause())
            self._news = anyio.Event()  # what has come meanwhile is written now
            self._write_checkpoint()
            if self._over_boots is not None:  # on a disk, which may take its time
                objects = self._objects()
                await to_thread.run_sync(self._remember, objects, abandon_on_cancel=True)
            if self._is_grace_running():
                self._news.set()
            for recorder in self._recorders:
                if recorder.lost > self._reported:
                    self._reported = recorder.lost
                    self._service_log.warn(
                        LogEvent.RECORDS_LOST, lost=recorder.lost, problem=recorder.trouble
                    )

    def write(self) -> None:
        """Write down everything now."""
        self._write_checkpoint()
        self._remember(self._objects())

    def _objects(self) -> list[tuple[BundleKey, Identity]]:
        return [(track.key, track.identity) for track in self._tracks()]

    def _remember(self, objects: list[tuple[BundleKey, Identity]]) -> None:
        """Write down what is there, for after a boot."""
        record = self._over_boots
        try:
            if record is not None:
                record.write(objects)
        except OSError as error:
            path, problem = "" if record is None else record.path, error.strerror
            self._service_log.warn(LogEvent.CHECKPOINT_FAILED, path=path, problem=problem)

    def _write_checkpoint(self) -> None:
        try:
            now = Stamp(self._clock.monotonic(), self._clock.wall())
            checkpoint.write(self._path, self._boot, now, self._tracks(), self._gone())
        except OSError as error:
            self._service_log.warn(
                LogEvent.CHECKPOINT_FAILED, path=self._path, problem=error.strerror
            )

    def _is_grace_running(self) -> bool:
        now = self._clock.monotonic()
        return any(
            track.leftover_since is not None
            and track.policy is not None
            and now < track.leftover_since + track.policy.grace
            for track in self._tracks()
        )


@asynccontextmanager
async def recording(
    journal: Journal, clock: Clock, policies: Policies, watch: Supervisor
) -> AsyncIterator[tuple["FileRecorder", ...]]:
    """Record, if that is wanted; a restart keeps the journal of the run before as an earlier file.

    Raises:
        ConfigError: No journal can be written there.
    """
    if not journal.path:
        yield ()
        return
    # Here, because it is a megabyte that most daemons do not need.
    from reconciler.journal.recorder import Options, check_target
    from reconciler.journal.recorder import recording as record

    options = Options(Path(journal.path), max_size=journal.max_bytes, keep=journal.keep)
    try:
        check_target(options.path)
    except UsageError as error:
        raise ConfigError(f"journal.path: {error.what}", error.hint) from None
    async with record(options, clock, policies, watch) as recorders:
        yield recorders
