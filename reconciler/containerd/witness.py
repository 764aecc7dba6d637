"""Witness: containerd's own word, and the difference between silence and proven absence.

Up means it answered for every namespace. Down is said only if nobody listens on its socket *and*
its metadata lock lies free before and after that; everything between is no answer: starting (it
holds the lock and sweeps while its socket refuses), hung, forbidden, or not where we look.
"""

from typing import Final

from reconciler.containerd.client import ContainerdClient, Failure, NoAnswerError
from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.ids import show
from reconciler.model.layout import Layout
from reconciler.probe.locks import Lock, LockState, lock_holder

DEADLINE: Final = 5.0

_RIGHT: Final = "; is --root right?"
_NOT_HELD: Final = frozenset({LockState.FREE, LockState.ABSENT})


async def ask(
    layout: Layout, *, deadline: float = DEADLINE, waived: bool = False, proc: bytes = b"/proc"
) -> Containerd:
    """Ask the containerd of a layout; never raises.

    Args:
        layout: Where its socket and its metadata lock are.
        deadline: Seconds for the whole answer.
        waived: The caller said that there is no containerd to ask.
        proc: Where /proc is mounted.
    """
    if waived:
        return Containerd(ContainerdState.WAIVED, detail="waived by --without-containerd")
    before = lock_holder(layout.metadata_lock, proc)
    try:
        told = await ContainerdClient(layout.address, deadline).tell()
    except NoAnswerError as error:
        after = lock_holder(layout.metadata_lock, proc)
        return _silent(layout, error, before, after)
    held = before if before.state is LockState.HELD else lock_holder(layout.metadata_lock, proc)
    if held.state in _NOT_HELD:
        # Whoever answers is another containerd, and another one's "not listed" proves nothing.
        return _none(f"{show(layout.address)} answers but nobody holds {_lock(layout)}{_RIGHT}")
    return Containerd(ContainerdState.UP, told.tasks, held.pid, told.version)


def _silent(layout: Layout, error: NoAnswerError, before: Lock, after: Lock) -> Containerd:
    """Tell silence from absence; the lock was looked at before and after the failed call."""
    match after.state:
        case LockState.HELD:
            return _holding(error, after)
        case LockState.NONE:
            return _none(f"{error}, and {_lock(layout)} cannot be judged: {after.detail}")
        case LockState.ABSENT:
            return _none(f"{error}, and there is no {_lock(layout)}{_RIGHT}")
        case LockState.FREE:
            return _free(layout, error, before)


def _holding(error: NoAnswerError, after: Lock) -> Containerd:
    who = "containerd" if after.pid is None else f"containerd (pid {after.pid})"
    busy = "it is starting and sweeping" if error.failure is Failure.NOBODY else "it hangs"
    text = f"{who} holds its metadata lock, but {error}: {busy}, or --address is not right"
    return Containerd(pid=after.pid, detail=text)


def _free(layout: Layout, error: NoAnswerError, before: Lock) -> Containerd:
    if error.failure is not Failure.NOBODY:
        return _none(f"{error}, though nobody holds {_lock(layout)}{_RIGHT}")
    if before.state is not LockState.FREE:
        return _none(f"{error}; it has just ended, or is just starting")
    detail = f"{error}, and nobody holds {_lock(layout)}"
    return Containerd(ContainerdState.DOWN, detail=detail)


def _none(detail: str) -> Containerd:
    return Containerd(detail=detail)


def _lock(layout: Layout) -> str:
    return f"metadata lock {show(layout.metadata_lock)}"
