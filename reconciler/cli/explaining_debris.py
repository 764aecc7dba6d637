"""What `explain KIND:PATH` does: looks once, and shows what is known of one piece of debris."""

from difflib import get_close_matches

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
    return ExitCode.DONE
