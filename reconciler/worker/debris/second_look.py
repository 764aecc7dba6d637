"""Second look: what a worker finds of debris just before it acts must still allow it. Reads only.

The same finders and the same table as those of the inventory, but its own look: the places first,
then a pass over /proc, then the trees of bundles. Whatever differs from what was judged ends the
attempt on that place before it is touched. Only containerd's word comes from the parent, and how
long a place must have lain still; so a place of which the last sign of life is another by now has
to wait anew.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec.structs import replace

from reconciler import kernel
from reconciler.decide.debris_verdicts import DebrisVerdict, judge_place, known_task
from reconciler.model.debris import DebrisKind, Place, PlaceKey
from reconciler.model.evidence import Answer, ContainerdState
from reconciler.model.ids import BundleKey, unescape
from reconciler.worker.context import WorkerContext
from reconciler.worker.inventory import take_again
from reconciler.worker.messages import DebrisJob
from reconciler.worker.objects import NOTHING, ObjectId, object_of

_TIMELESS: Final = frozenset({DebrisKind.CGROUP, DebrisKind.MOUNT})
"""Kinds whose times say nothing: the kernel makes up those of a cgroup that it has forgotten."""


class Judged(NamedTuple):
    """A place that is still debris.

    Attributes:
        place: As the second look found it.
        object: Which object that was; nothing for a mount or a shim, which its number and its
            start time tell.
    """

    place: Place
    object: ObjectId

    @property
    def key(self) -> BundleKey:
        """Whose it was, as far as its name says."""
        return BundleKey(self.place.namespace, self.place.id)

    @property
    def path(self) -> bytes:
        """Where it is."""
        return unescape(self.place.key.path)

    @property
    def name(self) -> bytes:
        """Its own name."""
        return self.path.rpartition(b"/")[2]


def look_again(context: WorkerContext, job: DebrisJob) -> Mapping[PlaceKey, Judged | str]:
    """Judge each place of a job once more; of one that must stay, say why."""
    kind = job.places[0].key.kind
    found = take_again(context, kind, frozenset(unescape(one.key.path) for one in job.places))
    ids = frozenset(key.id for key in job.containerd.tasks)
    judged: dict[PlaceKey, Judged | str] = {}
    for place in job.places:
        now = found.places.get(place.key)
        if now is None:
            judged[place.key] = found.trouble or "it is gone"
            continue
        if now.unproven and place.owned is Answer.NO and job.containerd.state is ContainerdState.UP:
            # Whose it was the parent has seen; all else is as it is found now.
            now = replace(now, owned=Answer.NO)
        verdict, reason = judge_place(now, known_task(now, job.containerd, ids), None)
        if verdict is not DebrisVerdict.DEBRIS:
            judged[place.key] = f"{verdict.value}: {reason}"
        elif now.identity != place.identity:
            judged[place.key] = "another object has its name"
        elif kind not in _TIMELESS and now.since != place.since:
            judged[place.key] = "it has changed since it was judged"
        else:
            judged[place.key] = _pin(now)
    return judged


def _pin(place: Place) -> Judged | str:
    """Hold on to the object that was judged by its time of birth, too."""
    if place.key.kind in {DebrisKind.MOUNT, DebrisKind.SHIM}:
        return Judged(place, NOTHING)
    try:
        seen = kernel.statx(kernel.AT_FDCWD, unescape(place.key.path))
    except OSError as error:
        return error.strerror or "it cannot be looked at"
    this = object_of(seen)
    is_later = place.key.kind not in _TIMELESS and max(seen.mtime, seen.btime) > place.since
    if this.identity != place.identity or is_later:
        return "it was replaced while we looked"
    return Judged(place, this)
