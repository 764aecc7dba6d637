"""`scan --watch`: the table, and then a row for each change, until it is asked to end.

What goes through the loop flows in, rows flow out. Nothing is removed.
"""

import signal
from dataclasses import dataclass, field
from typing import Final

import anyio
from msgspec.structs import replace
from typing_extensions import override

from reconciler.cli import session
from reconciler.cli.checks import check_listing
from reconciler.cli.globals import Form
from reconciler.cli.list_options import Listing
from reconciler.cli.output import Output
from reconciler.cli.passes import Pass, observing
from reconciler.cli.selection import Selection, ordered
from reconciler.cli.watching import Ended, Plan, watch
from reconciler.decide.engine import Engine
from reconciler.errors import ExitCode
from reconciler.loop import Loop
from reconciler.model.decisions import Decision, Judged, Vanished
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Observation, Stamp
from reconciler.ports import Listener, Stages
from reconciler.present import rows, shapes, words
from reconciler.setup import Setup
from reconciler.worker.client import ForkServerClient

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
        key = words.key_of(one)
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
