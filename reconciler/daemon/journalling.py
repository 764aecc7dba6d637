"""The daemon's journal, if one is wanted. What draws in the recorder is here, and only if it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.errors import ConfigError, UsageError
from reconciler.model.policy import Policies
from reconciler.ports import Clock
from reconciler.settings.schema import Journal
from reconciler.supervision import Supervisor

if TYPE_CHECKING:
    from reconciler.journal.recorder import FileRecorder


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
