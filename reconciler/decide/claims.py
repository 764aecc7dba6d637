"""Claims: shims that serve nobody, and of which only containerd's records can say the rest. Pure.

A shim that lives while its init is dead is containerd's, for as long as it likes. Where an
answering containerd has no such task, it may still have a container or a sandbox of that name, or
of another that the same shim serves. Only where all other witnesses agree that the shim serves
nobody is it asked for those: on a node where nothing is wrong, never.
"""

from collections.abc import Iterable, Mapping
from math import inf, nextafter

from reconciler.decide.asking import Asking
from reconciler.decide.pod_labels import Pods
from reconciler.decide.track import Track
from reconciler.decide.verdicts import may_be_abandoned
from reconciler.model.containerd import ShimGroup
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Answer, Facts, Look, Shim, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.labels import Known
from reconciler.model.policy import Policies


class Claims:
    """Which bundles' shims nobody may claim.

    Args:
        asking: Where fresh answers are requested.
        tracks: Everything that is remembered about every bundle; read only.
    """

    def __init__(self, asking: Asking, tracks: Mapping[BundleKey, Track]) -> None:
        self._asking = asking
        self._tracks = tracks
        self._unclaimed: set[BundleKey] = set()

    def note(self, track: Track, facts: Facts, now: float, *, young: bool) -> None:
        """Take in new facts; the first time that only records are left to ask, have them asked."""
        if not (may_be_abandoned(facts, young) or _is_unserved(track.key, facts)):
            if self._unclaimed:
                self._unclaimed.discard(track.key)
        elif track.key not in self._unclaimed:
            self._unclaimed.add(track.key)
            if facts.recorded is Answer.NONE:
                # Also an answer that was asked for at this very moment did not include it.
                self._asking.want("records", nextafter(now, inf))

    def forget(self, key: BundleKey) -> None:
        """Drop a bundle that is gone."""
        self._unclaimed.discard(key)

    def groups(self) -> list[ShimGroup]:
        """List the shims of which containerd is to be asked; passes over all bundles if any is."""
        found = {self.group_of(key) for key in self._unclaimed}
        return sorted(group for group in found if group)

    def group_of(self, key: BundleKey) -> ShimGroup:
        """Give the names that a bundle's shim may serve; empty if any of them may be served."""
        track = self._tracks.get(key)
        if key.tree:
            return (key,) if key in self._unclaimed else ()
        shim = track.look.shim if track and track.look else None
        if shim is None or shim.group is None:
            return ()
        members = frozenset(_members(key, shim, self._tracks.values()))
        if not members <= self._unclaimed:
            return ()
        return tuple(sorted(members | {BundleKey(key.namespace, shim.group)}))

    def objection(self, track: Track, wanted: Verdict, policies: Policies, pods: Pods) -> str:
        """Say why what has this verdict may not be ended; empty if it may.

        A shim that serves several is ended for all of them, so each of them must allow it.
        """
        if wanted is not Verdict.LEFTOVER and self._is_of_sandbox(track, wanted):
            return "processes of sandboxes are only reported"
        own = policies.applied(track.key, pods.known(track, self._tracks.get)).objection(wanted)
        if own or wanted is not Verdict.ABANDONED or track.look is None:
            return own
        for key in _members(track.key, track.look.shim, self._tracks.values()):
            known = pods.known(self._tracks[key], self._tracks.get)
            why = objection_to_end_shim(policies, key, known, wanted)
            if why:
                return why if key == track.key else f"{key} may share its shim: {why}"
        return ""

    def _is_of_sandbox(self, track: Track, wanted: Verdict) -> bool:
        """Return whether what would be ended is, or may serve, a sandbox in a tree of its own."""
        if track.key.tree or wanted is not Verdict.ABANDONED or track.look is None:
            return bool(track.key.tree)
        group = track.look.shim.group or track.key.id
        return BundleKey(track.key.namespace, group).sandbox in self._tracks


def _is_unserved(key: BundleKey, facts: Facts) -> bool:
    """Return whether only containerd's records can say that a sandbox is needed no more."""
    return bool(key.tree) and facts.identifier and facts.shim is not ShimState.ALIVE


def objection_to_end_shim(
    policies: Policies, key: BundleKey, known: Known, wanted: Verdict = Verdict.LEFTOVER
) -> str:
    """Say why a bundle may not lose its shim; empty if it may, whichever rule applies to it.

    A rule that needs labels which are not known may be the one.
    """
    possible = [policies.applied(key, known)]
    for rule in policies.rules:
        fits = rule.match.fits(key, known)
        if fits is Answer.YES:
            break
        if fits is Answer.NONE:
            possible.append(rule.policy)
    return next(filter(None, (policy.objection(wanted) for policy in possible)), "")


def _members(key: BundleKey, shim: Shim, tracks: Iterable[Track]) -> Iterable[BundleKey]:
    for track in tracks:
        is_near = track.key.namespace == key.namespace and not track.key.tree
        if track.key == key or (is_near and shares(track.look, shim)):
            yield track.key


def shares(look: Look | None, shim: Shim) -> bool:
    """Return whether a bundle of a shim's namespace may be served by that shim, too.

    Anybody's may be of which neither the group is known nor that its shim is dead.
    """
    if look is None:
        return True
    theirs = look.shim
    if theirs.group is not None:
        return theirs.group == shim.group or (
            theirs.socket is not None and theirs.socket == shim.socket
        )
    return theirs.state is not ShimState.DEAD
