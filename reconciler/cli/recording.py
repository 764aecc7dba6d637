"""From words to how a run is recorded; shared by `run --record` and `record`."""

from pathlib import Path

from reconciler.journal.recorder import Options, check_target


def journal_options(
    path: Path | None, *, redact: bool = False, max_size: int | None = None, keep: int = 4
) -> Options | None:
    """Make options for the recorder, None where nothing is to be recorded.

    Raises:
        UsageError: A journal cannot be written there.
    """
    if path is None:
        return None
    check_target(path)
    return Options(path, max_size=max_size, keep=keep, redact=redact)
