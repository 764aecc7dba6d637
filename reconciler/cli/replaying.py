"""What `replay` does with a journal: play it once, and let everybody who asked watch.

A journal flows in, turns flow past the watchers (likeness, fates, expectations, report), words or
JSON flow out (:mod:`reconciler.cli.replay_words`).
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from reconciler.cli.output import Output
from reconciler.cli.replay_words import Lists, changed, difference_text, fates_table
from reconciler.clock import SystemClock
from reconciler.decide.engine import Engine
from reconciler.decide.policy import Policies
from reconciler.journal import expect, report
from reconciler.journal.compare import Fate, Fates, Likeness, concerns, describe
from reconciler.journal.decode import Given
from reconciler.journal.imagine import Imagination, enforcing, removes
from reconciler.journal.reader import Item, Journal
from reconciler.journal.replay import Difference, Repeater, Turn
from reconciler.journal.told import is_conclusion, key_of, span, tell
from reconciler.journal.values import policies_in
from reconciler.model.evidence import Facts
from reconciler.model.ids import BundleKey
from reconciler.telemetry.words import plural


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a replay.

    Attributes:
        policies: Let these decide instead of the recorded ones; None to compare.
        expectations: What must come true.
        report: Where to write the page.
        speed: So many times faster than it was; None for as fast as possible.
        until: Seconds after the begin at which to end.
        only: Tell about this bundle alone.
        as_json: Print the promised object instead of words.
        names: Print only the names of what is cleaned.
    """

    policies: Policies | None = None
    expectations: tuple[expect.Expectation, ...] = ()
    report: Path | None = None
    speed: float | None = None
    until: float | None = None
    only: BundleKey | None = None
    as_json: bool = False
    names: bool = False


class Replaying:
    """One replay of one journal."""

    def __init__(self, journal: Journal, request: Request, output: Output) -> None:
        self._journal = journal
        self._request = request
        self._output = output
        self._begin = journal.header.mono
        redacted = journal.header.redacted
        self._player: Repeater | Imagination = Repeater()
        if request.policies is not None:
            volatile = journal.header.policies.volatile  # of the tree, not of the configuration
            policies = replace(enforcing(request.policies), volatile=volatile)
            self._player = Imagination(policies)
        self._likeness = Likeness(request.only, in_order=not redacted)
        self._fates = Fates(request.only)
        self._expected = expect.Watch(request.expectations)
        self._lanes = None if request.report is None else report.Lanes(journal.header)
        self._lists = Lists() if request.as_json else None
        self._facts: Facts | None = None
        self._observations = 0
        self._end = 0.0

    def run(self) -> bool:
        """Play it; True if all is as it should be.

        Raises:
            BadJournalError: At the first damaged line.
        """
        try:
            self._warn_before()
            if self._request.speed is None:
                for turn in self._turns():
                    self._take(turn)
            else:
                anyio.run(self._play_slowly, self._request.speed)
            self._warn_after()
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
        if isinstance(self._player, Imagination):
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
        self._end = max(self._end, at)
        found = self._likeness.take(turn)
        if found is not None:
            facts = self._facts_of(found)
            if self._likeness.first is found:
                self._facts = facts
            if self._lists is not None:
                self._lists.add("differences", describe(found, at, facts))
        if turn.recorded or turn.replayed:
            self._fates.take(at, turn)
            self._list(at, turn)
        self._expected.follow(at, turn)
        if self._lanes is not None:
            self._lanes.take(at, turn)

    def _list(self, at: float, turn: Turn) -> None:
        if self._lists is None:
            return
        for name, decisions in (("recorded", turn.recorded), ("replayed", turn.replayed)):
            for decision in decisions:
                if is_conclusion(decision) and concerns(decision, self._request.only):
                    self._lists.add(name, tell(at, decision))

    def _facts_of(self, found: Difference) -> Facts | None:
        """What the engine believes now about the bundle a difference concerns."""
        one = found.recorded or found.replayed
        key = None if one is None else key_of(one)
        view = None if key is None else self._engine.view(key, found.turn.stamp.mono)
        return None if view is None else view.facts

    # ------------------------------------------------------------------ telling

    def _warn_before(self) -> None:
        header, policies = self._journal.header, self._request.policies
        if not self._journal.is_whole:
            self._output.say(
                f"the journal begins in the middle of its run (part {header.part}): the earlier"
                " parts are gone, so nothing can be compared"
            )
        if policies is None:
            return
        missing = policies.annotation_keys - policies_in(header.policies).annotation_keys
        if missing:
            names = ", ".join(sorted(missing))
            self._output.say(f"rules match on annotations that were not recorded: {names}")
        if not removes(policies):
            self._output.say("the configuration only observes; shown as if it said enforce")

    def _warn_after(self) -> None:
        if self._player.lost:
            self._output.say(f"{plural(self._player.lost, 'record')} missing: lost when recorded")
        if isinstance(self._player, Imagination) and self._player.refused:
            self._output.say("the guards refused when this was recorded: nothing is cleaned")

    def _print(self) -> None:
        if self._lists is not None:
            for fate in self._changes():
                self._lists.add("differences", changed(fate))
            self._lists.write(self._observations, sys.stdout.buffer)
        elif self._request.names:
            fates = (fate for fate in self._fates if fate.replayed is not None)
            self._output.data("".join(f"{fate.key}\n" for fate in fates))
        elif self._request.policies is not None:
            self._print_fates()
        else:
            self._print_likeness()

    def _changes(self) -> Iterator[Fate]:
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
        told = describe(found, found.turn.stamp.mono - self._begin, self._facts)
        self._output.data(f"first difference {difference_text(told)}")
        self._output.say(f"{played}: {plural(likeness.count, 'step')} decided otherwise")

    def _print_live(self, at: float, turn: Turn) -> None:
        if self._lists is not None or self._request.names:
            return
        for decision in turn.replayed:
            if is_conclusion(decision) and concerns(decision, self._request.only):
                told = tell(at, decision)
                who = f"{told.namespace}/{told.id}" if told.id else "node"
                self._output.data(f"{span(at):>12}  {who}  {told.action}  {told.reason}\n")

    def _write_report(self) -> None:
        if self._lanes is not None and self._request.report is not None:
            source = self._journal.parts[-1]
            self._output.say(report.write(self._lanes, source, self._request.report))
