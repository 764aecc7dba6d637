"""`explain`: every piece of evidence about a bundle or debris, and what follows from it. Pure.

A :class:`~reconciler.decide.views.BundleView` or
:class:`~reconciler.decide.debris_track.DebrisView` flows in, shapes and tables flow out.
The rules are asked here exactly as the engine asks them, so that what is shown is what decides.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from reconciler.decide.debris_track import DebrisView
from reconciler.decide.debris_verdicts import AGES, UNNAMED, DebrisVerdict
from reconciler.decide.foreign_mounts import foreign_mount
from reconciler.decide.verdicts import RULES
from reconciler.decide.views import BundleView
from reconciler.model.cgroups import CgroupSource, usual_path
from reconciler.model.debris import DebrisKind
from reconciler.model.decisions import Phase, Verdict
from reconciler.model.evidence import ENTRY_NAMES, Answer, CgroupState, Entries, Look
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import Layout
from reconciler.model.policy import Orphans, Policies, Policy, Shims
from reconciler.present import formatting, shapes
from reconciler.present.debris import DebrisShape, debris
from reconciler.present.envelope import Document, Envelope, Shape
from reconciler.present.table import Cell, Column, Table

_SHOWN: Final = 3
"""Paths of cgroups in one line."""


class Piece(Shape, frozen=True):
    """One piece of evidence."""

    evidence: str
    value: str
    detail: str = ""


class RuleTried(Shape, frozen=True):
    """One row of the verdict table; ``fits`` is None for rows after the one that fired."""

    rule: int
    verdict: str
    fits: bool | None = None


class Explanation(Document, frozen=True, kw_only=True, tag=True):
    """The whole of `explain -o json`."""

    bundle: shapes.Bundle
    evidence: list[Piece]
    rules: list[RuleTried]
    next: str
    due_in_seconds: float | None = None


def explain(  # noqa: PLR0913 - all that is told
    view: BundleView,
    layout: Layout,
    policy: Policy,
    *,
    envelope: Envelope,
    young: bool,
    containerd: str = "",
    why_policy: str = "",
    hints: Sequence[str] = (),
    unplaced: int = 0,
    stuck: Sequence[int] = (),
    history: str = "",
    pids: Mapping[BundleKey, int] | None = None,
    answers: tuple[Answer, int, str] | None = None,
    keeps_shim: str = "",
) -> Explanation:
    """Gather everything about one bundle.

    Args:
        view: What the engine believes.
        layout: Where it lies.
        policy: What would apply to it in a run.
        envelope: Where and when it is explained.
        young: Whether its age is below ``settle``.
        containerd: What came of asking it, if not an answer.
        why_policy: Why that policy applies.
        hints: Cgroups of living processes that may be its own.
        unplaced: A process of which the cgroup cannot be known, 0 if there is none.
        stuck: Processes that may be its shim or a helper, and do not answer what they are.
        history: What came of the last attempt.
        pids: Those of shims, by the bundles they were started for.
        answers: Whether its shim answers a request, its pid, and why it was not asked; None where
            nobody wanted to know.
        keeps_shim: Why its shim stays for another's sake; empty if nobody else keeps it.
    """
    due, pid = view.due_in_seconds, view.shim_pid(pids or {})
    who = _stuck(stuck), "" if pid is None else f"pid {pid}"
    return Explanation(
        **envelope,
        bundle=shapes.bundle(view, layout, pids or {}),
        evidence=[
            *_evidence(view, containerd, why_policy, _cgroup(view, hints, unplaced), who),
            *([] if answers is None else [_asked(*answers)]),
            _attempts(view, history),
        ],
        rules=list(_rules(view, young=young)),
        next=next_step(view, policy, keeps_shim),
        due_in_seconds=None if due is None else round(due, 3),
    )


def next_step(view: BundleView, policy: Policy, keeps_shim: str = "") -> str:
    """Say what will happen, and when; ``keeps_shim``: why its shim stays for another's sake."""
    due, cause = view.due_in_seconds, view.cause
    when = "" if due is None else f" in {formatting.age(due)}"
    removed = _done(policy, f"removed{when}")
    again = (
        "" if due is None else f"; tried again in {formatting.age(due)} or as soon as that is gone"
    )
    mount = foreign_mount(view.look.mounts)
    first = "" if mount is None else f"; not before this is gone: {mount}"
    sentences = {
        Phase.NONE: _of_the_living(view, policy, keeps_shim),
        Phase.WAITING: f"{removed}, if it is still a leftover then{first}",
        Phase.DUE: f"{removed}, if one more look agrees{first}",
        Phase.CLEANING: "is being removed",
        Phase.CLEANED: "has been removed",
        Phase.BLOCKED: f"stays: {cause}{again}",
        Phase.PROTECTED: f"nothing: rule {cause!r} protects it",
        Phase.HELD: f"nothing until the brake is released: {cause}",
    }
    return sentences[view.phase]


def _of_the_living(view: BundleView, policy: Policy, keeps_shim: str) -> str:
    verdict, wait = view.judgement.verdict, formatting.age(max(policy.grace, policy.threshold))
    if view.key.tree:
        return "nothing: of sandboxes only leftovers are ever removed"
    if verdict is Verdict.ORPHANED and policy.orphans is Orphans.KILL and not policy.protect:
        when = f" after {wait} without a shim"
        return f"what lives of it {_done(policy, f'ended{when}')}, if it lives still then"
    if verdict is Verdict.ABANDONED and policy.shims is Shims.KILL and not policy.protect:
        if keeps_shim:
            return f"nothing: its shim stays, for {keeps_shim}"
        return f"its shim {_done(policy, f'ended after {wait}')}, if it serves nobody then"
    return "nothing: only leftovers are ever removed"


def _done(policy: Policy, what: str) -> str:
    return f"is {what}" if policy.enforce else f"would be {what} by a run that enforces"


def evidence_table(evidence: Iterable[Piece]) -> Table:
    """One row for each piece of evidence."""
    table = Table((Column("EVIDENCE"), Column("VALUE"), Column("DETAIL", gives_way=True)))
    table.rows += [[Cell(p.evidence), Cell(p.value), Cell(p.detail)] for p in evidence]
    return table


def rules_table(shown: Explanation) -> Table:
    """One row for each rule."""
    fits = {True: "fits", False: "no", None: "not reached"}
    table = Table((Column("RULE", right=True), Column("VERDICT"), Column("FITS")))
    for tried in shown.rules:
        style = formatting.style(tried.verdict) if tried.fits else "dim"
        texts = (str(tried.rule), tried.verdict, fits[tried.fits])
        table.rows.append([Cell(text, style) for text in texts])
    return table


def _evidence(
    view: BundleView,
    containerd: str,
    why_policy: str,
    cgroup: Iterable[str],
    who: tuple[str, str],
) -> Iterator[Piece]:
    look, facts = view.look, view.facts
    helper, shim = who
    wedged = shapes.WEDGED if view.wedged else ""
    socket = look.shim.socket or ""
    group = "" if look.shim.group is None else f"started for {look.shim.group}"
    init = "" if look.init.pid is None else f"pid {look.init.pid}"
    yield _piece("object", look.kind.value, _object(look))
    yield _piece("name", "identifier" if facts.identifier else "not containerd's")
    yield _piece("shim helper", facts.helper.value, helper)
    yield _piece("shim", facts.shim.value, look.shim.detail, wedged, shim, socket, group)
    yield _piece("init", facts.init.value, init, look.init.detail)
    yield _piece("cgroup", facts.cgroup.value, *cgroup)
    yield _piece("runtime", facts.runtime.value, look.runtime.name)
    yield _piece("creation ended", facts.created.value)
    unlisted = shapes.UNLISTED if view.unlisted else ""
    yield _piece("containerd", facts.task.value, unlisted, containerd)
    if facts.recorded is not Answer.NONE:
        yield _piece("its records", facts.recorded.value, "a task, container or sandbox")
    if facts.members is not None:
        yield _piece("its pod", facts.members.value, "bundles of tasks that are or may be of it")
    yield _list("files", _entries(look))
    yield _list("missing", shapes.missing(view.key, look))
    mounts = [f"{mount.path or '.'} ({mount.fstype})" for mount in look.mounts]
    yield _list("mounts", mounts)
    yield _piece("age", formatting.age(view.age_seconds), "since its last sign of life")
    size = formatting.size(look.size_bytes, exact=look.size_exact)
    yield _piece("size", size, f"{look.size_bytes} bytes{'' if look.size_exact else ' or more'}")
    labels = look.labels
    pod = f"{labels.pod_namespace}/{labels.pod}" if labels.pod else ""
    yield _piece("labels", "read" if labels.known else "no answer", pod, labels.container)
    yield _piece("policy", view.policy, why_policy)


def _asked(answers: Answer, pid: int, why_not: str) -> Piece:
    """Say what came of asking a shim; one that never answers is wedged."""
    what = {Answer.YES: "answers", Answer.NO: "wedged", Answer.NONE: answers.value}
    says = "it accepts the connection and never answers" if answers is Answer.NO else why_not
    return _piece("shim asked", what[answers], f"pid {pid}" if pid else "", says)


def _attempts(view: BundleView, history: str) -> Piece:
    tried = f"{view.attempts} failed" if view.attempts else "-"
    return _piece("attempts", tried, history or (view.cause if view.attempts else ""))


def _stuck(pids: Sequence[int]) -> str:
    if not pids:
        return ""
    who = ", ".join(f"pid {pid}" for pid in pids[:_SHOWN])
    return f"{who} may be one, or its shim: the command line cannot be read"


def _cgroup(view: BundleView, hints: Sequence[str], unplaced: int) -> Iterator[str]:
    """Say which path counts: the one its files name, or where somebody lives that may be its."""
    look = view.look
    if look.cgroup_source is not CgroupSource.NONE:
        paths = look.cgroup_paths or (usual_path(view.key),)
        yield f"{', '.join(paths[:_SHOWN])} by {look.cgroup_source.value}"
    elif look.cgroup is CgroupState.UNNAMED:
        yield "no file names it"
        if look.mounts and view.facts.cgroup is CgroupState.NONE:
            yield "whoever uses what is mounted may be in one of any name"
    for path in hints[:_SHOWN]:
        yield f"whoever lives in {path} may be its"
    if len(hints) > _SHOWN:
        yield f"and {len(hints) - _SHOWN} more"
    if unplaced and view.facts.cgroup is CgroupState.NONE:
        yield f"process {unplaced} may live in it: the path of its cgroup is too long to be told"


def _piece(evidence: str, value: str, *details: str) -> Piece:
    return Piece(evidence, value, ", ".join(_line(text) for text in details if text))


def _list(evidence: str, names: Sequence[str]) -> Piece:
    return _piece(evidence, str(len(names)), *names)


def _line(text: str) -> str:
    """Keep what a file said on one printable line."""
    return text if text.isprintable() else escape(text.encode("utf-8", "surrogateescape"))


def _object(look: Look) -> str:
    which = look.identity
    device = f"{os.major(which.dev)}:{os.minor(which.dev)}"
    return f"device {device} inode {which.ino} mount {which.mount_id}"


def _entries(look: Look) -> list[str]:
    names = [name for name, entry in ENTRY_NAMES.items() if entry in look.entries]
    return [*names, "others"] if Entries.OTHER in look.entries else names


def _rules(view: BundleView, *, young: bool) -> Iterator[RuleTried]:
    fired = False
    for rule in RULES:
        fits = None if fired else rule.fits(view.facts, young)
        fired = fired or bool(fits)
        yield RuleTried(rule.number, rule.verdict.value, fits)


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
        evidence=list(_evidence_of_debris(view, policies)),
        next=_next_of_debris(view),
    )


def _evidence_of_debris(view: DebrisView, policies: Policies) -> Iterator[Piece]:
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
    age = "unknown" if view.age is None else formatting.age(view.age)
    yield Piece("age", age, f"at least {formatting.age(least)}")
    if view.debris_for is not None:
        yield Piece(
            "debris for", formatting.age(view.debris_for), "found so by every inventory since"
        )
    yield Piece("policy", view.policy)
    yield Piece("attempts", str(view.attempts or "-"), view.cause if view.attempts else "")


def _next_of_debris(view: DebrisView) -> str:
    """Say what becomes of it."""
    if view.verdict is DebrisVerdict.YOUNG:
        return "it is looked at again when it is older"
    if view.verdict is not DebrisVerdict.DEBRIS:
        return "nothing: it is not known to be debris, and no waiting makes it so"
    if view.objection:
        return f"nothing: {view.objection}"
    due = formatting.due(view.due_in_seconds)
    if view.due_in_seconds is None:
        return f"nothing yet: {view.cause}" if view.cause else "nothing yet"
    if view.phase is Phase.BLOCKED:
        return f"{view.cause}; tried again {due}"
    does = "ended" if view.place.key.kind is DebrisKind.SHIM else "removed"
    return f"{does} {due}, if another inventory finds it debris then"
