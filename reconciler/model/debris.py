"""Debris: what is left outside a bundle (design section 3), as evidence and as a verdict. Pure.

A *place* is a socket, directory, control group, mount or process that an inventory found where
containerd, its shims and runc keep what belongs to a bundle, and that no bundle explains. Two
questions decide what it is. Does anybody live in it? May something that is still there own it?
Both have three answers, and "no answer" is never a no.
"""

import re
from typing import Final

import msgspec
from typing_extensions import override

from reconciler.model.evidence import Answer
from reconciler.model.ids import NOWHERE, BundleKey, Identity
from reconciler.model.outcome import BlockReason, Outcome, Result, Step
from reconciler.model.values import Tagged, Value, Word


class DebrisKind(Word):
    """What kind of thing was left behind."""

    HIDDEN_BUNDLE = "hidden-bundle"
    SHIM_SOCKET = "shim-socket"
    FIFO_DIR = "fifo-dir"
    RUNC_STATE = "runc-state"
    CGROUP = "cgroup"
    WORK_DIR = "work-dir"
    MOUNT = "mount"
    SHIM = "shim"


class PlaceKey(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The address of a place: ``<kind>:<path>``, the path escaped; a shim's is its pid."""

    kind: DebrisKind
    path: str

    @override
    def __str__(self) -> str:
        """Give the form people read and type."""
        return f"{self.kind.value}:{self.path}"


class Place(Value, frozen=True):
    """One thing that no bundle explains, as one inventory found it.

    Attributes:
        key: Its address.
        identity: Which object that was.
        namespace, id: Whose it was, as far as its name says; empty where it says nothing.
        since: Its last sign of life: when it was last changed, seconds since the epoch.
        lives: Whether anybody lives in it: listens, runs or may still come to open it.
        owned: Whether something that is still there may own it: a bundle of this or of another
            containerd's tree, a living shim or helper, a task containerd lists.
        detail: What was found, for people.
        unproven: It is nobody's, and only its name says that it was a container's. So ``owned`` is
            no answer, unless who judges has seen that container, or its id shows it.
    """

    key: PlaceKey
    identity: Identity
    namespace: str = ""
    id: str = ""
    since: float = 0.0
    lives: Answer = Answer.NONE
    owned: Answer = Answer.NONE
    detail: str = ""
    unproven: bool = False

    @property
    def is_drawn(self) -> bool:
        """Whether its id is one of 32 random bytes, as Kubernetes' plugin and Docker draw them.

        No administrator calls a group like that. A member of a pod that dies while it is created
        leaves nothing but its group: its shim, and so the socket, is that of the sandbox.
        """
        return _DRAWN.fullmatch(self.id) is not None


_DRAWN: Final = re.compile("[0-9a-f]{64}")
UNPROVEN: Final = "nothing shows that it was a container's"


class RequestedPlace(Value, frozen=True, array_like=True):
    """A place that somebody asked to have removed, and which object that was for him.

    Mounts have other numbers where a daemon lives, so that of its mount says nothing.
    """

    key: PlaceKey
    dev: int
    ino: int

    def means(self, identity: Identity) -> bool:
        """Return whether it is this object."""
        return (self.dev, self.ino) == (identity.dev, identity.ino)


class Inventory(Tagged, frozen=True, tag="inventory"):
    """What an inventory found of each kind that it could look for.

    Attributes:
        since: Monotonic time at which it began.
        looked: The kinds that were looked for, and whose places could all be listed.
        places: What no bundle explains; nothing that is known to live or to be owned.
        troubles: Why other kinds were not looked for, one line each, for people.
        seconds: How long it took.
        more: Whether there is more than it names.
    """

    since: float
    looked: tuple[DebrisKind, ...] = ()
    places: tuple[Place, ...] = ()
    troubles: tuple[str, ...] = ()
    seconds: float = 0.0
    more: bool = False


class DebrisResult(Value, frozen=True):
    """What came of one place.

    Attributes:
        key, identity: The place that was judged, and which object that was.
        result: ``cleaned``, ``blocked``, ``failed``, ``held``, ``protected``; or ``skipped``: the
            second look disagreed, or it went by itself.
        reason: Set if blocked or held.
        detail: One line for people.
        steps: What was done, in order.
        seconds: How long it took.
    """

    key: PlaceKey
    identity: Identity
    result: Result
    reason: BlockReason | None = None
    detail: str = ""
    steps: tuple[Step, ...] = ()
    seconds: float = 0.0


WHOLE_BATCH: Final = Outcome(BundleKey("", ""), NOWHERE, Result.FAILED)
"""What comes of a batch as a whole is told as an outcome that names no bundle."""


def results_of(
    places: tuple[Place, ...],
    outcome: Outcome,
    over: tuple[DebrisResult, ...] = (),
    under_way: PlaceKey | None = None,
) -> tuple[DebrisResult, ...]:
    """Give each place of a batch what came of the whole batch.

    Args:
        places: The batch.
        outcome: What came of it.
        over: What had come of some places by then: that is theirs.
        under_way: The place whose steps the outcome tells.
    """
    own = {one.key: one for one in over}
    shared = (outcome.result, outcome.reason, outcome.detail)
    return tuple(
        own.get(one.key)
        or DebrisResult(
            one.key, one.identity, *shared, outcome.steps if one.key == under_way else ()
        )
        for one in places
    )


class DebrisCleaned(Tagged, frozen=True, tag="debris-cleaned"):
    """What came of a batch: one result for each place that was asked for, always."""

    results: tuple[DebrisResult, ...]
