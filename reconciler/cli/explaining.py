"""What `explain` does: looks at one bundle, and shows all evidence about it and what follows.

A setup and the fork server flow in, words or JSON flow out. Nothing is removed.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from reconciler.cli.beside import as_believed, ask_daemon, history, say_whose
from reconciler.cli.options import Form
from reconciler.cli.output import Output, envelope
from reconciler.cli.preflight import check_listing, warn_of_place
from reconciler.cli.selection import Name, known_of, labels_of
from reconciler.cli.session import look_at, ping_one
from reconciler.decide.claims import objection_to_end_shim, shares
from reconciler.decide.views import BundleView
from reconciler.errors import ExitCode, ReconcilerError
from reconciler.model.decisions import Verdict
from reconciler.model.facts import hints
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Listed
from reconciler.model.policy import Policies, Policy
from reconciler.present import explain as explanation
from reconciler.present import words
from reconciler.present.beliefs import Beliefs
from reconciler.present.envelope import encode
from reconciler.setup import Setup
from reconciler.worker.client import ForkServerClient


def explain(  # noqa: PLR0913 - what is asked, and how it is shown
    setup: Setup,
    asked: Name,
    form: Form,
    output: Output,
    server: ForkServerClient,
    *,
    ask_shim: bool = False,
) -> int:
    """Look at the bundle that is meant, print why it is what it is, and give the exit code.

    ``ask_shim``: send its shim a request, too; nothing else of this program ever does unasked.
    """

    def choose(listed: Listed) -> BundleKey:
        check_listing(listed, setup.layout)
        return asked.the_one([seen.key for seen in listed.bundles])

    key, found = look_at(setup, choose, server)
    told = ask_daemon(setup, output, (key,))
    found = as_believed(found, told)
    view = next((view for view in found.views if view.key == key), None)
    if view is None:
        raise ReconcilerError(f"{key} went away while it was looked at")
    ping = ping_one(setup, key) if ask_shim else None
    shown = explanation.explain(
        view,
        setup.layout,
        _policy(view, setup.policies, told),
        envelope=envelope(found.stamp.wall),
        young=view.age_seconds < setup.policies.settle,
        containerd=found.node.containerd.detail,
        why_policy=_why_policy(view, found.views, setup.policies),
        hints=hints(key, view.look, found.node),
        unplaced=found.node.processes.unplaced,
        stuck=[one.pid for one in found.node.processes.unread if one.key in (None, key)],
        history=history(told, key, found.stamp.wall),
        pids={shim.key: shim.pid for shim in found.node.processes.shims},
        answers=None if ping is None else (ping.answers, ping.pid, ping.detail),
        keeps_shim=keeps_shim(view, found.views, setup.policies),
    )
    warn_of_place(found.refused, output)
    _show(shown, form, output)
    say_whose(told, output, setup)
    return ExitCode.DONE


def _policy(view: BundleView, policies: Policies, told: Beliefs | None) -> Policy:
    named = policies.named(view.policy)
    return named if told is None else replace(named, enforce=view.enforce)


def _why_policy(view: BundleView, views: Iterable[BundleView], policies: Policies) -> str:
    return policies.why(view.policy, view.key, known_of(view, labels_of(views)))


def keeps_shim(view: BundleView, views: Iterable[BundleView], policies: Policies) -> str:
    """Say which other bundle keeps the shim of this one; empty if none does.

    A shim that serves several is ended for all of them, so each of them must allow it. Where this
    run would end nothing anyway, only what would keep it in one that enforces counts.
    """
    views = tuple(views)
    labels, enforced = labels_of(views), policies
    if not policies.named(view.policy).enforce:
        rules = tuple(
            replace(rule, policy=replace(rule.policy, enforce=True)) for rule in policies.rules
        )
        default = replace(policies.default, enforce=True)
        enforced = replace(policies, default=default, rules=rules)
    for other in views:
        is_near = other.key != view.key and other.key.namespace == view.key.namespace
        if is_near and shares(other.look, view.look.shim):
            known = known_of(other, labels)
            why = objection_to_end_shim(enforced, other.key, known, Verdict.ABANDONED)
            if why:
                return f"{other.key} may share it: {why}"
    return ""


def _show(shown: explanation.Explanation, form: Form, output: Output) -> None:
    one = shown.bundle
    match form:
        case Form.JSON:
            output.json(encode(shown))
        case Form.NAME:
            output.data(f"{one.namespace}/{one.id}\n")
        case Form.TABLE | Form.WIDE:
            output.prose(f"{words.name(one)}: {one.verdict}, by rule {one.rule}: {one.reason}")
            output.prose(f"next: {shown.next}")
            output.data("\n")
            output.table(explanation.evidence_table(shown))
            output.data("\n")
            output.table(explanation.rules_table(shown))
