"""Record: one attempt's steps, what each changed, and the one error policy (principles 5 and 9).

A step's function takes a :class:`Tally`, returns a line for people, and raises: Blocked if it
cannot go on, :class:`Kept` if it leaves something on purpose, OSError for what the kernel refuses.
What that means for the steps after it is decided here and nowhere else: a missing thing is nothing
to do, a core step that fails ends the attempt, any other failure is a warning.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from reconciler.clock import SystemClock
from reconciler.model.ids import escape
from reconciler.model.outcome import BlockReason, Step, StepResult
from reconciler.worker.blocked import Blocked, blocked_by
from reconciler.worker.messages import Progress

_ENDS: Final = frozenset(
    {
        BlockReason.INTERRUPTED,
        BlockReason.CGROUP,
        BlockReason.SCOPE,
        BlockReason.HOOKS,
        BlockReason.CONTAINERD,
    }
)
"""Causes that end an attempt whichever step met them: nothing further may be removed."""


def _never() -> bool:
    return False


class Tally(msgspec.Struct):
    """What a step changed, and whether it is to go on.

    Attributes:
        mutations: Our own mutating system calls that succeeded, also those before a failure.
        others: Somebody else (containerd, runc) did something because we asked.
        stop: Whether a stop was requested; asked before each of very many changes.
    """

    mutations: int = 0
    others: bool = False
    stop: Callable[[], bool] = _never

    def add(self, number: int = 1) -> None:
        """Count one, or several."""
        self.mutations += number


class Kept(Exception):  # noqa: N818 -- not an error: safety outranks tidiness
    """Something stays, on purpose; the message says what and why."""


Note = Callable[[Progress], None]
"""Takes down how far the job is, for whoever waits for it and may have to give up."""


class Record:
    """The steps of one attempt, in order.

    Each step is reported before it starts, so that a hang can be attributed; before each one a
    request to stop is honoured.
    """

    def __init__(self, clock: SystemClock, note: Note, stop: Callable[[], bool]) -> None:
        self._clock = clock
        self._note = note
        self._stop = stop
        self.steps: list[Step] = []

    def do(self, name: str, action: Callable[[Tally], str], *, core: bool = True) -> None:
        """Do a step; nothing further is done if a core step fails, and the others only warn.

        Raises:
            Blocked: A core step failed, or any for a cause that forbids going on; or a stop
                was requested.
        """
        if self._stop():
            raise Blocked(BlockReason.INTERRUPTED, name, "a stop was requested")
        self._note(Progress(name, tuple(self.steps)))
        start = self._clock.monotonic()
        tally, blocked = Tally(stop=self._stop), None
        try:
            detail = action(tally)
            result = StepResult.DONE if tally.mutations or tally.others else StepResult.NOTHING
        except Kept as kept:
            result, detail = StepResult.WARNING, str(kept)
        except FileNotFoundError:
            result, detail = StepResult.NOTHING, ""
        except Blocked as error:
            result, detail, blocked = _weigh(error, core=core)
        except OSError as error:
            where = escape(error.filename) if isinstance(error.filename, bytes) else ""
            result, detail, blocked = _weigh(blocked_by(error, where), core=core)
        seconds = self._clock.monotonic() - start
        self.steps.append(Step(name, result, detail, seconds, tally.mutations))
        if blocked is not None:
            raise blocked


def _weigh(blocked: Blocked, *, core: bool) -> tuple[StepResult, str, Blocked | None]:
    if core or blocked.reason in _ENDS:
        return StepResult.BLOCKED, str(blocked), blocked
    return StepResult.WARNING, str(blocked), None
