"""`explain KIND:PATH`: what is known of one piece of debris, and what becomes of it. Pure."""

from collections.abc import Iterator

from reconciler.decide.debris_track import DebrisView
from reconciler.decide.debris_verdicts import AGES, UNNAMED, DebrisVerdict
from reconciler.model.debris import DebrisKind
from reconciler.model.decisions import Phase
from reconciler.model.policy import Policies
from reconciler.present import words
from reconciler.present.debris import DebrisShape, debris
from reconciler.present.envelope import Document, Envelope
from reconciler.present.explain import Piece


class DebrisExplanation(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `explain -o json KIND:PATH`."""

    debris: DebrisShape
    evidence: list[Piece]
    next: str


def explain_debris(
    view: DebrisView, policies: Policies, *, envelope: Envelope
) -> DebrisExplanation:
    """Put together what is known of a place, as it was asked.

    Args:
        view: The place; policy and objection are those of whoever would remove it.
        policies: Say how old it must be.
        envelope: What each document begins with.
    """
    return DebrisExplanation(
        **envelope,
        debris=debris(view),
        evidence=list(_evidence(view, policies)),
        next=_next(view),
    )


def _evidence(view: DebrisView, policies: Policies) -> Iterator[Piece]:
    place, kind = view.place, view.place.key.kind
    identity = place.identity
    where = f"device {identity.dev >> 8}:{identity.dev & 255} inode {identity.ino}"
    yield Piece("object", kind.value, f"{where} mount {identity.mount_id}")
    yield Piece("named after", "/".join(filter(None, (place.namespace, place.id))) or "nothing")
    yield Piece("somebody in it", place.lives.value, place.detail)
    yield Piece("an owner", place.owned.value, "a bundle, shim or helper of this name")
    task = "not asked" if kind in UNNAMED else view.task.value
    yield Piece("containerd's task", task, "" if kind not in UNNAMED else "its name is no task's")
    said = policies.debris_of(kind).age
    least = AGES[kind] if said is None else said
    age = "unknown" if view.age is None else words.age(view.age)
    yield Piece("age", age, f"at least {words.age(least)}")
    if view.debris_for is not None:
        yield Piece("debris for", words.age(view.debris_for), "found so by every inventory since")
    yield Piece("policy", view.policy)
    yield Piece("attempts", str(view.attempts or "-"), view.cause if view.attempts else "")


def _next(view: DebrisView) -> str:
    """Say what becomes of it."""
    if view.verdict is DebrisVerdict.YOUNG:
        return "it is looked at again when it is older"
    if view.verdict is not DebrisVerdict.DEBRIS:
        return "nothing: it is not known to be debris, and no waiting makes it so"
    if view.objection:
        return f"nothing: {view.objection}"
    due = words.due(view.due_in_seconds)
    if view.due_in_seconds is None:
        return f"nothing yet: {view.cause}" if view.cause else "nothing yet"
    if view.phase is Phase.BLOCKED:
        return f"{view.cause}; tried again {due}"
    does = "ended" if view.place.key.kind is DebrisKind.SHIM else "removed"
    return f"{does} {due}, if another inventory finds it debris then"
