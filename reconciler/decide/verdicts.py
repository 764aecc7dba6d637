"""The verdict table (design section 3) as data: the first rule that fits names the verdict.

:func:`judge` is total: every combination of facts has exactly one verdict, and ``leftover`` needs
every witness. The parent, the worker that is about to remove, ``explain`` and replay all call it.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

import msgspec

from reconciler.model.decisions import Judgement, Verdict
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Facts,
    InitState,
    Kind,
    RuntimeState,
    ShimState,
    TaskState,
)

INIT_GONE: Final = frozenset({InitState.DEAD, InitState.ABSENT})
CGROUP_CLEAR: Final = frozenset({CgroupState.EMPTY, CgroupState.GONE})
RUNTIME_OURS: Final = frozenset({RuntimeState.KNOWN, RuntimeState.UNNAMED})
DENIED: Final = frozenset({TaskState.NOT_LISTED, TaskState.NOT_FOUND})
CONTAINERD_SILENT_FOR_GOOD: Final = frozenset({TaskState.DOWN, TaskState.SKIPPED})


class Rule(msgspec.Struct, frozen=True):
    """One row: ``fits(facts, young)`` decides, ``reason(facts)`` says why in words."""

    number: int
    verdict: Verdict
    fits: Callable[[Facts, bool], bool]
    reason: Callable[[Facts], str]


def _is_foreign(facts: Facts, _young: bool) -> bool:  # noqa: FBT001 - a column of the table
    return facts.kind is not Kind.DIRECTORY or not facts.identifier


def _is_in_transition(facts: Facts, _young: bool) -> bool:  # noqa: FBT001 - a fact
    return facts.helper is Answer.YES


def _is_running(facts: Facts, _young: bool) -> bool:  # noqa: FBT001 - a fact
    """Fit what runs; a sandbox may have no process but its shim (`sandboxer = "shim"`)."""
    is_whole = facts.init is InitState.ALIVE or facts.members is not None
    return facts.shim is ShimState.ALIVE and is_whole


def _is_served_and_new(facts: Facts, young: bool) -> bool:  # noqa: FBT001 - a fact
    return facts.shim is ShimState.ALIVE and facts.init is InitState.ABSENT and young


def _is_abandoned(facts: Facts, young: bool) -> bool:  # noqa: FBT001 - a fact
    """Fit where every witness says that the shim serves nobody, and containerd that it never will.

    Its name is locked by the bundle: no task of it can be made while that stands.
    """
    return (
        facts.shim is ShimState.ALIVE
        and facts.init in INIT_GONE
        and facts.cgroup in CGROUP_CLEAR
        and facts.runtime in RUNTIME_OURS
        and facts.task in DENIED
        and facts.recorded is Answer.NO
        and not unanswered(facts)
        and not young
    )


def _is_stopped(facts: Facts, young: bool) -> bool:  # noqa: FBT001 - a fact
    """Fit what is containerd's.

    1. A task whose shim lives.
    2. A sandbox that containerd knows, or bundles of whose pod are there: it goes after them.
    """
    if facts.members is None:
        return facts.shim is ShimState.ALIVE and facts.init in INIT_GONE
    is_kept = facts.members is Answer.YES or facts.task is TaskState.LISTED
    return is_kept and not _is_orphaned(facts, young)


def _is_orphaned(facts: Facts, _young: bool) -> bool:  # noqa: FBT001 - a fact
    return facts.shim is ShimState.DEAD and (
        facts.init is InitState.ALIVE or facts.cgroup is CgroupState.POPULATED
    )


def unanswered(facts: Facts) -> tuple[str, ...]:
    """Name the witnesses needed to prove death that gave no answer."""
    missing = {
        "shim helpers": facts.helper is Answer.NONE,
        "shim": facts.shim not in (ShimState.ALIVE, ShimState.DEAD),
        "init process": facts.init is InitState.NONE,
        "cgroup": facts.cgroup not in (CgroupState.POPULATED, *CGROUP_CLEAR),
        "runtime": facts.runtime is RuntimeState.NONE,
        "end of creation": facts.init is InitState.ABSENT and facts.created is Answer.NONE,
        "containerd": facts.task is TaskState.NONE,
        "bundles of its pod": facts.members is Answer.NONE,
    }
    return tuple(name for name, is_missing in missing.items() if is_missing)


def _is_unknown(facts: Facts, _young: bool) -> bool:  # noqa: FBT001 - a fact
    return facts.runtime not in RUNTIME_OURS or bool(unanswered(facts))


def _is_being_created(facts: Facts, young: bool) -> bool:  # noqa: FBT001 - a fact
    return (
        facts.init is InitState.ABSENT
        and facts.created is Answer.NO
        and facts.task not in CONTAINERD_SILENT_FOR_GOOD
        and young
    )


def _is_leftover(facts: Facts, _young: bool) -> bool:  # noqa: FBT001 - a fact
    return _is_dead(facts) and facts.runtime in RUNTIME_OURS


def _is_dead(facts: Facts) -> bool:
    return (
        facts.shim is ShimState.DEAD
        and facts.init in INIT_GONE
        and facts.cgroup in CGROUP_CLEAR
        and facts.helper is Answer.NO
        and facts.task is not TaskState.NONE
        and facts.members is not Answer.NONE
    )


def is_alien_and_dead(facts: Facts) -> bool:
    """Return whether nothing that we can see lives of a bundle of an unknown runtime.

    It stays unknown, for such a runtime may live where we do not look, in a virtual machine say;
    but it is worth knowing that one was left.
    """
    return facts.runtime is RuntimeState.ALIEN and _is_dead(facts)


def _why_foreign(facts: Facts) -> str:
    if facts.kind is not Kind.DIRECTORY:
        what = "a symlink" if facts.kind is Kind.SYMLINK else "something else"
        return f"not a directory but {what}"
    return "containerd could not have created this name"


def _why_running(facts: Facts) -> str:
    return "shim and init live" if facts.init is InitState.ALIVE else "shim lives and serves a pod"


def _why_stopped(facts: Facts) -> str:
    if facts.members is None:
        return f"shim lives, init is {facts.init.value}"
    who = "containerd keeps" if facts.task is TaskState.LISTED else "bundles of its pod use"
    return f"shim {facts.shim.value}, and {who} the sandbox"


def _why_abandoned(facts: Facts) -> str:
    init, cgroup = facts.init.value, facts.cgroup.value
    return f"shim lives and serves nobody: init {init}, cgroup {cgroup}, unknown to containerd"


def _why_orphaned(facts: Facts) -> str:
    who = "init lives" if facts.init is InitState.ALIVE else "its cgroup holds processes"
    return f"shim is dead but {who}: containerd cannot manage it"


def _why_unknown(facts: Facts) -> str:
    if facts.runtime is RuntimeState.ALIEN:
        what = "runtime is not one whose leftovers are known"
        dead = f"shim dead, init {facts.init.value}, cgroup {facts.cgroup.value}"
        return f"{what}; {dead}" if is_alien_and_dead(facts) else what
    return "no answer from: " + ", ".join(unanswered(facts))


def _why_leftover(facts: Facts) -> str:
    says = "containerd still lists it" if facts.task is TaskState.LISTED else facts.task.value
    return f"shim dead, init {facts.init.value}, cgroup {facts.cgroup.value}, {says}"


RULES: Final[tuple[Rule, ...]] = (
    Rule(1, Verdict.FOREIGN, _is_foreign, _why_foreign),
    Rule(2, Verdict.IN_TRANSITION, _is_in_transition, lambda _: "a shim helper works on it"),
    Rule(3, Verdict.RUNNING, _is_running, _why_running),
    Rule(4, Verdict.STARTING, _is_served_and_new, lambda _: "shim lives, init is not there yet"),
    Rule(4, Verdict.ABANDONED, _is_abandoned, _why_abandoned),
    Rule(4, Verdict.STOPPED, _is_stopped, _why_stopped),
    Rule(5, Verdict.ORPHANED, _is_orphaned, _why_orphaned),
    Rule(6, Verdict.UNKNOWN, _is_unknown, _why_unknown),
    Rule(7, Verdict.STARTING, _is_being_created, lambda _: "young, creation has not finished"),
    Rule(8, Verdict.LEFTOVER, _is_leftover, _why_leftover),
)


@cache
def may_be_abandoned(facts: Facts, young: bool) -> bool:  # noqa: FBT001 - a column of the table
    """Return whether only containerd's records are left to ask: then, and only then, they are.

    Remembered as judgements are: it follows from the row alone.
    """
    asked = facts._replace(recorded=Answer.NO)
    return judge(asked, young).verdict is Verdict.ABANDONED


_FALLBACK: Final = Judgement(Verdict.UNKNOWN, 6, "no rule fits: assumed alive")


@cache
def judge(facts: Facts, young: bool) -> Judgement:  # noqa: FBT001 - a column of the table
    """Judge one bundle. Remembered: there are few rows, and equal judgements share one object.

    Args:
        facts: What every witness said.
        young: Whether its age is below ``settle``.

    Returns:
        The first fitting row of :data:`RULES`; ``unknown`` should none fit.
    """
    for rule in RULES:
        if rule.fits(facts, young):
            claimed = rule.verdict is Verdict.LEFTOVER and facts.task is TaskState.LISTED
            return Judgement(rule.verdict, rule.number, rule.reason(facts), claimed)
    return _FALLBACK
