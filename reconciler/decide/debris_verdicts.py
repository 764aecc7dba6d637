"""Debris verdicts: what the places are that no bundle explains. Pure.

The table is total, as that of the bundles' verdicts is: every combination of answers has exactly
one verdict, and ``debris`` needs every witness. What containerd says counts only if it was asked
after the inventory began. :mod:`reconciler.decide.debris_cycle` says what becomes of debris.
"""

from collections.abc import Iterator, Set
from typing import Final, NamedTuple

from msgspec.structs import replace

from reconciler.decide.nodestate import NodeState
from reconciler.model.containerd import Containerd, ContainerdState
from reconciler.model.debris import UNPROVEN, DebrisKind, Inventory, Place
from reconciler.model.evidence import Answer, TaskState
from reconciler.model.facts import task_of
from reconciler.model.ids import BundleKey
from reconciler.model.policy import Policies
from reconciler.model.values import Word

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
ORDER: Final = (
    DebrisKind.MOUNT,
    DebrisKind.RUNC_STATE,
    DebrisKind.CGROUP,
    DebrisKind.SHIM_SOCKET,
    DebrisKind.FIFO_DIR,
    DebrisKind.WORK_DIR,
    DebrisKind.HIDDEN_BUNDLE,
    DebrisKind.SHIM,
)
"""What goes first where several kinds are due.

Mounts are in the way of others. A state of runc's is the lock of its name: a cgroup of that name
stays while it stands, and it takes along the cgroups that it names, before it goes itself, for
nothing else may name them. Sockets and work directories go after the cgroups: where the state is
gone they are all that shows one to be a container's and not an administrator's. The rest as in a
cleanup of a bundle."""

DRAWN: Final = "its id was drawn by a program"
SEEN: Final = "its container was seen while it had a bundle"

UNNAMED: Final = frozenset({DebrisKind.SHIM_SOCKET, DebrisKind.MOUNT, DebrisKind.HIDDEN_BUNDLE})
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


class DebrisJudgement(NamedTuple):
    """What one place is, and why.

    Attributes:
        place: What was found, as far as it counts.
        verdict: What it is.
        reason: Why, in one line.
        task: Whether containerd knows a task of its name.
        age: Seconds since its last sign of life; None where nothing tells.
    """

    place: Place
    verdict: DebrisVerdict
    reason: str
    task: Answer
    age: float | None


def judge_place(
    place: Place, task: Answer, age: float | None, least: float | None = None
) -> tuple[DebrisVerdict, str]:
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
        least: What that must be at least; None for what :data:`AGES` says of its kind.
    """
    kind, detail = place.key.kind, place.detail
    knows = Answer.NO if kind in UNNAMED else task
    answers = {"who lives in it": place.lives, "who owns it": place.owned, "containerd": knows}
    missing = [who for who, answer in answers.items() if answer is Answer.NONE]
    if place.lives is Answer.YES:
        return DebrisVerdict.USED, detail or "somebody lives in it"
    if Answer.YES in (place.owned, knows):
        return DebrisVerdict.OWNED, "something that is there may own it"
    if missing:
        return DebrisVerdict.UNKNOWN, f"no answer from: {', '.join(missing)}"
    least = AGES[kind] if least is None else least
    if age is not None and age < least:
        return DebrisVerdict.YOUNG, f"younger than {least:.0f} s"
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


def judge_all(
    inventory: Inventory, node_state: NodeState, policies: Policies, wall: float | None
) -> Iterator[DebrisJudgement]:
    """Judge every place of an inventory by what the node's witnesses said last.

    Args:
        inventory: What was found.
        node_state: What the witnesses said; containerd counts only if it was asked since.
        policies: Say how old a place of each kind must be.
        wall: Seconds since the epoch; None where the age of a place counts no more.
    """
    is_asked = node_state.covers(inventory.since + inventory.seconds)
    node = node_state.node
    is_blind = node.foreign_processes or node.foreign_mounts
    ids = {key.id for key in node.containerd.tasks}
    is_up = node.containerd.state is ContainerdState.UP
    for place in inventory.places:
        task = known_task(place, node.containerd, ids) if is_asked else Answer.NONE
        age = max(0.0, wall - place.since) if place.since and wall is not None else None
        least = policies.debris_of(place.key.kind).age
        # From a foreign namespace nobody is seen: no shim, no process, perhaps no mount.
        proven = (
            _as_proven(place, node_state, is_up=is_asked and is_up) if place.unproven else place
        )
        seen = replace(proven, lives=Answer.NONE, owned=Answer.NONE) if is_blind else proven
        verdict, reason = judge_place(seen, task, age, least)
        yield DebrisJudgement(seen, verdict, reason, task, age)


def _as_proven(place: Place, node_state: NodeState, *, is_up: bool) -> Place:
    """Say of what its name alone calls a container's whether it was: where we saw that container.

    Or where its id was drawn by a program.

    Only while containerd answers, which would know of another one of that name.
    """
    if is_up and node_state.had_cgroup(BundleKey(place.namespace, place.id), place.since):
        return replace(place, owned=Answer.NO, detail=SEEN)
    if is_up and place.is_drawn:
        return replace(place, owned=Answer.NO, detail=DRAWN)
    return replace(place, owned=Answer.NONE, detail=UNPROVEN)
