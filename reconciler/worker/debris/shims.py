"""Shims: ends living ones that have no bundle and serve nobody. Removes nothing.

What there is to prove is the same as of a shim with a bundle (`reconciler.worker.shims`); but it
must have worked in one that was removed from our tree, and no other bundle there may be of its pod:
those keep the shim, whoever of them lives.
"""

from reconciler.model.debris import Place
from reconciler.model.evidence import Shim, ShimState
from reconciler.model.ids import BundleKey, escape
from reconciler.model.outcome import BlockReason
from reconciler.worker.blocked import Blocked
from reconciler.worker.debris.again import Judged
from reconciler.worker.debris.attempt import PlaceAttempt
from reconciler.worker.pods import sharing
from reconciler.worker.shims import ShimTarget, end_shim


def end(attempt: PlaceAttempt, judged: Judged) -> None:
    """End the shim that was judged, if nobody may be served by it.

    Raises:
        StaysError: It stays, on purpose.
        Blocked: It is not shown to be the one that is meant, or does not end.
    """
    context, shim = attempt.context, target(judged.place)

    def look_again() -> None:
        path = context.layout.shim_socket(shim.key.namespace, shim.key.id)
        seen = Shim(ShimState.ALIVE, escape(path), shim.key.id)
        for other, _ in sharing(context, shim.key, seen):
            raise Blocked(BlockReason.SHIM, shim.key.id, f"it may serve {other}")

    attempt.do("shim", lambda tally: end_shim(context, shim, tally, look_again))


def target(place: Place) -> ShimTarget:
    """Read from a place which process it is: its path is the pid, its inode the start time."""
    key = BundleKey(place.namespace, place.id)
    return ShimTarget(key, int(place.key.path), place.identity.ino, has_bundle=False)
