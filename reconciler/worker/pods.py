"""Pods: which bundles of a namespace a shim may serve, looked at now. Reads only."""

from collections.abc import Iterator

from reconciler.decide.claims import shares
from reconciler.model.evidence import Answer, Look, PartialLook, Shim
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import enter, names, opened
from reconciler.probe.bundle import look_at
from reconciler.worker.blocked import Blocked, blocked_by
from reconciler.worker.context import WorkerContext
from reconciler.worker.neighbours import MOST_BUNDLES


def members(place: WorkerContext, key: BundleKey, shim: Shim) -> Answer:
    """Return whether bundles of a sandbox's pod are there.

    Raises:
        Blocked: They are too many, or they cannot be read.
    """
    try:
        return Answer.YES if next(sharing(place, key, shim), None) else Answer.NO
    except OSError as error:  # also where there is no tree of tasks: nothing can be told by it
        raise blocked_by(error, key.id) from None


def sharing(place: WorkerContext, key: BundleKey, shim: Shim) -> Iterator[tuple[BundleKey, Look]]:
    """Give the other bundles of a namespace that may be served by a shim of it, looked at now.

    Raises:
        Blocked: They are too many, or their namespace cannot be read.
        OSError: The tree cannot be read.
    """
    around = place.nearby(place.scan())
    for number, other in enumerate(_others(place, key)):
        if number >= MOST_BUNDLES:
            why = f"there are more than {MOST_BUNDLES} bundles to ask"
            raise Blocked(BlockReason.SHIM, key.id, why)
        found = look_at(around, other)
        look = found.look if isinstance(found, PartialLook) else found
        if look is not None and shares(look, shim):
            yield other, look


def _others(place: WorkerContext, key: BundleKey) -> Iterator[BundleKey]:
    with opened(place.layout.tasks) as top:
        for namespace in enter(top, (unescape(key.namespace),)):
            if namespace.fd < 0:
                raise Blocked(BlockReason.SHIM, key.id, "its namespace cannot be read")
            for name in list(names(namespace.fd)):
                other = BundleKey(key.namespace, escape(name))
                if other != key and not name.startswith(b"."):
                    yield other
