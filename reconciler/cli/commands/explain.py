"""`explain`: every piece of evidence about one bundle, the rule that fired, what happens when."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import click
from msgspec.structs import replace

from reconciler.cli.beside import as_believed, ask_daemon, history, say_whose
from reconciler.cli.options import Command, Form, Globals, without_containerd
from reconciler.cli.output import Output, envelope
from reconciler.cli.preflight import (
    check_listing,
    check_namespaces,
    check_state,
    warn_of_place,
)
from reconciler.cli.setup import make_setup
from reconciler.cli.values import bundle_key
from reconciler.decide.views import BundleView
from reconciler.errors import ExitCode, ReconcilerError
from reconciler.model.evidence import NO_LABELS
from reconciler.model.ids import BundleKey, escape
from reconciler.model.labels import Known
from reconciler.model.observations import Listed
from reconciler.model.policy import Policies, Policy
from reconciler.model.weighing import hints
from reconciler.present import explain as explanation
from reconciler.present.beliefs import Beliefs
from reconciler.present.envelope import encode


@click.command(cls=Command, name="explain")
@click.argument("bundle", metavar="NAMESPACE/ID")
@without_containerd
@click.pass_obj
def explain(said: Globals, *, bundle: str, without_containerd: bool) -> int:
    """Show all evidence about one bundle and what follows from it.

    The beginning of an ID will do where only one bundle has it.
    """
    from reconciler.cli.session import look_at

    setup = make_setup(said, without_containerd=without_containerd)
    asked = bundle_key(bundle, said.namespace)
    check_state(setup.layout)
    output = Output(quiet=said.quiet)
    check_namespaces(setup.layout, setup.namespaces, output)

    def choose(listed: Listed) -> BundleKey:
        check_listing(listed, setup.layout)
        return find(asked, (seen.key for seen in listed.bundles))

    key, found = look_at(setup, choose)
    told = ask_daemon(setup, output, (key,))
    found = as_believed(found, told)
    view = next((view for view in found.views if view.key == key), None)
    if view is None:
        raise ReconcilerError(f"{key} went away while it was looked at")
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
    )
    warn_of_place(found.refused, output)
    _show(shown, said.form, output)
    say_whose(told, output)
    return ExitCode.DONE


def _policy(view: BundleView, policies: Policies, told: Beliefs | None) -> Policy:
    named = policies.named(view.policy)
    return named if told is None else replace(named, enforce=view.enforce)


def _why_policy(view: BundleView, views: Iterable[BundleView], policies: Policies) -> str:
    return policies.why(view.policy, view.key, known_labels(view, views))


def known_labels(view: BundleView, views: Iterable[BundleView]) -> Known:
    """Join what a bundle and its pod's sandbox tell of its labels."""
    own, key = view.look.labels, view.key
    sandbox = BundleKey(key.namespace, escape(own.sandbox.encode("utf-8", "replace")))
    pod = next((one.look.labels for one in views if one.key == sandbox != key), NO_LABELS)
    return Known(own, pod, is_sandbox=sandbox == key)


def find(asked: BundleKey, known: Iterable[BundleKey]) -> BundleKey:
    """Find the bundle that is meant: the name itself, or the only one that begins like it."""
    keys = list(known)
    if asked in keys:
        return asked
    alike = [k for k in keys if k.namespace == asked.namespace and k.id.startswith(asked.id)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        first, second, *_ = sorted(alike)
        raise ReconcilerError(f"{asked} may be {first} or {second}", "write more of the id")
    near = _near(asked, keys)
    hint = f"did you mean {near}?" if near else "`containerd-reconciler scan` lists what there is"
    raise ReconcilerError(f"there is no bundle {asked}", hint)


def _near(asked: BundleKey, keys: Sequence[BundleKey]) -> BundleKey | None:
    """Find what may be meant: another id of the namespace, or the same id in another one."""
    ids = {key.id: key for key in keys if key.namespace == asked.namespace}
    for name in get_close_matches(asked.id, ids, n=1):
        return ids[name]
    return next((key for key in keys if key.id == asked.id), None)


def _show(shown: explanation.Explanation, form: Form, output: Output) -> None:
    one = shown.bundle
    match form:
        case Form.JSON:
            output.json(encode(shown))
        case Form.NAME:
            output.data(f"{one.namespace}/{one.id}\n")
        case Form.TABLE | Form.WIDE:
            output.data(
                f"{one.namespace}/{one.id}: {one.verdict}, by rule {one.rule}: {one.reason}\n"
            )
            output.data(f"next: {shown.next}\n\n")
            output.table(explanation.evidence_table(shown))
            output.data("\n")
            output.table(explanation.rules_table(shown))
