"""Is this a containerd state directory, may we read it, and could everything be learnt?

What :func:`reconciler.probe.checks.check_tree` found wrong becomes one line with a hint, and the
exit code that fits. Nothing is touched.
"""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from reconciler.cli.output import Output
from reconciler.errors import (
    NoContainerdError,
    NoWorkerError,
    ReconcilerError,
    RefusedError,
    UsageError,
)
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import CgroupState
from reconciler.model.ids import escape, unescape
from reconciler.model.layout import Layout
from reconciler.model.observations import SPOILS_LOOKING, Listed, Refusal, is_transient
from reconciler.present import formatting
from reconciler.probe.checks import ProblemKind, check_tree, out_of_sight
from reconciler.settings.instances import KNOWN, instances_here

if TYPE_CHECKING:
    from reconciler.cli.passes import Found
    from reconciler.decide.views import BundleView

_SHOWN: Final = 5
_QUIET: Final = Output(quiet=True)


def check_state(layout: Layout, output: Output = _QUIET, *, may_be_missing: bool = False) -> None:
    """Raise unless the state directory is one and can be read.

    Args:
        layout: Where it should be.
        output: Where it is said if it is waited for, and another containerd is there.
        may_be_missing: Whether containerd may not have run since the boot, so that a directory
            that is missing or empty is only not there yet.
    """
    problem = check_tree(layout)
    if problem is None:
        return
    match problem.kind:
        case ProblemKind.MISSING if may_be_missing:
            if elsewhere := _elsewhere(layout):
                output.say(f"{problem.what} yet; {elsewhere}")
            return
        case ProblemKind.NOT_CONTAINERD if may_be_missing and not os.listdir(layout.state):
            return
        case ProblemKind.NO_PERMISSION | ProblemKind.DANGEROUS:
            raise RefusedError(problem.what, problem.hint)
        case ProblemKind.UNREADABLE:
            raise ReconcilerError(problem.what, problem.hint)
        case _:
            raise NoContainerdError(problem.what, _elsewhere(layout) or problem.hint)


def _elsewhere(layout: Layout) -> str:
    """Name the products whose containerd is here, and what to type for them."""
    found = [name for name in instances_here() if KNOWN[name]["state"].encode() != layout.state]
    if not found:
        return ""
    names = " or ".join(f"--instance {name}" for name in found)
    return f"there is that of {', '.join(found)}: say {names}"


def check_namespaces(
    layout: Layout, asked: Iterable[str], output: Output, *, may_come: bool = False
) -> None:
    """Raise if a namespace that is asked for does not exist: it may be a typing error.

    What nobody can see there because of mounts is said first.

    Args:
        layout: Where to look.
        asked: Which are asked for.
        output: Where it is said instead, of one that may come yet.
        may_come: Whether it is waited for.

    Raises:
        UsageError: There is none of that name.
    """
    asked = frozenset(asked)
    for line in out_of_sight(layout, asked):
        output.complain(f"warning: {line}")
    tasks = layout.tasks
    for name in sorted(asked):
        if os.path.lexists(os.path.join(tasks, unescape(name))):
            continue
        what, hint = f"there is no namespace {name} in {escape(tasks)}", _meant(tasks, name)
        if not may_come:
            raise UsageError(what, hint)
        output.say(f"{what} yet")


def _meant(tasks: bytes, name: str) -> str:
    from difflib import get_close_matches  # only who made a mistake pays for it

    try:
        known = sorted(map(escape, os.listdir(tasks)))
    except OSError:
        known = []
    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are {', '.join(known[:_SHOWN])}" if known else "there is none at all"


def warn_of_place(refused: Iterable[Refusal], output: Output) -> None:
    """Say before an answer what it is not worth, where not all that lives can be seen from here."""
    for one in refused:
        if one.guard in SPOILS_LOOKING:
            output.complain(f"warning: not everything can be seen from here: {one.reason}")


def check_guards(refused: tuple[Refusal, ...]) -> None:
    """Raise if a guard refuses."""
    if refused:
        what = "; ".join(refusal.reason for refusal in refused)
        raise NoWorkerError(what) if is_transient(refused) else RefusedError(what)


def check_listing(listed: Listed, layout: Layout) -> None:
    """Raise if the state tree could not be listed after all."""
    if not listed.answered:
        raise RefusedError(f"cannot list {escape(layout.tasks)}", "run as root")


def complain_of_silence(found: "Found", output: Output) -> None:
    """Say why bundles are unknown if that is because containerd gives no answer."""
    if found.containerd_missing:
        output.complain(
            f"containerd gives no answer ({found.node.containerd.detail}); start it, "
            "check --address and --root, or say --without-containerd"
        )
    if not found.listed.sandboxes:
        output.complain(formatting.unread(found.listed))
    scan = found.node.processes
    if not scan.answered and found.blind:
        output.complain(
            "no worker could tell which processes run, so nothing is known to be dead; run it again"
        )
    for one in scan.unread:
        output.complain(formatting.stuck(one.pid, "" if one.key is None else str(one.key)))
    if scan.unplaced and any(_has_no_cgroup(view) for view in found.views):
        output.complain(
            f"process {scan.unplaced} may be of any bundle whose cgroup is not known: the path of "
            "its own is too long to be told"
        )


def _has_no_cgroup(view: "BundleView") -> bool:
    facts = view.facts
    return view.judgement.verdict is Verdict.UNKNOWN and facts.cgroup is CgroupState.NONE


def complain_of_absence(asked: frozenset[str], found: "Found", output: Output) -> None:
    """Say which of the namespaces that were asked for hold nothing: it may be a typing error."""
    there = {view.key.namespace for view in found.views} | {
        one.key.namespace for one in found.hidden
    }
    for name in sorted(asked - there):
        output.say(f"there is no bundle in namespace {name}")
