"""Answers: what asking containerd gives, and the names of every kind of silence.

Values alone: nothing here loads gRPC, which takes a third of the start of a command that finds
nobody to ask.
"""

import os
from collections.abc import Callable, Sequence
from enum import Enum
from errno import ENOENT
from typing import Final

import msgspec

from reconciler.model.containerd import ShimGroup
from reconciler.model.ids import BundleKey, escape
from reconciler.probe import reach


class Failure(Enum):
    """What kind of silence it was."""

    NOBODY = "nobody listens"  # no socket, or one that refuses
    TIMEOUT = "no answer in time"
    FORBIDDEN = "no permission"
    BROKEN = "broken connection"  # dropped, or not gRPC
    ERROR = "an error for an answer"


class NoAnswerError(Exception):
    """containerd did not answer; never a statement about its tasks."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure


def nobody(address: bytes) -> NoAnswerError:
    """Name the silence of a socket that is not there, or refuses."""
    return NoAnswerError(Failure.NOBODY, f"nobody listens at {escape(address)}")


def is_absent(address: bytes) -> bool:
    """Return whether there is no socket, as connecting would find; false if that is not known."""
    if b"\0" in address or reach.trouble(address):
        return False
    try:
        os.lstat(address)
    except OSError as error:
        return error.errno == ENOENT
    return False


class Singles(msgspec.Struct, frozen=True):
    """Whom to ask for one by one where a list does not come soon.

    Attributes:
        about: Names them for a namespace, the most important first.
        slow: Where the list did not come last time: it is not waited for before that.
        shims: Names the shims of which it is asked whether it knows them at all.
    """

    about: Callable[[str], Sequence[BundleKey]] = lambda _: ()
    slow: frozenset[str] = frozenset()
    shims: Callable[[], Sequence[ShimGroup]] = lambda: ()


NOBODY: Final = Singles()


class Known(msgspec.Struct):
    """What was learnt of some namespaces' tasks.

    Attributes:
        tasks: Those it knows; all there are, but for the namespaces in ``unlisted``.
        wedged: Those whose shim did not report their state.
        unlisted: Namespaces whose list did not come.
        absent: Bundles of those namespaces that it was asked for and does not know.
        silent: Those it was asked for without any answer.
        recorded: Those of which it has a record, or of another that their shim may serve.
        unrecorded: Those of which it denies that.
        answers: How many answers it gave; without one nothing is known.
    """

    tasks: set[BundleKey] = msgspec.field(default_factory=set)
    wedged: set[BundleKey] = msgspec.field(default_factory=set)
    unlisted: set[str] = msgspec.field(default_factory=set)
    absent: set[BundleKey] = msgspec.field(default_factory=set)
    silent: set[BundleKey] = msgspec.field(default_factory=set)
    recorded: set[BundleKey] = msgspec.field(default_factory=set)
    unrecorded: set[BundleKey] = msgspec.field(default_factory=set)
    answers: int = 0
