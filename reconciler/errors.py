"""Errors of the operator's or the world's making, and the exit codes: one table for all commands.

What is raised here ends a command with one line on standard error,
``containerd-reconciler: <what>; <what to do>``, and the code of its class. An error of our own is
none of these: it crashes with a traceback. What is wrong with a *bundle* is never an exception, it
is evidence.
"""

from enum import IntEnum
from typing import ClassVar, Final

from typing_extensions import override


class ExitCode(IntEnum):
    """What a command's end means to scripts and units (design section 6)."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    NO_DAEMON = 3
    LEFTOVERS = 10
    UNPROVEN = 11
    BAD_JOURNAL = 65
    NO_CONTAINERD = 69
    NO_WORKER = 70
    BLOCKED = 75
    REFUSED = 77
    CONFIG = 78
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """Say it in words, for ``--help`` and the README."""
        return _MEANINGS[self]


_MEANINGS: Final = {
    ExitCode.DONE: "done",
    ExitCode.ERROR: "error",
    ExitCode.USAGE: "usage",
    ExitCode.NO_DAEMON: "no daemon",
    ExitCode.LEFTOVERS: "leftovers (`scan --exit-code`)",
    ExitCode.UNPROVEN: "nothing could be proven (`scan --exit-code`)",
    ExitCode.BAD_JOURNAL: "bad journal",
    ExitCode.NO_CONTAINERD: "containerd or its state directory is needed and not there",
    ExitCode.NO_WORKER: "no worker process could look; try again",
    ExitCode.BLOCKED: "something stayed blocked",
    ExitCode.REFUSED: "no permission or a guard refused",
    ExitCode.CONFIG: "configuration",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}


class ReconcilerError(Exception):
    """Ends a command with one line and an exit code.

    Attributes:
        what: What is wrong, in one line, without a full stop.
        hint: What to do about it; empty if nothing can be said.
    """

    code: ClassVar[ExitCode] = ExitCode.ERROR

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    @override
    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class UsageError(ReconcilerError):
    """An option or argument that cannot be meant."""

    code = ExitCode.USAGE


class RefusedError(ReconcilerError):
    """No permission, or a guard refused."""

    code = ExitCode.REFUSED


class ConfigError(ReconcilerError):
    """A configuration that cannot be used."""

    code = ExitCode.CONFIG


class NoContainerdError(ReconcilerError):
    """containerd is needed and cannot be reached, or its state directory is not there."""

    code = ExitCode.NO_CONTAINERD


class NoWorkerError(ReconcilerError):
    """No worker could look, which may be otherwise a moment later."""

    code = ExitCode.NO_WORKER


class NoDaemonError(ReconcilerError):
    """No daemon answers."""

    code = ExitCode.NO_DAEMON


class InvariantError(Exception):
    """What the engine counts on does not hold: our own fault, and the end of the process.

    The only error that supervision (:mod:`reconciler.supervision`) does not keep from ending it.
    """
