"""Debris: removes what is left outside of bundles, one place after the other.

    second_look.py   the second look at a batch of places, all of one kind
    attempt.py       the steps at one place; who may use its name, asked right before it is touched
    places.py        sockets, FIFOs, work directories, mounts, hidden bundles
    runtime.py       runc's states, cgroups, and living shims without a bundle

No bundle directory locks the names of these places. So each is held by the object that was judged,
and whatever can be renamed is put aside, compared, and only then removed: whoever makes another of
that name meanwhile has it still, or has got it back. A job goes in, one result for each place comes
out; trouble of the world is a value in it and never an exception.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from reconciler.model.debris import DebrisKind, DebrisResult, Place, PlaceKey
from reconciler.model.outcome import Result, StepResult
from reconciler.worker.blocked import Blocked
from reconciler.worker.context import WorkerContext
from reconciler.worker.debris import places, runtime
from reconciler.worker.debris.attempt import PlaceAttempt, StaysError
from reconciler.worker.debris.second_look import Judged, look_again
from reconciler.worker.messages import DebrisJob, Progress

_REMOVERS: Final[dict[DebrisKind, Callable[[PlaceAttempt, Judged], None]]] = {
    DebrisKind.HIDDEN_BUNDLE: places.remove_hidden,
    DebrisKind.SHIM_SOCKET: places.remove_shim_socket,
    DebrisKind.FIFO_DIR: places.remove_fifos,
    DebrisKind.RUNC_STATE: runtime.remove_runc_state,
    DebrisKind.CGROUP: runtime.remove_cgroup,
    DebrisKind.WORK_DIR: places.remove_work_dir,
    DebrisKind.MOUNT: places.remove_mount,
    DebrisKind.SHIM: runtime.end_shim_of,
}


def clean(context: WorkerContext, job: DebrisJob) -> tuple[DebrisResult, ...]:
    """Judge places once more and remove those that are still the same and still debris.

    Args:
        context: What the worker keeps between jobs.
        job: Places of one kind.

    Returns:
        A result for each place, in order.
    """
    if not job.places:
        return ()
    judged = look_again(context, job)
    # Of mounts on each other the last goes first; for others the order does not matter.
    order = sorted(job.places, key=lambda one: one.identity.mount_id, reverse=True)
    done: dict[PlaceKey, DebrisResult] = {}
    for one in order:
        over = tuple(done.values())
        done[one.key] = _remove(context, one, judged[one.key], over)
        context.note(Progress(places=tuple(done.values())))
    return tuple(done[one.key] for one in job.places)


def _remove(
    context: WorkerContext, place: Place, judged: Judged | str, over: tuple[DebrisResult, ...]
) -> DebrisResult:
    """Remove one place, unless the second look disagrees, and say what came of it.

    ``over``: what came of others before; noted along, should the worker be lost.
    """

    def note(progress: Progress) -> None:
        context.note(replace(progress, place=place.key, places=over))

    blank = DebrisResult(place.key, place.identity, Result.SKIPPED)
    if isinstance(judged, str):
        return replace(blank, detail=judged)
    begin = context.clock.monotonic()
    attempt = PlaceAttempt(context, note)
    try:
        _REMOVERS[place.key.kind](attempt, judged)
    except StaysError as stays:
        blank = replace(blank, detail=str(stays))
    except Blocked as blocked:
        blank = replace(blank, result=Result.BLOCKED, reason=blocked.reason, detail=str(blocked))
    else:
        blank = _concluded(blank, attempt)
    seconds = context.clock.monotonic() - begin
    return replace(blank, steps=tuple(attempt.record.steps), seconds=seconds)


def _concluded(blank: DebrisResult, attempt: PlaceAttempt) -> DebrisResult:
    """Say what came of an attempt that nothing kept from its end."""
    steps = attempt.record.steps
    if all(one.result is StepResult.NOTHING for one in steps):
        return replace(blank, detail="it is gone")
    warned = (one.detail for one in steps if one.result is StepResult.WARNING)
    return replace(blank, result=Result.CLEANED, detail="; ".join(warned))
