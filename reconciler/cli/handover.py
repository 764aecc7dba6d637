"""Handing over: `clean` beside a daemon that acts on the same tree has the daemon remove it.

Two that remove from one tree would be in each other's way, so a guard refuses the second. Here the
second looks, shows its plan and asks; what it was told to remove it asks the daemon for, which
looks twice, and keeps to its own guards, policies and brakes.

A request shortens the daemon's waits to the time between two looks, and says nothing of ours. So
what has to wait for longer, by a rule or by what was typed, is not asked for. It is for the objects
that were shown, of debris as of bundles.
"""

from collections.abc import Iterator, Mapping, Sequence
from threading import Event
from typing import Final

from msgspec.structs import replace

from reconciler.cli.daemon_beliefs import agrees
from reconciler.cli.daemon_client import Daemon
from reconciler.cli.debris import key_of
from reconciler.cli.output import Output
from reconciler.cli.passes import Found
from reconciler.clock import SystemClock
from reconciler.decide.debris_track import DebrisView
from reconciler.decide.due import BETWEEN_LOOKS
from reconciler.decide.views import BundleView
from reconciler.model.debris import PlaceKey, RequestedPlace
from reconciler.model.decisions import Phase
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Result
from reconciler.model.policy import Policy
from reconciler.present import formatting, shapes
from reconciler.present.beliefs import Belief, Beliefs, DebrisBelief, Progress, Reply
from reconciler.present.debris_results import is_debris, untouched
from reconciler.setup import Setup

PATIENCE: Final = 60.0
"""Seconds for which its outcomes are waited for; it goes on after that."""

_EVERY: Final = 0.1
_EVERY_DEBRIS: Final = 0.5
_ON_ITS_WAY: Final = frozenset({Phase.WAITING, Phase.DUE, Phase.CLEANING})
_WAITED: Final = frozenset({Phase.DUE, Phase.CLEANING, Phase.HELD})
_NOT_HANDED_OVER: Final = "not handed over"
_RESTARTED: Final = "the daemon was restarted meanwhile"


def without_waiting(
    plan: Found, planned: Sequence[shapes.ResultShape], setup: Setup, told: Beliefs
) -> list[shapes.ResultShape]:
    """Give a plan in which what may not go yet is skipped, and says how long it waits."""
    views = {view.key: view for view in plan.views}
    beliefs = {one.key: one for one in told.bundles}
    results: list[shapes.ResultShape] = []
    for one in (one for one in planned if not is_debris(one)):
        key = formatting.key_of(one)
        wait = 0.0
        if one.result == shapes.PLANNED:
            policy = setup.policies.named(views[key].policy)
            wait = _wait(views[key], policy, beliefs.get(key))
        results.append(_waits(views[key], setup, wait) if wait > 0 else one)
    left = _debris_views(plan)
    for one in filter(is_debris, planned):
        wait = 0.0
        if one.result == shapes.PLANNED:
            wait = _debris_wait(left[key_of(one)], setup, told)
        results.append(
            _debris_waits(left[key_of(one)], _NOT_HANDED_OVER, wait) if wait > 0 else one
        )
    return results


def is_undone(results: Sequence[shapes.ResultShape]) -> bool:
    """Whether anything was not asked for, or nobody knows what came of it."""
    return any(one.reason in {_NOT_HANDED_OVER, _RESTARTED} for one in results)


def _wait(view: BundleView, policy: Policy, belief: Belief | None) -> float:
    """Seconds until a bundle may be handed over; 0 if no wait of ours would be shortened.

    The daemon knows since when it is a leftover, so a rule's grace may be over for it. What was
    typed begins with this command.
    """
    due = view.due_in_seconds or 0.0
    rest = due if due > BETWEEN_LOOKS else 0.0
    if rest and policy.between_looks <= BETWEEN_LOOKS and belief is not None:
        if belief.phase in _WAITED:
            rest = 0.0
        elif belief.phase is Phase.WAITING and belief.due_in_seconds is not None:
            rest = min(rest, belief.due_in_seconds)
    return max(rest, policy.threshold - view.age_seconds)


def _waits(view: BundleView, setup: Setup, seconds: float) -> shapes.ResultShape:
    detail = f"{_NOT_HANDED_OVER}: waits {formatting.age(seconds)} more"
    return shapes.kept(view, setup.layout, Result.SKIPPED, _NOT_HANDED_OVER, detail)


def hand_over(
    plan: Found,
    keys: Sequence[BundleKey],
    setup: Setup,
    output: Output,
    places: Sequence[PlaceKey] = (),
) -> list[shapes.ResultShape]:
    """Ask the daemon for these bundles and this debris, and wait; gives what came of them.

    Raises:
        NoDaemonError: It has ended meanwhile.
        KeyboardInterrupt: The operator does not wait; the daemon goes on.
    """
    daemon, clock, pause = Daemon(setup.socket), SystemClock(), Event()
    began, until = clock.wall(), clock.monotonic() + PATIENCE
    left = _debris_views(plan)
    reply = daemon.clean(keys, _debris_objects(places, left))
    output.say(f"the daemon (pid {reply.pid}) was asked to remove what is planned")
    if reply.hold:
        output.complain(f"it is held: {reply.hold}")
    refused = {formatting.key_of(one): one.refused for one in reply.bundles}
    asked = [key for key in keys if not refused[key]]
    told = daemon.beliefs(asked) if asked else None
    progress = daemon.requested() if places else None
    while clock.monotonic() < until:
        is_cleaning = told is not None and _is_at_work(told, reply.pid)
        goes_on = progress is not None and _is_at_debris(progress, reply.pid)
        if not (is_cleaning or goes_on):
            break
        pause.wait(_EVERY if is_cleaning else _EVERY_DEBRIS)
        told = daemon.beliefs(asked) if is_cleaning else told
        progress = daemon.requested() if goes_on else progress
    views = {view.key: view for view in plan.views}
    results = [
        shapes.kept(views[key], setup.layout, Result.PROTECTED, why)
        for key, why in refused.items()
        if why
    ]
    if told is not None:
        results += [_result(views[key], told, setup, began=began, pid=reply.pid) for key in asked]
    if progress is not None:
        results += _results_of_debris(reply, left, progress)
    return results


def _results_of_debris(
    reply: Reply, left: Mapping[PlaceKey, DebrisView], told: Progress
) -> Iterator[shapes.ResultShape]:
    """Say what came of each piece of debris that was asked for."""
    unknown = _RESTARTED, f"{_RESTARTED}: what came of it is not known"
    for one in reply.debris:
        if one.refused:
            yield untouched(left[one.key], Result.PROTECTED.value, one.refused)
        else:
            yield _debris_result(left[one.key], told, reply.pid, unknown)


def _is_at_work(told: Beliefs, pid: int) -> bool:
    """Whether the daemon of this pid goes on; another one knows nothing of the request."""
    return told.pid == pid and any(one.phase in _ON_ITS_WAY for one in told.bundles)


def _result(
    view: BundleView, told: Beliefs, setup: Setup, *, began: float, pid: int
) -> shapes.ResultShape:
    """Say what came of one: of its last attempt, or of where it stands.

    Only the daemon that was asked (``pid``) has removed what it does not know any more. One that
    came after it may not have looked yet.
    """
    for one in told.recent:
        if formatting.key_of(one.result) == view.key and one.at >= began:
            return one.result
    if told.pid != pid:
        detail = f"{_RESTARTED}: what came of it is not known"
        return shapes.kept(view, setup.layout, Result.SKIPPED, _RESTARTED, detail)
    belief = next((one for one in told.bundles if one.key == view.key), None)
    if belief is None:
        return shapes.kept(view, setup.layout, Result.CLEANED, "", "the daemon has removed it")
    result = Result.HELD if belief.phase is Phase.HELD else Result.SKIPPED
    return shapes.kept(view, setup.layout, result, belief.cause or "the daemon goes on with it")


_GOES_ON: Final = "the daemon goes on with it"


def _debris_views(plan: Found) -> dict[PlaceKey, DebrisView]:
    """Give what a plan found outside of bundles, by its place."""
    return {view.place.key: view for view in plan.debris}


def _debris_wait(view: DebrisView, setup: Setup, told: Beliefs) -> float:
    """Seconds until debris may be handed over; 0 if no wait of ours would be shortened."""
    belief = next((one for one in told.debris if one.key == view.place.key), None)
    policy, due = setup.policies.applied_to_place(view.place), view.due_in_seconds or 0.0
    rest = due if due > BETWEEN_LOOKS else 0.0
    if rest and policy.between_looks <= BETWEEN_LOOKS and belief and agrees(view, belief):
        rest = _debris_rest(belief, rest)
    return max(rest, policy.threshold - (view.age or 0.0))


def _debris_rest(belief: DebrisBelief, rest: float) -> float:
    """Give what is left of a rule's grace, which may be over for the daemon."""
    if belief.phase in _WAITED:
        return 0.0
    is_waiting = belief.phase is Phase.WAITING and belief.due_in_seconds is not None
    return min(rest, belief.due_in_seconds or 0.0) if is_waiting else rest


def _debris_waits(view: DebrisView, reason: str, seconds: float) -> shapes.ResultShape:
    """Say that it was not asked for, and how long it waits."""
    shape = untouched(view, Result.SKIPPED.value, reason)
    return replace(shape, detail=f"{reason}: waits {formatting.age(seconds)} more")


def _debris_objects(
    keys: Sequence[PlaceKey], views: Mapping[PlaceKey, DebrisView]
) -> list[RequestedPlace]:
    """Name the objects that were shown."""
    its = ((key, views[key].place.identity) for key in keys)
    return [RequestedPlace(key, identity.dev, identity.ino) for key, identity in its]


def _is_at_debris(told: Progress, pid: int) -> bool:
    """Whether the daemon of this pid goes on with something that was asked for."""
    moves = any(one.phase in _ON_ITS_WAY and not one.objection for one in told.debris)
    return told.pid == pid and (bool(told.unseen) or moves)


def _debris_result(
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
