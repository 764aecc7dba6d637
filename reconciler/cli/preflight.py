"""Is this a containerd state directory, may we read it, and could everything be learnt?

What :func:`reconciler.probe.checks.check_tree` found wrong becomes one line with a hint, and the
exit code that fits. Nothing is touched.
"""

import os

from reconciler.cli.output import Output
from reconciler.cli.work import Found
from reconciler.decide.views import BundleView
from reconciler.errors import NoWorkerError, ReconcilerError, RefusedError
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import CgroupState
from reconciler.model.ids import escape
from reconciler.model.layout import Layout
from reconciler.model.observations import Listed, Refusal, is_transient
from reconciler.probe.checks import ProblemKind, check_tree


def check_state(layout: Layout, *, may_be_missing: bool = False) -> None:
    """Raise unless the state directory is one and can be read.

    Args:
        layout: Where it should be.
        may_be_missing: Whether containerd may not have run since the boot, so that a directory
            that is missing or empty is only not there yet.
    """
    problem = check_tree(layout)
    if problem is None:
        return
    match problem.kind:
        case ProblemKind.MISSING if may_be_missing:
            return
        case ProblemKind.NOT_CONTAINERD if may_be_missing and not os.listdir(layout.state):
            return
        case ProblemKind.NO_PERMISSION | ProblemKind.DANGEROUS:
            raise RefusedError(problem.what, problem.hint)
        case _:
            raise ReconcilerError(problem.what, problem.hint)


def check_guards(refused: tuple[Refusal, ...]) -> None:
    """Raise if a guard refuses."""
    if refused:
        what = "; ".join(refusal.reason for refusal in refused)
        raise NoWorkerError(what) if is_transient(refused) else RefusedError(what)


def check_listing(listed: Listed, layout: Layout) -> None:
    """Raise if the state tree could not be listed after all."""
    if not listed.answered:
        raise RefusedError(f"cannot list {escape(layout.tasks)}", "run as root")


def complain_of_silence(found: Found, output: Output) -> None:
    """Say why bundles are unknown if that is because containerd gives no answer."""
    if found.containerd_missing:
        output.complain(
            f"containerd gives no answer ({found.node.containerd.detail}); start it, "
            "check --address and --root, or say --without-containerd"
        )
    scan = found.node.processes
    if not scan.answered and found.blind:
        output.complain(
            "no worker could tell which processes run, so nothing is known to be dead; run it again"
        )
    for one in scan.unread:
        whose = "any bundle" if one.key is None else str(one.key)
        output.complain(
            f"process {one.pid} may be the shim of {whose} and does not say so: its command line "
            f"cannot be read; see what it waits for in /proc/{one.pid}/stack"
        )
    if scan.unplaced and any(_has_no_cgroup(view) for view in found.views):
        output.complain(
            f"process {scan.unplaced} may be of any bundle whose cgroup is not known: the path of "
            "its own is too long to be told"
        )


def _has_no_cgroup(view: BundleView) -> bool:
    facts = view.facts
    return view.judgement.verdict is Verdict.UNKNOWN and facts.cgroup is CgroupState.NONE


def complain_of_absence(asked: frozenset[str], found: Found, output: Output) -> None:
    """Say which of the namespaces that were asked for hold nothing: it may be a typing error."""
    there = {view.key.namespace for view in found.views} | {
        one.key.namespace for one in found.hidden
    }
    for name in sorted(asked - there):
        output.say(f"there is no bundle in namespace {name}")
