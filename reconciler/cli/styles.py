"""Colours of verdicts, phases and results on a terminal."""

from typing import Final

from reconciler.decide.decisions import Phase, Verdict
from reconciler.model.outcome import Result

VERDICT_STYLES: Final[dict[str, str]] = {
    Verdict.RUNNING.value: "green",
    Verdict.STOPPED.value: "green",
    Verdict.STARTING.value: "cyan",
    Verdict.BUSY.value: "cyan",
    Verdict.ORPHANED.value: "magenta",
    Verdict.LEFTOVER.value: "yellow",
    Verdict.UNKNOWN.value: "bold",
    Verdict.FOREIGN.value: "dim",
}

PHASE_STYLES: Final[dict[str, str]] = {
    Phase.NONE.value: "dim",
    Phase.WAITING.value: "yellow",
    Phase.DUE.value: "bold yellow",
    Phase.CLEANING.value: "bold cyan",
    Phase.CLEANED.value: "green",
    Phase.BLOCKED.value: "bold red",
    Phase.PROTECTED.value: "blue",
    Phase.HELD.value: "magenta",
}

RESULT_STYLES: Final[dict[str, str]] = {
    Result.CLEANED.value: "green",
    Result.BLOCKED.value: "bold red",
    Result.FAILED.value: "bold red",
    Result.HELD.value: "magenta",
    Result.PROTECTED.value: "blue",
    Result.KILLED.value: "magenta",
    Result.SKIPPED.value: "cyan",
}
