"""Lines in, values out; the mirror of :mod:`reconciler.journal.encode`. No I/O.

Whatever is wrong with a line is a :class:`BadLineError`, and nothing else is ever raised.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar, assert_never

import msgspec

from reconciler.journal import wire
from reconciler.journal.encode import WALL_STEP
from reconciler.journal.tables import Entry, Tables, apply_difference
from reconciler.journal.values import identity_in, look_in, policies_in, row_in
from reconciler.model.decisions import (
    AskNode,
    Braked,
    BudgetKind,
    Clean,
    Decision,
    Died,
    FinishRemoval,
    Judged,
    LookAt,
    OverBudget,
    Phase,
    Relist,
    Vanished,
    Verdict,
)
from reconciler.model.evidence import Containerd, ContainerdState, ShimProcess, Sweep
from reconciler.model.ids import BundleKey
from reconciler.model.observations import (
    Doubt,
    DoubtKind,
    Guard,
    GuardsChecked,
    Hidden,
    Hint,
    HintKind,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    Refusal,
    Remembered,
    Seen,
    Stamp,
)
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result, Step, StepResult
from reconciler.model.policy import Policies
from reconciler.model.unread import UnreadProcess

_T = TypeVar("_T")

# A look-up in a dictionary takes a third of the time of one in the enumeration.
_HINTS: Final = {kind.value: kind for kind in HintKind}
_PHASES: Final = {phase.value: phase for phase in Phase}
_VERDICTS: Final = {verdict.value: verdict for verdict in Verdict}
_CONTAINERDS: Final = {state.value: state for state in ContainerdState}


class BadLineError(Exception):
    """A line that is no line of a journal; says why."""


class NewerSchemaError(BadLineError):
    """A journal of a later version of the program."""


class NoJournalError(BadLineError):
    """A first line that is no header."""


@dataclass(frozen=True, slots=True)
class Gap:
    """So many records were lost here; ``policies`` are in force after it, if that is known."""

    lost: int
    why: str
    policies: Policies | None = None


class Given(NamedTuple):
    """One thing the engine was given, and what it concluded then.

    Attributes:
        stamp: When.
        observation: What was observed; None if it was given the time alone, or policies.
        policies: What was put into force, if that is what happened.
        decisions: The conclusions, in order.
    """

    stamp: Stamp
    observation: Observation | None
    policies: Policies | None
    decisions: tuple[Decision, ...]


class _First(msgspec.Struct):
    journal: str
    schema: int


def read_header(line: bytes) -> wire.Header:
    """Read a first line.

    Raises:
        NewerSchemaError: A later version of the program wrote it.
        NoJournalError: It is no header.
    """
    try:
        first = msgspec.json.decode(line, type=_First)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NoJournalError(f"no header: {error}") from error
    if first.journal != wire.MAGIC:
        raise NoJournalError(f"a journal of {first.journal[:40]!r}")
    if first.schema > wire.SCHEMA:
        message = f"schema {first.schema} is newer than {wire.SCHEMA}, the newest known here"
        raise NewerSchemaError(message)
    try:
        header = msgspec.json.decode(line, type=wire.Header)
        policies_in(header.policies)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NoJournalError(f"damaged header: {error}") from error
    return header


class Decoder:
    """Reads the lines of one file after its header."""

    def __init__(self, header: wire.Header) -> None:
        self._json = msgspec.json.Decoder(wire.Record)
        self._offset = header.wall - header.mono
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._tables = Tables()
        self._entries = self._tables.by_number

    def record(self, line: bytes) -> Given | Gap:
        """Read one line.

        Raises:
            BadLineError: It is damaged, or speaks of what no line before it named.
        """
        try:
            record = self._json.decode(line)
            if record.gap is not None:
                self._begin_anew()
                policies = None if record.p is None else policies_in(record.p)
                return Gap(record.gap, record.y, policies)
            return self._given(record)
        except (msgspec.MsgspecError, LookupError, ValueError, RecursionError) as error:
            what = str(error) or type(error).__name__
            if isinstance(error, LookupError):
                what = f"speaks of number {what}, which no line before it named"
            raise BadLineError(what) from error

    def _given(self, record: wire.Record) -> Given:
        tables, mono, wall, said = self._tables, record.t, record.W, record.o
        for namespace, name in record.n:
            tables.add(BundleKey(namespace, name))
        for row in record.j:
            tables.add_row(row_in(row))
        if wall is None:
            wall = mono + self._offset + record.w * WALL_STEP
        observation = None if said is None else self._observation(said)
        decisions = self._decisions(record.d, observation) if record.d else ()
        policies = None if record.p is None else policies_in(record.p)
        if tables.leaving:
            tables.end_record()
        return Given(Stamp(mono, wall), observation, policies, decisions)

    def _entry(self, number: int) -> Entry:
        return self._entries[number]

    def _key(self, number: int) -> BundleKey:
        return self._entries[number].key

    # ------------------------------------------------------------------ observations

    def _observation(self, said: wire.Observation) -> Observation:  # noqa: C901, PLR0911 - one case each
        match said:  # the most frequent first
            case wire.Same():
                entry = self._entries[said.b]
                if entry.look is None:
                    raise ValueError("the same look as one that is not there")
                return Looked(entry.key, entry.look)
            case wire.Hint():
                return Hint(self._entries[said.b].key, _HINTS[said.y])
            case wire.Looked():
                entry = self._entries[said.b]
                entry.look = look_in(said.l)
                entry.identity = entry.look.identity
                return Looked(entry.key, entry.look)
            case wire.Gone():
                self._tables.leaving.append(said.b)
                return Looked(self._key(said.b), None)
            case wire.Doubt():
                return Doubt(DoubtKind(said.y), said.ns)
            case wire.Listed():
                return self._listed(said)
            case wire.Node():
                return self._node(said)
            case wire.Guards():
                return GuardsChecked(tuple(Refusal(Guard(g), reason) for g, reason in said.c))
            case wire.Remembered():
                identity = identity_in(said.i)
                return Remembered(self._key(said.b), identity, said.alive, said.leftover)
            case wire.Outcome():
                return self._outcome(said)
            case _:
                assert_never(said)

    def _listed(self, said: wire.Listed) -> Listed:
        scope = said.ns
        if said.b is not None:
            order = [self._seen(seen) for seen in said.b]
            found = tuple(Seen(self._key(b), identity_in(i)) for b, i in said.b)
        else:
            before = self._tables.listings.get(scope, [])
            added = [(place, self._seen(seen)) for place, seen in said.add]
            order = apply_difference(before, said.x, added)
            found = tuple(self._listed_one(number) for number in order)
        if said.a:
            self._tables.remember_listing(scope, order)
        return Listed(
            answered=said.a,
            present=said.present,
            bundles=found,
            hidden=tuple(
                Hidden(BundleKey(ns, name), identity_in(i), mtime, ours)
                for ns, name, i, mtime, ours in said.hidden
            ),
            namespace=scope,
            seconds=said.s,
        )

    def _seen(self, seen: wire.Seen) -> int:
        if isinstance(seen, int):
            return seen
        number, identity = seen
        self._entry(number).identity = identity_in(identity)
        return number

    def _listed_one(self, number: int) -> Seen:
        entry = self._entry(number)
        if entry.identity is None:
            raise ValueError("a listing of something without identity")
        return Seen(entry.key, entry.identity)

    def _node(self, said: wire.Node) -> NodeLooked:
        tables = self._tables
        sweep = None if said.sweep is None else _sweep_in(tables, said.sweep)
        heard = None
        if said.containerd is not None:
            heard = _containerd_in(tables.containerd, said.containerd)
        tables.sweep = sweep or tables.sweep
        tables.containerd = heard or tables.containerd
        return NodeLooked(said.since, sweep, heard)

    def _outcome(self, said: wire.Outcome) -> Outcome:
        return Outcome(
            key=self._key(said.b),
            identity=identity_in(said.i),
            result=Result(said.r),
            reason=None if said.c is None else BlockReason(said.c),
            detail=said.d,
            holders=tuple(Holder(*holder) for holder in said.holders),
            steps=tuple(
                Step(step, StepResult(result), detail, seconds, mutations)
                for step, result, detail, seconds, mutations in said.steps
            ),
            look=None if said.l is None else look_in(said.l),
            seconds=said.s,
        )

    # ------------------------------------------------------------------ decisions

    def _decisions(
        self, said: tuple[wire.Decision, ...], observation: Observation | None
    ) -> tuple[Decision, ...]:
        decisions: list[Decision] = []
        for one in said:
            if not isinstance(one, wire.Looks):
                decisions.append(self._decision(one))
                continue
            why = _HINTS[one.y]
            if one.b is not None:
                decisions += [LookAt(self._entries[number].key, why) for number in one.b]
            elif isinstance(observation, Listed):
                decisions += [LookAt(seen.key, why) for seen in observation.bundles]
            else:
                raise ValueError("looks at a listing that is not there")
        return tuple(decisions)

    def _decision(  # noqa: PLR0911 - one case each
        self,
        said: wire.Judged
        | wire.Vanished
        | wire.Died
        | wire.OverBudget
        | wire.Braked
        | wire.Relist
        | wire.AskNode
        | wire.Clean
        | wire.Finish,
    ) -> Decision:
        match said:
            case wire.Judged():
                judgement, facts = self._tables.rows[said.j]
                before = None if said.before is None else _VERDICTS[said.before]
                key, phase = self._key(said.b), _PHASES[said.p]
                return Judged(key, judgement, phase, before, said.c, said.due, facts)
            case wire.Vanished():
                self._tables.leaving.append(said.b)
                last = None if said.v is None else _VERDICTS[said.v]
                return Vanished(self._key(said.b), last, cleaned=said.cleaned)
            case wire.Died():
                return Died(self._key(said.b), said.c)
            case wire.OverBudget():
                return OverBudget(self._key(said.b), BudgetKind(said.c))
            case wire.Braked():
                return Braked(said.y, said.on, said.d)
            case wire.Relist():
                return Relist(DoubtKind(said.y), said.ns)
            case wire.AskNode():
                return AskNode(said.y)
            case wire.Clean():
                key, identity = self._key(said.b), identity_in(said.i)
                return Clean(key, identity, said.claimed, said.attempt, said.kill)
            case wire.Finish():
                return FinishRemoval(self._key(said.b), identity_in(said.i))
            case _:
                assert_never(said)


def _keys(names: tuple[wire.Name, ...]) -> tuple[BundleKey, ...]:
    return tuple([BundleKey(*name) for name in names])


def _sweep_in(tables: Tables, said: wire.Sweep) -> Sweep:
    before, living = tables.sweep, tables.sweep.shims
    if said.no_shims or said.shims:
        shims = tables.shims
        for shim in _shims(said.no_shims):
            shims.pop(shim, None)
        shims.update(dict.fromkeys(_shims(said.shims)))
        living = tuple(shims)
    helpers = _changed(before.helpers, _keys(said.no_helpers), _keys(said.helpers))
    names = _changed(before.cgroup_names, said.no_cgroups, said.cgroups)
    unread = tuple(
        UnreadProcess(pid, None if name is None else BundleKey(*name)) for pid, name in said.unread
    )
    paths = _changed(before.cgroup_paths, said.no_paths, said.paths)
    return Sweep(said.a, helpers, living, names, unread, paths, said.unplaced)


def _changed(before: frozenset[_T], gone: tuple[_T, ...], come: tuple[_T, ...]) -> frozenset[_T]:
    """Change a set that may be large; the same object where nothing changed."""
    if gone:
        before = before.difference(gone)
    return before.union(come) if come else before


def _shims(shims: tuple[tuple[str, str, int, str], ...]) -> Iterator[ShimProcess]:
    for namespace, name, pid, address in shims:
        yield ShimProcess(BundleKey(namespace, name), pid, address)


def _containerd_in(before: Containerd, said: wire.Containerd) -> Containerd:
    tasks = _changed(before.tasks, _keys(said.no_tasks), _keys(said.tasks))
    return Containerd(
        _CONTAINERDS[said.s],
        tasks,
        said.pid,
        said.version,
        said.d,
        unlisted=frozenset(said.unlisted),
        absent=frozenset(_keys(said.absent)),
        wedged=frozenset(_keys(said.wedged)),
    )
