"""What `clean` does: plans, asks, removes what is due, and reports what came of it.

A setup and the fork server flow in, words or JSON flow out.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import click
import msgspec
from msgspec.structs import replace

from reconciler.cli import debris, session
from reconciler.cli.checks import check_guards, check_listing, complain_of_silence
from reconciler.cli.daemon_beliefs import ask_daemon, say_whose
from reconciler.cli.globals import UNATTENDED, Form
from reconciler.cli.output import Output, envelope
from reconciler.cli.passes import Found
from reconciler.cli.selection import OnlyThese, Selection, as_shown, narrowed, only
from reconciler.decide.foreign_mounts import foreign_mount
from reconciler.decide.views import BundleView
from reconciler.errors import (
    ExitCode,
    NoContainerdError,
    ReconcilerError,
    RefusedError,
    UsageError,
)
from reconciler.model.decisions import Phase, Verdict
from reconciler.model.evidence import NO_LABELS, ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import BlockReason, Result
from reconciler.present import formatting, rows, shapes
from reconciler.present.beliefs import Beliefs
from reconciler.present.debris_results import is_debris
from reconciler.present.envelope import encode
from reconciler.settings.schema import Mode
from reconciler.setup import Setup
from reconciler.worker.client import ForkServerClient

if TYPE_CHECKING:
    from reconciler.cli.rescuing import Wedged

_NOT_REACHED: Final = "interrupted before its turn came"

Servers = Iterator[ForkServerClient]
"""Fork servers that were started already: each session takes the next, or starts its own."""


class Way(msgspec.Struct, frozen=True):
    """How to clean.

    Attributes:
        form: The form of the report.
        asks: Show the plan and ask before anything is removed.
        dry_run: Only show the plan.
        rescue: Refuse where containerd is not proven down, and name wedged shims.
        kill_wedged: End those of the dead.
    """

    form: Form
    asks: bool
    dry_run: bool
    rescue: bool
    kill_wedged: bool = False


def run(setup: Setup, chosen: Selection, way: Way, output: Output, servers: Servers) -> int:
    """Remove what is due, report what came of it, and give the exit code."""
    asks, dry_run, rescue = way.asks, way.dry_run, way.rescue
    setup = _narrowed(setup, chosen, output, servers, whole=not (asks or dry_run))
    told = ask_daemon(setup, output)
    if told is not None and told.mode == Mode.ENFORCE.value and not (dry_run or rescue):
        setup = replace(setup, socket=told.socket or setup.socket)
        return _by_the_daemon(setup, told, way, output, servers)
    agreed, shims = setup, []
    if dry_run or rescue or asks:
        plan = _look(setup, output, servers)
        if rescue:
            _check_down(plan)
            shims = _wedged(plan, setup, way, output)
        if dry_run:
            say_whose(told, output, setup)
            return _dry_run(plan, setup, way.form, output)
        if asks:
            check_guards(plan.refused)
            report = planned(plan, setup, dry_run=False)
            if not (report.summary.results[shapes.PLANNED] or shims):
                # Not tried all the same: what falls due meanwhile was never shown.
                return _report(report, way.form, output, plan)
            if not _agreed(report, output, len(shims)):
                return ExitCode.DONE
            policies = as_shown(setup.policies, _names(report), debris.keys(report))
            agreed = replace(setup, policies=policies)
        if shims:
            from reconciler.cli.rescuing import end_shims

            end_shims(shims, setup, output)
    done = _meant(session.clean(agreed, output, next(servers, None)), setup)
    if done.signal is not None:
        return _interrupted(done.signal, done, setup, way.form, output)
    check_listing(done.listed, setup.layout)
    check_guards(done.refused)
    return _report(cleaned(done, setup), way.form, output, done)


def _narrowed(
    setup: Setup, chosen: Selection, output: Output, servers: Servers, *, whole: bool
) -> Setup:
    """Let nothing be removed but what is meant; ``whole``: names must be, for nobody is asked.

    Raises:
        ReconcilerError: Something that was asked for is not there.
    """
    if chosen.is_all:
        return setup
    setup = replace(setup, annotation_keys=chosen.annotations)
    found = _look(setup, output, servers)
    keys = [view.key for view in found.views]
    for one in chosen.names:
        meant = one.the_one(keys)
        if whole and meant.id != one.id:
            raise UsageError(
                f"{one} is the beginning of {meant}", "write all of it, or leave out --yes"
            )
    selected = chosen.of(found.views)
    selected.complain(output)
    if selected.absent:
        raise ReconcilerError("nothing was touched")
    return replace(setup, policies=only(setup.policies, selected.keys))


def _look(setup: Setup, output: Output, servers: Servers) -> Found:
    found = session.look(setup, output, next(servers, None))
    check_listing(found.listed, setup.layout)
    return _meant(found, setup)


def _meant(found: Found, setup: Setup) -> Found:
    """Leave out what is not to be removed anyway: nobody asked about it."""
    policies = setup.policies
    return narrowed(found, policies.keys) if isinstance(policies, OnlyThese) else found


def _dry_run(plan: Found, setup: Setup, form: Form, output: Output) -> int:
    for refusal in plan.refused:
        output.complain(f"without --dry-run it would be refused: {refusal.reason}")
    return _report(planned(plan, setup), form, output, plan)


def _by_the_daemon(
    setup: Setup, told: Beliefs, way: Way, output: Output, servers: Servers
) -> ExitCode:
    """Have the daemon that acts on this tree remove what is planned and waits for nothing more."""
    from reconciler.cli.handover import hand_over, is_undone, without_waiting

    def end(report: shapes.Clean) -> ExitCode:
        code = _report(report, way.form, output, plan)
        undone = code is ExitCode.DONE and is_undone(report.results)
        return ExitCode.BLOCKED if undone else code

    plan = _look(setup, output, servers)
    check_guards(plan.refused)
    report = planned(plan, setup, dry_run=False)
    report = _with(report, without_waiting(plan, report.results, setup, told), plan)
    wanted = [one for one in report.results if one.result == shapes.PLANNED]
    keys = [formatting.key_of(one) for one in wanted if not is_debris(one)]
    places = [debris.key_of(one) for one in wanted if is_debris(one)]
    if not wanted:
        return end(report)
    output.say("a daemon acts here: it is asked to remove what is planned")
    if way.asks and not _agreed(report, output):
        return ExitCode.DONE
    results = hand_over(plan, keys, setup, output, places)
    kept = [one for one in report.results if one.result != shapes.PLANNED]
    return end(_with(report, [*results, *kept], plan))


def _with(report: shapes.Clean, results: Sequence[shapes.ResultShape], plan: Found) -> shapes.Clean:
    head, waiting = envelope(plan.stamp.wall), report.summary.waiting
    return shapes.clean(
        results, envelope=head, waiting=waiting, dry_run=False, seconds=plan.seconds
    )


def planned(found: Found, setup: Setup, *, dry_run: bool = True) -> shapes.Clean:
    """Say what would be removed, without having touched anything."""
    results: list[shapes.ResultShape] = []
    waiting = 0
    for view in found.views:
        policy = setup.policies.named(view.policy)
        due = view.due_in_seconds
        if view.phase is Phase.PROTECTED or (view.phase is Phase.WAITING and not policy.enforce):
            cause = view.cause or f"rule {policy.name} only observes"
            results.append(shapes.kept(view, setup.layout, Result.PROTECTED, cause))
        elif view.phase is Phase.BLOCKED:
            results.append(shapes.kept(view, setup.layout, Result.BLOCKED, view.cause))
        elif view.phase is not Phase.NONE and due is not None and due <= policy.grace:
            results.append(_planned(view, setup))
        elif view.phase is Phase.WAITING:
            waiting += 1
        elif dry_run and view.judgement.verdict is Verdict.UNKNOWN:
            results.append(shapes.unknown(view, setup.layout))
    results += debris.planned(found, setup, dry_run=dry_run)
    head = envelope(found.stamp.wall)
    return shapes.clean(
        results, envelope=head, waiting=waiting, dry_run=dry_run, seconds=found.seconds
    )


def _planned(view: BundleView, setup: Setup) -> shapes.ResultShape:
    """Say what would come of one that would be due, as far as it can be told beforehand."""
    mount = foreign_mount(view.look.mounts)
    if mount is None:
        return shapes.planned(view, setup.layout)
    reason = BlockReason.FOREIGN_MOUNT.value
    return shapes.kept(view, setup.layout, Result.BLOCKED, reason, f"{reason}: {mount}")


def cleaned(
    found: Found, setup: Setup, unreached: Sequence[shapes.ResultShape] = ()
) -> shapes.Clean:
    """Give what came of it its promised shape."""
    results = [
        shapes.outcome(outcome, setup.layout, found.labels.get(outcome.key, NO_LABELS))
        for outcome in found.outcomes
    ]
    results += [*_kept(found, setup), *unreached, *debris.cleaned(found, setup)]
    waiting = sum(view.phase is Phase.WAITING for view in found.views)
    waiting += debris.waiting(found, setup)
    head = envelope(found.stamp.wall)
    return shapes.clean(
        results, envelope=head, waiting=waiting, dry_run=False, seconds=found.seconds
    )


def exit_code(done: shapes.Clean, found: Found) -> ExitCode:
    """Say by one number how it ended; the worst first."""
    results = {one.result for one in done.results}
    if Result.FAILED.value in results:
        return ExitCode.ERROR
    if found.node.foreign_processes:
        return ExitCode.REFUSED
    if found.containerd_missing:
        return ExitCode.NO_CONTAINERD
    if found.blind or found.left_out:
        return ExitCode.NO_WORKER
    if results & {Result.BLOCKED.value, Result.HELD.value}:
        return ExitCode.BLOCKED
    return ExitCode.DONE


def _kept(found: Found, setup: Setup) -> Iterator[shapes.ResultShape]:
    tried = {outcome.key for outcome in found.outcomes}
    results = {Phase.PROTECTED: Result.PROTECTED, Phase.HELD: Result.HELD}
    for view in found.views:
        result = results.get(view.phase)
        if result is not None and view.key not in tried:
            yield shapes.kept(view, setup.layout, result, view.cause)


def _check_down(found: Found) -> None:
    said = found.node.containerd
    if said.state is ContainerdState.UP:
        raise RefusedError("containerd runs", "--rescue is for before it starts; leave it out")
    if found.containerd_missing:
        raise NoContainerdError(
            f"cannot determine whether containerd runs: {said.detail}", "is --root right?"
        )


def _wedged(plan: Found, setup: Setup, way: Way, output: Output) -> "list[Wedged]":
    """Name the shims that never answer, and give those that are to be ended."""
    from reconciler.cli.rescuing import ask_shims

    kills, found = way.kill_wedged and not way.dry_run, ask_shims(plan, setup, output)
    for one in found:
        if not kills:
            one.say(output, "")
        elif one.objection:
            one.say(output, f"not ended: {one.objection}")
        elif way.asks:
            one.say(output, "it would be ended")
    return [one for one in found if kills and not one.objection]


def _agreed(report: shapes.Clean, output: Output, shims: int = 0) -> bool:
    """Show the plan and ask; ``shims``: how many were named that would be ended as well.

    Raises:
        UsageError: Nobody is there to answer.
    """
    count, ended = debris.counted(report.results), formatting.plural(shims, "wedged shim")
    for table in rows.laid_out(report):
        output.table(table, to_messages=True)
    if not output.can_ask:
        also = f", {ended} ended" if shims else ""
        question = f"{count} would be removed{also}, and nobody is there to agree"
        raise UsageError(question, f"say --yes, or call {UNATTENDED}; --dry-run only shows this")
    try:
        if output.ask(f"Remove {count}, end {ended}?" if shims else f"Remove {count}?"):
            return True
    except click.Abort:
        output.say("")
        output.say("nothing was touched")
        raise
    output.say("nothing was touched")
    return False


def _names(report: shapes.Clean) -> frozenset[BundleKey]:
    """Name what a plan shows: what falls due later nobody has agreed to."""
    found = (one for one in report.results if not is_debris(one))
    return frozenset(map(formatting.key_of, found))


def _interrupted(number: int, found: Found, setup: Setup, form: Form, output: Output) -> int:
    """Tell what had been done before a signal; the exit code is the one a shell reports."""
    unreached = list(_unreached(found, setup))
    done = cleaned(found, setup, unreached)
    if found.outcomes or found.places:
        _report(done, form, output, found)
        count = formatting.plural(len(unreached), "bundle")
        output.say(f"interrupted before the end; {count} not reached")
    else:
        _show(done, form, output)
        output.say("interrupted; nothing was touched")
    return 128 + number


def _unreached(found: Found, setup: Setup) -> Iterator[shapes.ResultShape]:
    """Name what would have been cleaned, had there been the time."""
    tried = {outcome.key for outcome in found.outcomes}
    for view in found.views:
        due, grace = view.due_in_seconds, setup.policies.named(view.policy).grace
        is_next = view.phase is Phase.WAITING and due is not None and due <= grace
        if (
            view.key in tried
            or not view.enforce
            or not (is_next or view.phase in (Phase.DUE, Phase.CLEANING))
        ):
            continue
        yield shapes.kept(view, setup.layout, Result.SKIPPED, "interrupted", _NOT_REACHED)


def _report(done: shapes.Clean, form: Form, output: Output, found: Found) -> ExitCode:
    _show(done, form, output)
    for line in rows.failures(done):
        output.say(line)
    complain_of_silence(found, output)
    debris.complain(found, output)
    unsure = (found.containerd_missing or found.blind or bool(found.left_out)) and not done.results
    planned, kept = debris.counted(done.results), rows.warned(done)
    output.say(rows.clean_summary(done.summary, unsure=unsure, planned=planned, kept=kept))
    return exit_code(done, found)


def _show(done: shapes.Clean, form: Form, output: Output) -> None:
    match form:
        case Form.JSON:
            output.json(encode(done))
        case Form.NAME:
            output.data(rows.names(done.results))
        case Form.TABLE | Form.WIDE:
            for number, table in enumerate(rows.laid_out(done, dry_run=done.summary.dry_run)):
                output.data("\n" if number else "")
                output.table(table)
