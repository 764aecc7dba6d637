"""Handing over debris: what of a plan the daemon is asked to remove, and what came of it.

As of bundles (`reconciler.cli.handover`): a request shortens the daemon's waits to the time between
two looks, so what has to wait for longer is not asked for. It is for the objects that were shown.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from reconciler.cli.daemon_beliefs import agrees
from reconciler.cli.debris import key_of
from reconciler.cli.passes import Found
from reconciler.decide.debris_track import DebrisView
from reconciler.decide.due import BETWEEN_LOOKS
from reconciler.model.debris import PlaceKey, RequestedPlace
from reconciler.model.decisions import Phase
from reconciler.model.outcome import Result
from reconciler.present import shapes, words
from reconciler.present.beliefs import Beliefs, DebrisBelief, Progress
from reconciler.present.debris_results import untouched
from reconciler.setup import Setup

_ON_ITS_WAY: Final = frozenset({Phase.WAITING, Phase.DUE, Phase.CLEANING})
_WAITED: Final = frozenset({Phase.DUE, Phase.CLEANING, Phase.HELD})
_GOES_ON: Final = "the daemon goes on with it"


def views_of(plan: Found) -> dict[PlaceKey, DebrisView]:
    """Give what a plan found outside of bundles, by its place."""
    return {view.place.key: view for view in plan.debris}


def wait_of(view: DebrisView, setup: Setup, told: Beliefs) -> float:
    """Seconds until debris may be handed over; 0 if no wait of ours would be shortened."""
    belief = next((one for one in told.debris if one.key == view.place.key), None)
    policy, due = setup.policies.applied_to_place(view.place), view.due_in_seconds or 0.0
    rest = due if due > BETWEEN_LOOKS else 0.0
    if rest and policy.between_looks <= BETWEEN_LOOKS and belief and agrees(view, belief):
        rest = _left(belief, rest)
    return max(rest, policy.threshold - (view.age or 0.0))


def _left(belief: DebrisBelief, rest: float) -> float:
    """Give what is left of a rule's grace, which may be over for the daemon."""
    if belief.phase in _WAITED:
        return 0.0
    is_waiting = belief.phase is Phase.WAITING and belief.due_in_seconds is not None
    return min(rest, belief.due_in_seconds or 0.0) if is_waiting else rest


def waits(view: DebrisView, reason: str, seconds: float) -> shapes.ResultShape:
    """Say that it was not asked for, and how long it waits."""
    shape = untouched(view, Result.SKIPPED.value, reason)
    return replace(shape, detail=f"{reason}: waits {words.age(seconds)} more")


def objects(keys: Sequence[PlaceKey], views: Mapping[PlaceKey, DebrisView]) -> list[RequestedPlace]:
    """Name the objects that were shown."""
    its = ((key, views[key].place.identity) for key in keys)
    return [RequestedPlace(key, identity.dev, identity.ino) for key, identity in its]


def is_at_work(told: Progress, pid: int) -> bool:
    """Whether the daemon of this pid goes on with something that was asked for."""
    moves = any(one.phase in _ON_ITS_WAY and not one.objection for one in told.debris)
    return told.pid == pid and (bool(told.unseen) or moves)


def result_of(
    view: DebrisView, told: Progress, pid: int, unknown: tuple[str, str]
) -> shapes.ResultShape:
    """Say what came of one: of its last attempt, or of where it stands.

    ``unknown``: what is said where another daemon than the one that was asked (``pid``) answers.
    """
    key = view.place.key
    came = next((one for one in told.came if key_of(one) == key), None)
    if came is not None:
        return came
    if told.pid != pid:
        reason, detail = unknown
        return replace(untouched(view, Result.SKIPPED.value, reason), detail=detail)
    belief = next((one for one in told.debris if one.key == key), None)
    if belief is None:
        detail = _GOES_ON if told.unseen else "the daemon finds no debris there any more"
        return replace(untouched(view, Result.SKIPPED.value), detail=detail)
    if belief.objection:
        return untouched(view, Result.PROTECTED.value, belief.objection)
    result = Result.HELD if belief.phase is Phase.HELD else Result.SKIPPED
    return replace(untouched(view, result.value), detail=belief.cause or _GOES_ON)
