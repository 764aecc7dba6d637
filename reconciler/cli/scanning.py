"""What `scan` does: looks once, gives it its promised shape, and prints that.

With `--watch` a row follows for each change, until it is asked to end.

A setup and the fork server flow in, words or JSON flow out. Nothing is removed.
"""

import signal
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import anyio
from msgspec.structs import replace
from typing_extensions import override

from reconciler.cli import session
from reconciler.cli.checks import (
    check_listing,
    complain_of_absence,
    complain_of_silence,
    warn_of_place,
)
from reconciler.cli.daemon_beliefs import as_believed, ask_daemon, say_whose
from reconciler.cli.globals import Form
from reconciler.cli.list_options import ALL, Listing
from reconciler.cli.output import Output, envelope
from reconciler.cli.passes import Found, Pass, observing
from reconciler.cli.selection import Selection, narrowed, ordered
from reconciler.cli.session import Journalled, look
from reconciler.cli.watching import Ended, Plan, watch
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.decide.engine import Engine
from reconciler.decide.verdicts import is_alien_and_dead
from reconciler.errors import ExitCode
from reconciler.loop import Loop
from reconciler.model.decisions import Decision, Judged, Vanished, Verdict
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Observation, Stamp
from reconciler.ports import Listener, Stages
from reconciler.present import debris, formatting, rows, shapes
from reconciler.present.beliefs import Beliefs
from reconciler.present.debris import DebrisShape
from reconciler.present.envelope import encode
from reconciler.probe.checks import out_of_sight
from reconciler.setup import Setup
from reconciler.worker.client import ForkServerClient


def journal(
    setup: Setup, output: Output, server: ForkServerClient, *, redact: bool, exit_code: bool
) -> int:
    """Look once, write the evidence itself to standard output, and give the exit code."""
    found = look(setup, output, server, Journalled(sys.stdout.buffer, redact))
    check_listing(found.listed, setup.layout)
    warn_of_place(found.refused, output)
    return _code(found, setup) if exit_code else ExitCode.DONE


def scan(  # noqa: PLR0913 - what was said
    setup: Setup,
    chosen: Selection,
    listing: Listing,
    output: Output,
    server: ForkServerClient,
    *,
    form: Form,
    exit_code: bool,
) -> int:
    """Look once, print what is meant of what was found, and give the exit code."""
    found = look(setup, output, server)
    check_listing(found.listed, setup.layout)
    warn_of_place(found.refused, output)
    told = ask_daemon(setup, output)
    everything = as_believed(found, told)
    selected = chosen.of(everything.views)
    meant = everything if chosen.is_all else narrowed(everything, selected.keys)
    meant = replace(meant, views=ordered(meant.views, listing.sort_by))
    report = shape(meant, setup, told)
    show(report, form, output, listing, [view.key.id for view in found.views])
    say_whose(told, output, setup)
    complain_of_silence(meant, output)
    complain_of_absence(setup.namespaces, found, output)
    selected.complain(output)
    if selected.absent:
        return ExitCode.ERROR
    return _code(meant, setup) if exit_code else ExitCode.DONE


def _code(found: Found, setup: Setup) -> ExitCode:
    """Say by one number what was found; nothing is proven of what mounts hide."""
    code = ending(found)
    hidden = code is ExitCode.DONE and out_of_sight(setup.layout, setup.namespaces)
    return ExitCode.UNPROVEN if hidden else code


def ending(found: Found) -> ExitCode:
    """Say by one number what was found: 0 only where it was looked at, and nothing is left over."""
    left = any(
        view.judgement.verdict is Verdict.LEFTOVER or is_alien_and_dead(view.facts)
        for view in found.views
    )
    if left or any(one.verdict is DebrisVerdict.DEBRIS for one in found.debris):
        return ExitCode.LEFTOVERS
    return ExitCode.UNPROVEN if found.unproven else ExitCode.DONE


def shape(found: Found, setup: Setup, told: Beliefs | None = None) -> shapes.Scan:
    """Give what was found its promised shape."""
    return shapes.scan(
        [shapes.bundle(view, setup.layout) for view in found.views],
        _debris(found, setup),
        envelope=envelope(found.stamp.wall),
        containerd=found.node.containerd.state.value,
        refused=found.refused,
        seconds=found.seconds,
        daemon=None if told is None else shapes.Daemon(told.pid, told.mode, told.hold),
    )


def _debris(found: Found, setup: Setup) -> list[DebrisShape]:
    """Shape what lies outside of bundles; with ``-n`` only what is certainly of that namespace."""
    asked, wall = setup.namespaces, found.stamp.wall
    ours = [debris.unfinished(one, setup.layout, wall) for one in found.hidden if one.ours]
    left = [*ours, *map(debris.debris, found.debris)]
    return [one for one in left if not asked or one.namespace in asked]


def show(
    report: shapes.Scan,
    form: Form,
    output: Output,
    listing: Listing = ALL,
    ids: Collection[str] = (),
) -> None:
    """Print a scan; ``ids``: those of all bundles there are."""
    match form:
        case Form.JSON:
            output.json(encode(report))
        case Form.NAME:
            output.data(rows.names(report.bundles))
        case Form.TABLE | Form.WIDE:
            if report.bundles:
                table = rows.bundles(report.bundles, wide=form is Form.WIDE, ids=ids)
                listing.write(table, output)
            if report.debris:
                output.data("\n" if report.bundles else "")
                listing.write(rows.debris(report.debris), output)
    output.say(rows.scan_summary(report))


INTERVAL: Final = 0.25
"""Least seconds between two rows of one bundle."""

GONE: Final = "gone"


@dataclass(slots=True)
class Changes(Listener):
    """The bundles about which something was decided since it was last asked."""

    keys: dict[BundleKey, None] = field(default_factory=dict)
    bell: anyio.Event = field(default_factory=anyio.Event)

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Ring: it may have been the last that was waited for."""
        self.bell.set()

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Remember whom it is about."""
        if isinstance(decision, (Judged, Vanished)):
            self.keys[decision.key] = None
            self.bell.set()

    async def take(self) -> list[BundleKey]:
        """Wait for some, give them, and forget them; none where something else has happened."""
        await self.bell.wait()
        self.bell = anyio.Event()
        taken = list(self.keys)
        self.keys.clear()
        return taken


@dataclass(slots=True)
class Rows:
    """Writes the rows of what is meant, all of them at the same places."""

    setup: Setup
    form: Form
    chosen: Selection
    listing: Listing
    output: Output
    _shown: dict[BundleKey, shapes.Bundle] = field(default_factory=dict)
    begun: bool = False

    def write(self, engine: Engine, keys: list[BundleKey], now: float) -> None:
        """Write the row of each of these bundles that is meant and looks otherwise than before."""
        if not keys and self.begun:
            return
        views = {view.key: view for view in engine.views(now)}
        selected = self.chosen.of(tuple(views.values()))
        if not self.begun:
            selected.complain(self.output)
            meant = [view.key for view in ordered(selected.views, self.listing.sort_by)]
        else:
            meant = [key for key in keys if key in selected.keys]
        new = [shapes.bundle(views[key], self.setup.layout) for key in meant]
        gone = [self._gone(key) for key in keys if key in self._shown and key not in views]
        self._write([one for one in new if self._is_new(one)] + gone)
        self.begun = True

    def _is_new(self, one: shapes.Bundle) -> bool:
        """Whether a row says something else; ages differ all the time."""
        key = formatting.key_of(one)
        before, self._shown[key] = self._shown.get(key), one
        if before is None:
            return True
        told = ("verdict", "phase", "reason", "cause", "size_bytes")
        return any(getattr(one, name) != getattr(before, name) for name in told)

    def _gone(self, key: BundleKey) -> shapes.Bundle:
        last = self._shown.pop(key)
        return replace(last, verdict=GONE, phase=None, due_in_seconds=None, reason="", cause="")

    def _write(self, bundles: list[shapes.Bundle]) -> None:
        if not bundles:
            return
        if self.form is Form.NAME:
            self.output.data(rows.names(bundles))
        else:
            known = [one for one in self._shown.values() if one not in bundles]
            table = rows.bundles([*bundles, *known], wide=self.form is Form.WIDE)
            table.shown = len(bundles)
            self.listing.write(table, self.output, goes_on=self.begun)
        self.output.flush()


def follow(  # noqa: PLR0913 - what was said
    setup: Setup,
    chosen: Selection,
    listing: Listing,
    output: Output,
    server: ForkServerClient,
    *,
    form: Form,
) -> int:
    """Show the table and then each change until a signal ends it, as Ctrl-C is meant to."""
    shown = Rows(setup, form, chosen, listing, output)
    ended = session.follow(setup, output, lambda stages: follow_stages(stages, shown), server)
    return ExitCode.DONE if ended.signal == signal.SIGINT else ended.code


async def follow_stages(stages: Stages, shown: Rows) -> Ended:
    """Write what is there once everything was looked at, and then each change."""
    seen, changes, clock = Pass(), Changes(), stages.clock
    setup = shown.setup

    async def story(loop: Loop) -> None:
        while True:
            changed = await changes.take()
            if not (seen.complete and loop.engine.is_answered) and not shown.begun:
                continue
            if seen.listed is not None:
                check_listing(seen.listed, setup.layout)
            shown.write(loop.engine, changed, clock.monotonic())
            await anyio.sleep(INTERVAL)

    plan = Plan(observing(setup.policies), relist=setup.relist, story=story)
    return await watch(stages, plan, (seen, changes))
