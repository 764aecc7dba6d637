"""What `replay` does with a journal: play it once, and let everybody who asked watch.

A journal flows in, turns flow past the watchers (likeness, fates, expectations, report), words or
JSON flow out (:mod:`reconciler.present.comparison`).
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio
import msgspec
from msgspec.structs import replace

from reconciler.cli.garbage import collect_from_now_on
from reconciler.cli.output import Output, envelope
from reconciler.clock import SystemClock
from reconciler.decide.engine import Engine
from reconciler.errors import ReconcilerError
from reconciler.journal import expect
from reconciler.journal.compare import CleanupChanges, ReplayDiff, concerns
from reconciler.journal.lines import Given
from reconciler.journal.reader import Item, Journal
from reconciler.journal.replay import Difference, Repeater, Turn
from reconciler.journal.what_if import WhatIf, enforcing, removes
from reconciler.model.evidence import Facts
from reconciler.model.ids import BundleKey, escape
from reconciler.model.observations import Stamp
from reconciler.model.policy import Policies
from reconciler.present import debris, report
from reconciler.present.comparison import (
    CleanupChange,
    Differing,
    ReplayHead,
    changed,
    describe,
    difference_text,
    fates_table,
)
from reconciler.present.decisions import DecisionSummary, is_conclusion, key_of, summary
from reconciler.present.formatting import iso, plural, span, to_json


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a replay.

    Attributes:
        policies: Let these decide instead of the recorded ones; None to compare.
        config: Name of the file that has them.
        expectations: What must come true.
        report: Where to write the page.
        speed: So many times faster than it was; None for as fast as possible.
        until: Seconds after the begin at which to end.
        only: Tell about this bundle alone.
        as_json: Print the promised object instead of words.
        names: Print only the names of what is cleaned.
    """

    policies: Policies | None = None
    config: str = ""
    expectations: tuple[expect.Expectation, ...] = ()
    report: Path | None = None
    speed: float | None = None
    until: float | None = None
    only: BundleKey | None = None
    as_json: bool = False
    names: bool = False


class Lists:
    """The three long lists of the JSON answer, kept on disk until they are printed."""

    def __init__(self) -> None:
        self._json = msgspec.json.Encoder()
        self._files = {name: self._begin() for name in ("recorded", "replayed", "differences")}
        self._empty = dict.fromkeys(self._files, True)

    def _begin(self) -> IO[bytes]:
        return tempfile.TemporaryFile()

    def add(self, name: str, one: DecisionSummary | Differing) -> None:
        """Append to a list."""
        self._files[name].write(b"" if self._empty[name] else b",")
        self._empty[name] = False
        self._files[name].write(self._json.encode(one))

    def write(self, head: ReplayHead, target: IO[bytes]) -> None:
        """Print the whole object."""
        target.write(to_json(head).removesuffix(b"}"))
        for name, file in self._files.items():
            target.write(b',"%s":[' % name.encode())
            file.seek(0)
            shutil.copyfileobj(file, target)
            target.write(b"]")
        target.write(b"}\n")
        target.flush()

    def close(self) -> None:
        """Forget it."""
        for file in self._files.values():
            file.close()


class Replaying:
    """One replay of one journal."""

    def __init__(self, journal: Journal, request: Request, output: Output) -> None:
        self._journal = journal
        self._request = request
        self._output = output
        self._begin = journal.header.mono
        redacted = journal.header.redacted
        self._player: Repeater | WhatIf = Repeater()
        if request.policies is not None:
            volatile = journal.header.policies.volatile  # of the tree, not of the configuration
            policies = replace(enforcing(request.policies), volatile=volatile)
            self._player = WhatIf(policies)
        self._likeness = ReplayDiff(request.only, in_order=not redacted)
        self._fates = CleanupChanges(request.only)
        self._expected = expect.Watch(request.expectations)
        self._lanes = None if request.report is None else report.Lanes(self._begin)
        self._lists = Lists() if request.as_json else None
        self._facts: Facts | None = None
        self._observations = 0
        self._met = request.only is None
        self._end = 0.0
        self._last = Stamp(journal.header.mono, journal.header.wall)

    def run(self) -> bool:
        """Play it; True if all is as it should be.

        Raises:
            BadJournalError: At the first damaged line.
            ReconcilerError: The one bundle that is asked for was never seen.
        """
        collect_from_now_on()
        try:
            self._warn_before()
            if self._request.speed is None:
                for turn in self._turns():
                    self._take(turn)
            else:
                anyio.run(self._play_slowly, self._request.speed)
            self._warn_after()
            if not self._met:
                raise ReconcilerError(f"there is no bundle {self._request.only} in this journal")
            self._print()
            self._write_report()
            failures = list(self._expected.failures())
            for failure in failures:
                self._output.say(f"not as expected: {failure}")
        finally:
            if self._lists is not None:
                self._lists.close()
        return not failures and not self._likeness.count

    # ------------------------------------------------------------------ playing

    @property
    def _engine(self) -> Engine:
        return self._player.engine

    def _turns(self) -> Iterator[Turn]:
        until = None if self._request.until is None else self._begin + self._request.until
        items = self._counted(self._journal.items())
        if isinstance(self._player, WhatIf):
            yield from self._player.play(items, until)
            return
        for turn in self._player.play(items):
            if until is not None and turn.stamp.mono > until:
                return
            yield turn

    def _counted(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            if isinstance(item, Given) and item.observation is not None:
                self._observations += 1
            yield item

    async def _play_slowly(self, speed: float) -> None:
        clock = SystemClock()
        began = clock.monotonic()
        for turn in self._turns():
            at = turn.stamp.mono - self._begin
            if clock.monotonic() < began + at / speed:
                await clock.wait(anyio.Event(), began + at / speed)
            self._take(turn)
            self._print_live(at, turn)

    def _take(self, turn: Turn) -> None:
        at = turn.stamp.mono - self._begin
        self._end, self._last = max(self._end, at), turn.stamp
        found = self._likeness.take(turn)
        if found is not None:
            facts = self._facts_of(found)
            if self._likeness.first is found:
                self._facts = facts
            if self._lists is not None:
                self._lists.add("differences", self._described(found, facts))
        if not self._met:
            decisions = (*turn.recorded, *turn.replayed)
            self._met = any(key_of(decision) == self._request.only for decision in decisions)
        if turn.recorded or turn.replayed:
            self._fates.take(at, turn)
            self._list(at, turn)
        self._expected.follow(at, turn)
        if self._lanes is not None:
            self._lanes.take(at, turn.observation, turn.replayed)

    def _list(self, at: float, turn: Turn) -> None:
        if self._lists is None:
            return
        for name, decisions in (("recorded", turn.recorded), ("replayed", turn.replayed)):
            for decision in decisions:
                if is_conclusion(decision) and concerns(decision, self._request.only):
                    self._lists.add(name, summary(at, decision))

    def _facts_of(self, found: Difference) -> Facts | None:
        """What the engine believes now about the bundle a difference concerns."""
        one = found.recorded or found.replayed
        key = None if one is None else key_of(one)
        view = None if key is None else self._engine.view(key, found.turn.stamp.mono)
        return None if view is None else view.facts

    # ------------------------------------------------------------------ telling

    def _described(self, found: Difference, facts: Facts | None) -> Differing:
        at = found.turn.stamp.mono - self._begin
        return describe(found.recorded, found.replayed, at, self._begin, facts)

    def _warn_before(self) -> None:
        header, policies = self._journal.header, self._request.policies
        if not self._journal.is_whole:
            self._output.say(
                f"the journal begins in the middle of its run (part {header.part}): the earlier"
                " parts are gone, so nothing can be compared"
            )
        if policies is None:
            return
        missing = policies.annotation_keys - header.policies.annotation_keys
        if missing:
            names = ", ".join(sorted(missing))
            self._output.say(f"rules match on annotations that were not recorded: {names}")
        if not removes(policies):
            self._output.say("the configuration only observes; shown as if it said enforce")

    def _warn_after(self) -> None:
        if self._player.lost:
            missing = plural(self._player.lost, "record")
            self._output.say(f"{missing} missing: lost when recorded, or damaged")
        if isinstance(self._player, WhatIf) and self._player.refused:
            self._output.say("the guards refused when this was recorded: nothing is cleaned")

    def _print(self) -> None:
        if self._lists is not None:
            for fate in self._changes():
                self._lists.add("differences", changed(fate))
            self._lists.write(self._head(), sys.stdout.buffer)
        elif self._request.names:
            fates = (fate for fate in self._fates if fate.replayed is not None)
            self._output.data("".join(f"{fate.key}\n" for fate in fates))
        elif self._request.policies is not None:
            self._print_fates()
        else:
            self._print_likeness()

    def _head(self) -> ReplayHead:
        header = self._journal.header
        return ReplayHead(
            **envelope(node=header.host),
            journal=escape(os.fsencode(self._journal.parts[-1])),
            begin=iso(header.wall),
            policies=self._request.config,
            observations=self._observations,
        )

    def _changes(self) -> Iterator[CleanupChange]:
        if self._request.policies is not None:
            yield from (fate for fate in self._fates if fate.change != "same")

    def _print_fates(self) -> None:
        fates = list(self._fates)
        if fates:
            self._output.table(fates_table(fates))
        now = sum(fate.replayed is not None for fate in fates)
        then = sum(fate.recorded is not None for fate in fates)
        self._output.say(
            f"{plural(now, 'bundle')} cleaned by this configuration, {then:,} when recorded,"
            f" in {span(self._end)}"
        )

    def _print_likeness(self) -> None:
        likeness, found = self._likeness, self._likeness.first
        played = f"{plural(self._observations, 'observation')} over {span(self._end)}"
        if found is None:
            compared = plural(likeness.compared, "step")
            self._output.data(f"{played}: {compared} compared, all decided alike\n")
            return
        described = self._described(found, self._facts)
        self._output.data(f"first difference {difference_text(described)}")
        self._output.say(f"{played}: {plural(likeness.count, 'step')} decided otherwise")

    def _print_live(self, at: float, turn: Turn) -> None:
        if self._lists is not None or self._request.names:
            return
        for decision in turn.replayed:
            if is_conclusion(decision) and concerns(decision, self._request.only):
                described = summary(at, decision)
                who = f"{described.namespace}/{described.id}" if described.id else "node"
                self._output.data(
                    f"{span(at):>12}  {who}  {described.action}  {described.reason}\n"
                )

    def _write_report(self) -> None:
        target = self._request.report
        if self._lanes is None or target is None:
            return
        header, title = self._journal.header, self._journal.parts[-1].name
        config = self._request.config
        views, looked = self._engine.debris_views(self._last), self._engine.debris.looked
        self._lanes.end(debris.left(views, looked))
        page = self._lanes.page(title, header.host, header.program, header.wall, config)
        html = report.render(page)
        target.write_bytes(html)
        shown = f"{len(page.lanes):,} bundles over {span(page.end / 1000)}"
        what_if = f", what-if with {config}" if config else ""
        self._output.say(f"{target}: {shown}{what_if}, {len(html) // 1000:,} kB")
