"""Touched: which bundles a new word of the witnesses may change, and which stay as they are. Pure.

On a busy node a shim comes or goes several times a second, and thousands of leftovers may wait in
the same namespace. To judge all of them again each time would keep the loop from everything else.
"""

from typing import Final

from reconciler.decide.hearsay import NodeChange
from reconciler.decide.track import Track
from reconciler.model.decisions import Phase, Verdict
from reconciler.model.evidence import ShimState
from reconciler.model.ids import BundleKey

_SETTLED: Final = frozenset({Phase.WAITING, Phase.DUE, Phase.BLOCKED, Phase.PROTECTED})
_DEAF: Final = frozenset({ShimState.DEAD, ShimState.UNNAMED})


def is_touched(track: Track, change: NodeChange, appointed: float | None, now: float) -> bool:
    """Tell whether a bundle that is not plainly alive must be judged again.

    ``appointed`` is when it is to be thought about anyway.
    """
    key, seen = track.key, track.first_seen
    if not change.touches(key, seen):
        return False
    if change.speaks_of(key, seen) or not _is_indifferent(track, change.shims):
        return True
    return appointed is not None and appointed <= now


def _is_indifferent(track: Track, shims: frozenset[BundleKey]) -> bool:
    """Tell whether other shims of its namespace cannot change what is believed of a leftover.

    Its shim is known to be none of those that came or went (``shims``), its group is known, and so
    are its labels: the same facts, phase and policy would come out.
    """
    look = track.look
    return (
        look is not None
        and track.verdict is Verdict.LEFTOVER
        and track.phase in _SETTLED
        and track.labels.known
        and look.shim.state in _DEAF
        and look.shim.group is not None
        and BundleKey(track.key.namespace, look.shim.group) not in shims
    )
