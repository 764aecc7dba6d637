"""Members: which sandboxes have bundles of their pod in the tree of tasks. Pure.

That a sandbox stays as long as it has any is a rule of :mod:`reconciler.decide.verdicts`.

A sandbox's shim serves the containers of its pod, so its bundle stays as long as one of theirs may
be there. Nothing is kept before the first sandbox is seen: few nodes have any.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from reconciler.decide.queue import PriorityQueue
from reconciler.decide.track import Track
from reconciler.model.evidence import Answer, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Listed

_Pod = tuple[str, str | None]
"""Namespace and group; the group is None for who may be anybody's member."""


class Members:
    """Counts the bundles of each pod.

    Args:
        tracks: Everything that is remembered about every bundle.
        timers: When a bundle is to be thought about: a sandbox whose pod has changed is at once,
            but from the top.
    """

    def __init__(self, tracks: Mapping[BundleKey, Track], timers: PriorityQueue) -> None:
        self._tracks = tracks
        self._timers = timers
        self._sandboxes: dict[str, set[BundleKey]] = {}
        self._pods: dict[BundleKey, _Pod] = {}
        self._counts: Counter[_Pod] = Counter()
        self._is_listed = False  # the whole tree, at the last attempt
        self._are_listed: dict[str, bool] = {}  # namespaces, at later ones

    def note(self, track: Track, now: float) -> None:
        """Take in a bundle that was met or looked at."""
        key = track.key
        if key.tree:
            if not self._sandboxes:
                for other in self._tracks.values():
                    self._count(other)
            self._sandboxes.setdefault(key.namespace, set()).add(key)
        elif self._sandboxes:
            self._judge_again(key.namespace, self._count(track), now)

    def forget(self, key: BundleKey, now: float) -> None:
        """Drop a bundle that is gone."""
        if not key.tree:
            pod = self._pods.pop(key, None)
            if pod is not None:
                self._judge_again(key.namespace, [self._take(pod)], now)
            return
        there = self._sandboxes.get(key.namespace, set())
        there.discard(key)
        if not there:
            self._sandboxes.pop(key.namespace, None)
        if not self._sandboxes:
            self._pods, self._counts = {}, Counter()

    def listed(self, listed: Listed, now: float) -> None:
        """Take in whether a listing was answered.

        Events may be lost, so only a listing tells that there is no further member.
        """
        namespace = listed.namespace
        if namespace is None:
            self._is_listed = listed.answered
            self._are_listed.clear()
        else:
            self._are_listed[namespace] = listed.answered
        for one in sorted(self._sandboxes) if namespace is None else (namespace,):
            self._judge_again(one, ((one, None),), now)

    def of(self, key: BundleKey) -> Answer:
        """Return whether bundles of a sandbox's pod are there; no answer if some may be."""
        if self._counts[key.namespace, key.id]:
            return Answer.YES
        if self._counts[key.namespace, None] or not self._names_all(key.namespace):
            return Answer.NONE
        return Answer.NO

    def _names_all(self, namespace: str) -> bool:
        return self._are_listed.get(namespace, self._is_listed)

    def _count(self, track: Track) -> list[_Pod]:
        """Count a bundle as its pod's; give the pods that have another number now."""
        key = track.key
        before, pod = self._pods.get(key), None if key.tree else _pod_of(track)
        if before == pod:
            return []
        if pod is None:
            del self._pods[key]
        else:
            self._pods[key] = pod
            self._counts[pod] += 1
        return [one for one in (before and self._take(before), pod) if one]

    def _take(self, pod: _Pod) -> _Pod:
        self._counts[pod] -= 1
        if not self._counts[pod]:
            del self._counts[pod]
        return pod

    def _judge_again(self, namespace: str, pods: Iterable[_Pod], now: float) -> None:
        ids = {id_ for _, id_ in pods}
        for key in sorted(self._sandboxes.get(namespace, ())) if ids else ():
            if None in ids or key.id in ids:
                self._tracks[key].weighed_with = None
                self._timers.set(key, now)


def _pod_of(track: Track) -> _Pod | None:
    """Say whose member a bundle is; None if its shim is dead and nothing tells whose that was."""
    namespace, look = track.key.namespace, track.look
    if look is None:
        return namespace, None
    if look.shim.group is None and look.shim.state is ShimState.DEAD:
        return None
    return namespace, look.shim.group
