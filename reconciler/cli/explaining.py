"""What `explain` does: looks once, and shows all evidence about one bundle or piece of debris.

A setup and the fork server flow in, words or JSON flow out. Nothing is removed.
"""

import dataclasses
from collections.abc import Iterable

from msgspec.structs import replace

from reconciler.cli.checks import check_listing, warn_of_place
from reconciler.cli.daemon_beliefs import (
    agrees,
    as_believed,
    ask_daemon,
    believed_debris,
    history,
    say_whose,
)
from reconciler.cli.globals import Form
from reconciler.cli.output import Output, envelope
from reconciler.cli.selection import Name, known_of, labels_of
from reconciler.cli.session import look, look_at, ping_one
from reconciler.decide.claims import objection_to_end_shim, shares
from reconciler.decide.views import BundleView
from reconciler.errors import ExitCode, ReconcilerError
from reconciler.model.debris import PlaceKey
from reconciler.model.decisions import Verdict
from reconciler.model.facts import hints
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Listed
from reconciler.model.policy import Policies, Policy
from reconciler.present import explain as explanation
from reconciler.present import formatting
from reconciler.present.beliefs import Beliefs
from reconciler.present.envelope import Document, encode
from reconciler.present.explain import evidence_table, explain_debris
from reconciler.present.table import Table
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
    one = shown.bundle
    head = f"{formatting.name(one)}: {one.verdict}, by rule {one.rule}: {one.reason}"
    tables = evidence_table(shown.evidence), explanation.rules_table(shown)
    _show(shown, form, output, formatting.name(one), (head, f"next: {shown.next}"), *tables)
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


def explain_place(
    setup: Setup, asked: PlaceKey, form: Form, output: Output, server: ForkServerClient
) -> int:
    """Look once, print what is known of a place, and give the exit code."""
    found = look(setup, output, server)
    check_listing(found.listed, setup.layout)
    views = {view.place.key: view for view in found.debris}
    view = views.get(asked)
    if view is None:
        from difflib import get_close_matches  # only who made a mistake pays for it

        near = get_close_matches(str(asked), map(str, views), n=1)
        hint = f"did you mean {near[0]}?" if near else "`containerd-reconciler scan` lists what is"
        raise ReconcilerError(f"{asked} is not there, or somebody uses it", hint)
    told = ask_daemon(setup, output, place=asked)
    beliefs = [] if told is None else told.debris
    belief = next((one for one in beliefs if one.key == asked), None)
    if belief is None or not agrees(view, belief):  # then it goes by what is configured here
        objection = setup.policies.objection_to_debris(view.place)
        policy = setup.policies.applied_to_place(view.place).name
        view = dataclasses.replace(view, policy=policy, objection=objection)
    if told is not None:
        view = believed_debris(view, belief)
    shown = explain_debris(view, setup.policies, envelope=envelope(found.stamp.wall))
    warn_of_place(found.refused, output)
    head = f"{asked}: {view.verdict.value}: {view.reason}"
    _show(
        shown,
        form,
        output,
        str(asked),
        (head, f"next: {shown.next}"),
        evidence_table(shown.evidence),
    )
    say_whose(told, output, setup)
    return ExitCode.DONE


def _show(
    shown: Document,
    form: Form,
    output: Output,
    name: str,
    sentences: Iterable[str],
    *tables: Table,
) -> None:
    """Print an explanation in the form that is asked for."""
    match form:
        case Form.JSON:
            output.json(encode(shown))
        case Form.NAME:
            output.data(f"{name}\n")
        case Form.TABLE | Form.WIDE:
            for sentence in sentences:
                output.prose(sentence)
            for table in tables:
                output.data("\n")
                output.table(table)
