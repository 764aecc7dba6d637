"""What `clean --debris` plans for what is left outside of bundles, and what came of it.

What a pass found flows in, results in their promised shape flow out. Nothing is removed here: which
kinds may go is said by the policies of the setup.
"""

from collections.abc import Iterator, Sequence

from reconciler.cli.output import Output
from reconciler.cli.passes import Found
from reconciler.decide.debris_track import DebrisView
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.model.debris import DebrisKind, PlaceKey
from reconciler.model.decisions import Phase
from reconciler.model.outcome import Result
from reconciler.present import debris_results, formatting, shapes
from reconciler.present.debris_results import is_debris
from reconciler.setup import Setup


def planned(found: Found, setup: Setup, *, dry_run: bool) -> Iterator[shapes.ResultShape]:
    """Say what would be removed, of the kinds that were asked for."""
    for view in _asked_for(found, setup):
        policy = setup.policies.applied_to_place(view.place)
        objection = setup.policies.objection_to_debris(view.place)
        due = view.due_in_seconds
        if view.verdict is DebrisVerdict.UNKNOWN and dry_run:
            yield debris_results.untouched(view, shapes.UNKNOWN)
        elif view.verdict is not DebrisVerdict.DEBRIS:
            continue
        elif objection:
            yield debris_results.untouched(view, Result.PROTECTED.value, objection)
        elif due is not None and due <= policy.grace:
            yield debris_results.untouched(view, shapes.PLANNED)


def cleaned(found: Found, setup: Setup) -> Iterator[shapes.ResultShape]:
    """Say what came of debris, and why some of it was not tried."""
    for place, came in found.places:
        yield debris_results.result(place, came)
    tried = {place.key for place, _ in found.places}
    results = {Phase.PROTECTED: Result.PROTECTED, Phase.HELD: Result.HELD}
    for view in _asked_for(found, setup):
        result = results.get(view.phase)
        if result is not None and view.place.key not in tried:
            cause = view.objection or view.cause
            yield debris_results.untouched(view, result.value, cause)


def waiting(found: Found, setup: Setup) -> int:
    """Count the debris whose time has not come."""
    return sum(view.phase is Phase.WAITING for view in _asked_for(found, setup))


def complain(found: Found, output: Output) -> None:
    """Say of which kinds it is not known what is left."""
    if found.left_out:
        kinds, why = ", ".join(kind.value for kind in found.left_out), "; ".join(found.troubles)
        output.complain(f"no answer what is left of {kinds} ({why}); run it again")


def keys(report: shapes.Clean) -> frozenset[PlaceKey]:
    """Name the debris that a plan shows; what falls due later nobody has agreed to."""
    return frozenset(key_of(one) for one in report.results if is_debris(one))


def key_of(one: shapes.ResultShape) -> PlaceKey:
    """Name the place that a result is about."""
    return PlaceKey(DebrisKind(one.kind), one.path)


def counted(results: Sequence[shapes.ResultShape]) -> str:
    """Count bundles and debris that would be removed, in words."""
    chosen = [one for one in results if one.result == shapes.PLANNED]
    pieces = sum(map(is_debris, chosen))
    bundles = formatting.plural(len(chosen) - pieces, "bundle")
    also = f"{formatting.plural(pieces, 'piece')} of debris" if pieces else ""
    return " and ".join(filter(None, (bundles if pieces < len(chosen) else "", also))) or bundles


def _asked_for(found: Found, setup: Setup) -> Iterator[DebrisView]:
    kinds = setup.policies.debris_kinds or ()
    return (view for view in found.debris if view.place.key.kind in kinds)
