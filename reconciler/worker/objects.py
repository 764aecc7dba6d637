"""Objects: what a name outside the bundle meant when it was looked at, for comparing later.

A device and an inode number are not enough: a disk gives a freed number to the next file at once.
The time of birth is of the object alone. Where a filesystem keeps none (cgroups) it is 0, and the
kernel counts the numbers of cgroups on and gives none twice (kernfs). Reads only.
"""

from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.ids import NOWHERE, Identity
from reconciler.probe.beneath import identity_of
from reconciler.worker.record import Kept


class ObjectId(NamedTuple):
    """One object, whatever is called so later.

    Attributes:
        identity: What a removal compares while it holds the object open.
        born_ns: When it was made, 0 where that is not kept.
    """

    identity: Identity
    born_ns: int


HIDDEN: Final = b".reconciler-"
"""Put before the name of what is taken out of use: always the same, so that the next run finds what
one that was killed began. No id begins with a dot."""

NOTHING: Final = ObjectId(NOWHERE, 0)
"""Of what is there and could not be looked at."""


def object_of(seen: kernel.Stat) -> ObjectId:
    """Give the object that a stat was taken of."""
    return ObjectId(identity_of(seen), seen.btime_ns)


def find(path: bytes) -> ObjectId | None:
    """Give the object at a path; None if there is none, or if that cannot be known.

    Both lead to the same: what is there later was not judged and is kept.
    """
    try:
        return object_of(kernel.statx(kernel.AT_FDCWD, path))
    except OSError:
        return None


def check_object(seen: kernel.Stat, expected: ObjectId | None, what: str) -> None:
    """Raise Kept unless this is the object that was judged."""
    if expected is None:
        raise Kept(f"{what} has appeared since the bundle was judged")
    if object_of(seen) != expected:
        raise Kept(f"{what} is another one than was judged")
