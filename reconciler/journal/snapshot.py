"""Snapshots: one look at a live tree as a journal, so that a bug report is one file.

The scribe listens to the same loop as ever; its lines go straight to a stream. For one-shot
commands only: nothing here is bounded or waits in a process of its own.
"""

import secrets
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO

from typing_extensions import override

from reconciler.journal.recorder import boot_id, host_name
from reconciler.journal.redact import Redactor
from reconciler.journal.scribe import Origin, Scribe
from reconciler.model.observations import Stamp
from reconciler.model.policy import Policies


class Snapshot(Scribe, AbstractContextManager["Snapshot"]):
    """A recorder that writes to a stream; complete when the context closes.

    Args:
        stream: Takes the lines.
        stamp: The clocks now.
        policies: In force.
        redact: Replace names.
    """

    def __init__(
        self, stream: IO[bytes], stamp: Stamp, policies: Policies, *, redact: bool = False
    ) -> None:
        self._stream = stream
        origin = Origin(host_name(), boot_id(), secrets.token_hex(8), stamp, policies)
        super().__init__(origin, self._write, Redactor() if redact else None)

    def _write(self, line: bytes) -> None:
        self._stream.write(line)

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the last record."""
        self.flush()
        self._stream.flush()
