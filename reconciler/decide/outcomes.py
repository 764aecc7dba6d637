"""Outcomes: what the end of an attempt means to the bundle that was worked on. Pure.

An outcome goes in; the track moves, is judged anew or forgotten. The engine has settled before that
it is about the very object of this track.
"""

from msgspec.structs import replace

from reconciler.decide.bundles import Bundles
from reconciler.decide.lifecycle import Event, event_of
from reconciler.decide.track import Track
from reconciler.model.decisions import Verdict
from reconciler.model.labels import doubted
from reconciler.model.observations import Stamp
from reconciler.model.outcome import BlockReason, Outcome, Result


def take_outcome(bundles: Bundles, track: Track, outcome: Outcome, stamp: Stamp) -> None:
    """Take in what came of an attempt on one bundle."""
    now = stamp.mono
    # 1. It is gone.
    # 2. A worker has tried. It is tried again after a pause, and where the second look
    #    disagreed the time of continuous observation begins anew, with that look.
    # 3. Nobody has tried: it stands where policies and brakes put it now.
    # 4. Processes were ended. What is left becomes a leftover, with a grace of its own.
    match event_of(outcome):
        case Event.CLEANED:
            track.move(Event.CLEANED)
            bundles.forget(outcome.key, now)
        case Event.FAILED if outcome.result is Result.SKIPPED:
            track.wait_again(now)
            bundles.back_off(track, now, "second look disagreed")
            if outcome.look is not None and outcome.look.identity == track.identity:
                # The worker that made it does not know what annotations rules match on.
                labels = doubted(outcome.look.labels)
                bundles.absorb(track, replace(outcome.look, labels=labels), stamp)
        case Event.FAILED:
            cause = outcome.reason.value if outcome.reason else outcome.result.value
            bundles.back_off(track, now, cause)
        case event if outcome.reason is BlockReason.POLICY:
            track.move(event)
            bundles.reconsider(track, now)
        case event:
            track.move(event)
            track.wait_again()
            if track.verdict is Verdict.ABANDONED:
                track.deaths = None  # its shim's end was ordered
