"""Supervision: a part beside the engine may fail; it is counted, reported once, and all goes on.

The one place where any exception is caught. Used around whatever is beside the engine: a listener,
a connection, a page, a metric, an adapter. Never around the engine itself: what is wrong there ends
the process, and the next start begins from what is true (principle 13).
"""

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import wraps
from traceback import walk_tb
from types import TracebackType
from typing import Final, ParamSpec, TypeVar

import msgspec

from reconciler.errors import InvariantError
from reconciler.model.ids import printable
from reconciler.model.policy import Backoff

_P = ParamSpec("_P")
_T = TypeVar("_T")

INTERNAL: Final = "internal error; see the log"
"""What the answer of a part that failed says instead of an answer."""

_FRAMES: Final = 8
_TEXT: Final = 300


RESTARTS: Final = Backoff(first=1.0, most=60.0)
"""Pauses before a part that failed is started again."""


class Fault(msgspec.Struct, frozen=True):
    """What went wrong in a part.

    Attributes:
        where: The part: ``listener logs``, ``route /metrics``, ``connection``.
        what: The error, on one printable line.
        frames: Where it was raised, innermost last: ``logs.py:57 report``.
    """

    where: str
    what: str
    frames: tuple[str, ...]


def _nobody(_: Fault) -> None:
    """Report to nobody: the counts remain."""


class Supervisor:
    """Runs parts that may fail.

    Args:
        report: Receives each distinct fault once.

    Attributes:
        report: The same; may be changed.
        counts: How often each part has failed; the known ones that never did are there with 0.
    """

    def __init__(self, report: Callable[[Fault], object] = _nobody) -> None:
        self.counts = Counter[str]()
        self.report = report
        self._reported: set[tuple[str, ...]] = set()

    def know(self, *parts: str) -> None:
        """Name parts, so that each is counted from zero."""
        for where in parts:
            self.counts.setdefault(where, 0)

    def call(
        self, where: str, work: Callable[_P, object], *args: _P.args, **more: _P.kwargs
    ) -> bool:
        """Call a part; return whether it went well."""
        try:
            work(*args, **more)
        except Exception as error:  # noqa: BLE001 - supervision is here, so that it is nowhere else
            self.failed(where, error)
            return False
        return True

    def part(self, where: str) -> "Part":
        """Let what is done inside fail: it is left at the first error, and what follows goes on."""
        return Part(self, where)

    async def keep_running(
        self,
        where: str,
        work: Callable[[], Awaitable[None]],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        """Run a part until it returns; one that fails is started again after a growing pause.

        Args:
            where: Its name.
            work: Runs it.
            pause: Waits for so many seconds.
        """
        for failures in itertools.count(1):
            with self.part(where):
                await work()
                return
            await pause(RESTARTS.after(failures))

    def failed(self, where: str, error: Exception) -> None:
        """Count a failure, and report it unless the same one was reported before.

        Raises:
            InvariantError: The error is one: that is no part's failure.
        """
        if _is_ours(error):
            raise error
        cause = _innermost(error)
        self.counts[where] += 1
        frames = tuple(
            f"{frame.f_code.co_filename.rpartition('/')[2]}:{line} {frame.f_code.co_name}"
            for frame, line in walk_tb(cause.__traceback__)
        )[-_FRAMES:]
        # The text is not part of it: it may name another bundle each time, and nothing bounds that.
        same = (where, type(cause).__name__, *frames[-1:])
        if same in self._reported:
            return
        self._reported.add(same)
        what = printable(f"{type(cause).__name__}: {cause}"[:_TEXT])
        try:
            self.report(Fault(where, what, frames))
        except Exception:  # noqa: BLE001 - nobody is left to report to
            self.counts["report"] += 1


class Part:
    """What is done inside may fail (:meth:`Supervisor.part`)."""

    __slots__ = ("_watch", "_where")

    def __init__(self, watch: Supervisor, where: str) -> None:
        self._watch = watch
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._watch.failed(self._where, error)
        return True


def unsupervised(work: Callable[_P, _T]) -> Callable[_P, _T]:
    """Give the same work of the engine, for a part that is supervised to call.

    What is wrong in it is no failure of that part: it comes out as an InvariantError.
    """

    @wraps(work)
    def call(*args: _P.args, **more: _P.kwargs) -> _T:
        try:
            return work(*args, **more)
        except InvariantError:
            raise
        except Exception as error:
            raise InvariantError(f"the engine failed: {type(error).__name__}: {error}") from error

    return call


def _is_ours(error: Exception) -> bool:
    """Return whether an invariant did not hold, whatever else failed beside it in a task group."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(InvariantError) is not None
    return isinstance(error, InvariantError)


def _innermost(error: BaseException) -> BaseException:
    """Take an error out of the groups in which task groups wrap it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
