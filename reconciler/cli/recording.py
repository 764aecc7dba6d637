"""From words to how a run is recorded; shared by `run --record` and `record`."""

from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.errors import UsageError

if TYPE_CHECKING:
    from reconciler.journal.recorder import Options


def journal_options(
    path: Path | None,
    *,
    redact: bool = False,
    max_size: int | None = None,
    keep: int = 4,
    force: bool = False,
) -> "Options | None":
    """Make options for the recorder, None where nothing is to be recorded.

    Args:
        path: The journal.
        redact: Replace names.
        max_size: Bytes after which a new file is begun.
        keep: Earlier files that are kept.
        force: An earlier run's journal may be there.

    Raises:
        UsageError: A journal cannot be written there.
    """
    if path is None:
        return None
    from reconciler.journal.recorder import Options, check_target, is_being_written

    check_target(path)
    if is_being_written(path):
        raise UsageError(f"another process writes {path} now", "name another file")
    if not force and path.exists() and path.stat().st_size:
        raise UsageError(
            f"{path} is the journal of another run", "name another file, or say --force"
        )
    return Options(path, max_size=max_size, keep=keep, redact=redact)
