"""Debris: what the places are that no bundle explains, and when they are looked for. Pure.

The table is total, as that of the bundles' verdicts is: every combination of answers has exactly
one verdict, and ``debris`` needs every witness. An inventory belongs to a listing: it is asked for
when one has come, at most once in :data:`PAUSE`. What containerd says counts only if it was asked
after the inventory began.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from reconciler.decide.nodestate import NodeState
from reconciler.model.containerd import Containerd, ContainerdState
from reconciler.model.debris import DebrisKind, Inventory, Place
from reconciler.model.evidence import Answer, TaskState
from reconciler.model.facts import task_of
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Stamp
from reconciler.model.words import Word

PAUSE: Final = 240.0
"""Seconds between two inventories, however often the tree must be listed."""

AGES: Final = {
    DebrisKind.HIDDEN_BUNDLE: 600.0,
    DebrisKind.SHIM_SOCKET: 600.0,
    DebrisKind.FIFO_DIR: 3600.0,
    DebrisKind.RUNC_STATE: 600.0,
    DebrisKind.CGROUP: 600.0,
    DebrisKind.WORK_DIR: 600.0,
    DebrisKind.MOUNT: 0.0,
    DebrisKind.SHIM: 0.0,
}
"""Seconds since its last sign of life from which a place may be debris: a socket that is bound and
does not listen yet refuses, and a client makes its FIFOs before it asks for its task."""

_SAID: Final = {
    DebrisKind.HIDDEN_BUNDLE: "a removal of containerd's that was cut short",
    DebrisKind.SHIM_SOCKET: "nobody listens, and no bundle names it",
    DebrisKind.FIFO_DIR: "nothing that is there has this id",
    DebrisKind.RUNC_STATE: "no bundle",
    DebrisKind.CGROUP: "empty, and no bundle",
    DebrisKind.WORK_DIR: "no bundle, and containerd knows no such task",
    DebrisKind.MOUNT: "mounted below no bundle",
    DebrisKind.SHIM: "a shim without a bundle, and without children",
}
_UNNAMED: Final = frozenset({DebrisKind.SHIM_SOCKET, DebrisKind.MOUNT, DebrisKind.HIDDEN_BUNDLE})
"""Kinds about which containerd's list of tasks says nothing."""

_KNOWS: Final = {
    TaskState.LISTED: Answer.YES,
    TaskState.NOT_LISTED: Answer.NO,
    TaskState.NOT_FOUND: Answer.NO,
    TaskState.DOWN: Answer.NO,
    TaskState.SKIPPED: Answer.NO,
    TaskState.NONE: Answer.NONE,
}


class DebrisVerdict(Word):
    """What a place is."""

    USED = "used"
    OWNED = "owned"
    UNKNOWN = "unknown"
    YOUNG = "young"
    DEBRIS = "debris"


SHOWN: Final = frozenset({DebrisVerdict.DEBRIS, DebrisVerdict.UNKNOWN, DebrisVerdict.YOUNG})
"""What is worth showing: what is left, and what may be or become so."""


@dataclass(frozen=True, slots=True)
class DebrisView:
    """A place as it is shown.

    Attributes:
        place: What was found.
        verdict: What it is.
        reason: Why, in one line.
        age: Seconds since its last sign of life; None where nothing tells.
    """

    place: Place
    verdict: DebrisVerdict
    reason: str
    age: float | None


def judge_place(place: Place, task: Answer, age: float | None) -> tuple[DebrisVerdict, str]:
    """Judge one place; the first rule that fits gives the verdict.

    1. Somebody lives in it: used.
    2. Something that is there may own it, or containerd lists its task: owned.
    3. A witness gave no answer: unknown. Waiting never makes it debris.
    4. It is younger than its kind must be: young.
    5. Debris.

    Args:
        place: What was found.
        task: Whether containerd knows a task of its name; no answer if it was not asked since.
        age: Seconds since its last sign of life, None where nothing tells: then it has none.
    """
    kind, detail = place.key.kind, place.detail
    knows = Answer.NO if kind in _UNNAMED else task
    answers = {"who lives in it": place.lives, "who owns it": place.owned, "containerd": knows}
    missing = [who for who, answer in answers.items() if answer is Answer.NONE]
    if place.lives is Answer.YES:
        return DebrisVerdict.USED, detail or "somebody lives in it"
    if Answer.YES in (place.owned, knows):
        return DebrisVerdict.OWNED, "something that is there may own it"
    if missing:
        return DebrisVerdict.UNKNOWN, f"no answer from: {', '.join(missing)}"
    if age is not None and age < AGES[kind]:
        return DebrisVerdict.YOUNG, f"younger than {AGES[kind]:.0f} s"
    return DebrisVerdict.DEBRIS, "; ".join(filter(None, (_SAID[kind], detail)))


def known_task(place: Place, containerd: Containerd, ids: Set[str]) -> Answer:
    """Return whether containerd knows a task of a place's name; without a namespace, of its id.

    ``ids`` are those of the tasks that it lists.
    """
    if place.namespace:
        return _KNOWS[task_of(BundleKey(place.namespace, place.id), containerd)]
    if place.id in ids and containerd.state is ContainerdState.UP:
        return Answer.YES
    silent = containerd.state is ContainerdState.NONE or bool(containerd.unlisted)
    return Answer.NONE if silent else Answer.NO


class Debris:
    """The last inventory, and whether another is wanted.

    Args:
        node_state: What the node's witnesses said last.
    """

    def __init__(self, node_state: NodeState) -> None:
        self._node_state = node_state
        self._asked_at = float("-inf")
        self._wanted = False
        self._under_way = False
        self._last: Inventory | None = None

    def listed(self, now: float) -> None:
        """Take note that the whole tree was listed."""
        self._wanted = now - self._asked_at >= PAUSE

    @property
    def pending(self) -> bool:
        """Whether an inventory is under way, or still to be asked for."""
        return self._wanted or self._under_way

    def ask(self, now: float) -> bool:
        """Return whether an inventory is to be taken now."""
        if self._under_way or not self._wanted:
            return False
        self._wanted, self._under_way, self._asked_at = False, True, now
        return True

    def receive(self, inventory: Inventory) -> None:
        """Take in an inventory; of kinds that it did not look for the last one counts no more."""
        self._under_way = False
        self._last = inventory

    @property
    def looked(self) -> frozenset[DebrisKind]:
        """The kinds that the last inventory has looked for."""
        return frozenset(() if self._last is None else self._last.looked)

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why other kinds were not looked for."""
        return () if self._last is None else self._last.troubles

    def views(self, stamp: Stamp) -> Iterator[DebrisView]:
        """Judge every place that the last inventory has found."""
        last = self._last
        if last is None:
            return
        is_asked = self._node_state.covers(last.since + last.seconds)
        node = self._node_state.node
        is_blind = node.foreign_processes or node.foreign_mounts
        containerd = node.containerd
        ids = {key.id for key in containerd.tasks}
        for place in last.places:
            task = known_task(place, containerd, ids) if is_asked else Answer.NONE
            age = max(0.0, stamp.wall - place.since) if place.since else None
            # From a foreign namespace nobody is seen: no shim, no process, perhaps no mount.
            seen = replace(place, lives=Answer.NONE, owned=Answer.NONE) if is_blind else place
            yield DebrisView(place, *judge_place(seen, task, age), age)
