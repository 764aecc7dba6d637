"""What `explain KIND:PATH` does: looks once, and shows what is known of one piece of debris."""

from dataclasses import replace
from difflib import get_close_matches

from reconciler.cli.beside import agrees, ask_daemon, believed_debris, say_whose
from reconciler.cli.options import Form
from reconciler.cli.output import Output, envelope
from reconciler.cli.preflight import check_listing, warn_of_place
from reconciler.cli.session import look
from reconciler.errors import ExitCode, ReconcilerError
from reconciler.model.debris import PlaceKey
from reconciler.present.envelope import encode
from reconciler.present.explain_debris import evidence_table, explain_debris
from reconciler.setup import Setup
from reconciler.worker.client import ForkServerClient


def explain_place(
    setup: Setup, asked: PlaceKey, form: Form, output: Output, server: ForkServerClient
) -> int:
    """Look once, print what is known of a place, and give the exit code."""
    found = look(setup, output, server)
    check_listing(found.listed, setup.layout)
    views = {view.place.key: view for view in found.debris}
    view = views.get(asked)
    if view is None:
        near = get_close_matches(str(asked), map(str, views), n=1)
        hint = f"did you mean {near[0]}?" if near else "`containerd-reconciler scan` lists what is"
        raise ReconcilerError(f"{asked} is not there, or somebody uses it", hint)
    told = ask_daemon(setup, output, place=asked)
    beliefs = [] if told is None else told.debris
    belief = next((one for one in beliefs if one.key == asked), None)
    if belief is None or not agrees(view, belief):  # then it goes by what is configured here
        objection = setup.policies.objection_to_debris(view.place)
        view = replace(view, policy=setup.policies.applied_to_place(view.place).name)
        view = replace(view, objection=objection)
    if told is not None:
        view = believed_debris(view, belief)
    shown = explain_debris(view, setup.policies, envelope=envelope(found.stamp.wall))
    warn_of_place(found.refused, output)
    match form:
        case Form.JSON:
            output.json(encode(shown))
        case Form.NAME:
            output.data(f"{asked}\n")
        case Form.TABLE | Form.WIDE:
            output.prose(f"{asked}: {view.verdict.value}: {view.reason}")
            output.prose(f"next: {shown.next}")
            output.data("\n")
            output.table(evidence_table(shown))
    say_whose(told, output, setup)
    return ExitCode.DONE
