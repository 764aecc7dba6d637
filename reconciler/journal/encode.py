"""Values in, lines out. Keeps the tables that make lines short; does no I/O, reads no clock."""

from collections.abc import Sequence
from typing import Final, assert_never

import msgspec

from reconciler.journal import wire
from reconciler.journal.tables import Entry, Tables, ordered_difference
from reconciler.journal.values import identity_out, look_out, policies_out, row_out
from reconciler.model.decisions import (
    AskNode,
    Braked,
    Clean,
    Decision,
    Died,
    FinishRemoval,
    Judged,
    Judgement,
    LookAt,
    OverBudget,
    Relist,
    Vanished,
)
from reconciler.model.evidence import Containerd, Facts, Look, Sweep
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import (
    Doubt,
    GuardsChecked,
    Hint,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    Remembered,
    Stamp,
)
from reconciler.model.outcome import Outcome
from reconciler.model.policy import Policies

WALL_STEP: Final = 2.0**-22
MOST_NUMBERS: Final = 1 << 20
"""More bundles than this in the tables and they are begun anew: memory stays bounded."""


class Encoder:
    """Writes one file's lines. :meth:`header` first, and again for every further file."""

    def __init__(self) -> None:
        self._json = msgspec.json.Encoder()
        self._tables = Tables()
        self._offset = 0.0
        self._names: list[wire.Name] = []
        self._rows: list[wire.Row] = []
        self._nulls = 0

    def header(self, header: wire.Header) -> bytes:
        """Begin a file."""
        self._tables = Tables()
        self._offset = header.wall - header.mono
        return self._json.encode(header) + b"\n"

    def gap(self, lost: int, why: str, policies: Policies) -> bytes:
        """Say that records were lost, and what is in force; all numbering begins anew."""
        self._tables = Tables()
        record = wire.Record(gap=lost, y=why, p=policies_out(policies))
        return self._json.encode(record) + b"\n"

    @property
    def is_full(self) -> bool:
        """Whether the tables should be begun anew by a gap of none."""
        return len(self._tables.by_number) > MOST_NUMBERS

    def step(
        self,
        stamp: Stamp,
        observation: Observation | None,
        policies: Policies | None,
        decisions: Sequence[Decision],
    ) -> bytes:
        """Write one thing given to the engine and what it concluded.

        Raises:
            ValueError: A text cannot be written (a lone surrogate). Begin anew with a gap.
            OverflowError: A number is beyond 64 bits. Begin anew with a gap.
        """
        self._names, self._rows = [], []
        said = None if observation is None else self._observation(observation)
        listed = observation if isinstance(observation, Listed) else None
        decided = self._decisions(decisions, listed) if decisions else ()
        w, wall = self._wall(stamp)
        record = wire.Record(
            t=stamp.mono,
            w=w,
            W=wall,
            n=tuple(self._names),
            j=tuple(self._rows),
            o=said,
            p=None if policies is None else policies_out(policies),
            d=decided,
        )
        self._tables.end_record()
        return self._json.encode(record) + b"\n"

    def _wall(self, stamp: Stamp) -> tuple[int, float | None]:
        steps = (stamp.wall - (stamp.mono + self._offset)) / WALL_STEP
        whole = int(steps) if abs(steps) < 2**53 else 0
        if stamp.mono + self._offset + whole * WALL_STEP == stamp.wall:
            return whole, None
        return 0, stamp.wall

    # ------------------------------------------------------------------ names

    def _entry(self, key: BundleKey) -> Entry:
        entry = self._tables.by_key.get(key)
        if entry is None:
            entry = self._tables.add(key)
            self._names.append(key)
        return entry

    def _row(self, judgement: Judgement, facts: Facts | None) -> int:
        number = self._tables.row_numbers.get((judgement, facts))
        if number is None:
            number = self._tables.add_row((judgement, facts))
            self._rows.append(row_out(judgement, facts))
        return number

    # ------------------------------------------------------------------ observations

    def _observation(self, observation: Observation) -> wire.Observation:  # noqa: PLR0911 - one case each
        match observation:
            case Hint():
                return wire.Hint(self._entry(observation.key).number, observation.kind.value)
            case Looked():
                return self._looked(observation.key, observation.look)
            case Doubt():
                return wire.Doubt(observation.kind.value, observation.namespace)
            case Listed():
                return self._listed(observation)
            case NodeLooked():
                return self._node(observation)
            case GuardsChecked():
                refused = observation.refused
                return wire.Guards(tuple((r.guard.value, r.reason) for r in refused))
            case Remembered():
                return wire.Remembered(
                    self._entry(observation.key).number,
                    identity_out(observation.identity),
                    observation.last_alive,
                    observation.leftover_since,
                )
            case Outcome():
                return self._outcome(observation)
            case _:
                assert_never(observation)

    def _looked(self, key: BundleKey, look: Look | None) -> wire.Looked | wire.Same | wire.Gone:
        entry = self._entry(key)
        if look is None:
            self._tables.leaving.append(entry.number)
            return wire.Gone(entry.number)
        if entry.look == look:
            return wire.Same(entry.number)
        entry.look, entry.identity = look, look.identity
        return wire.Looked(entry.number, look_out(look))

    def _listed(self, listed: Listed) -> wire.Listed:
        entries = [(self._entry(seen.key), seen.identity) for seen in listed.bundles]
        order = [entry.number for entry, _ in entries]
        scope = listed.namespace
        change = ordered_difference(self._tables.listings.get(scope, []), order)
        all_of_them: tuple[tuple[int, wire.Identity], ...] | None = None
        added: tuple[tuple[int, wire.Seen], ...] = ()
        if change is None or any(e.identity not in (None, identity) for e, identity in entries):
            change = ((), [])
            all_of_them = tuple((e.number, identity_out(identity)) for e, identity in entries)
        else:
            added = tuple((place, _seen_out(*entries[place])) for place, _ in change[1])
        for entry, identity in entries:
            entry.identity = identity
        if listed.answered:
            self._tables.remember_listing(scope, order)
        return wire.Listed(
            a=listed.answered,
            present=listed.present,
            ns=scope,
            s=listed.seconds,
            b=all_of_them,
            x=change[0],
            add=added,
            hidden=tuple(
                (h.key.namespace, h.key.id, identity_out(h.identity), h.mtime, h.ours)
                for h in listed.hidden
            ),
        )

    def _node(self, heard: NodeLooked) -> wire.Node:
        tables = self._tables
        sweep = None if heard.sweep is None else _sweep_out(tables.sweep, heard.sweep)
        said = None
        if heard.containerd is not None:
            said = _containerd_out(tables.containerd, heard.containerd)
        tables.sweep = heard.sweep or tables.sweep
        tables.containerd = heard.containerd or tables.containerd
        return wire.Node(heard.since, sweep, said)

    def _outcome(self, outcome: Outcome) -> wire.Outcome:
        return wire.Outcome(
            b=self._entry(outcome.key).number,
            i=identity_out(outcome.identity),
            r=outcome.result.value,
            c=None if outcome.reason is None else outcome.reason.value,
            d=outcome.detail,
            holders=tuple((h.pid, h.name, h.how) for h in outcome.holders),
            steps=tuple(
                (s.step, s.result.value, s.detail, s.seconds, s.mutations) for s in outcome.steps
            ),
            l=None if outcome.look is None else look_out(outcome.look),
            s=outcome.seconds,
        )

    # ------------------------------------------------------------------ decisions

    def _decisions(
        self, decisions: Sequence[Decision], listed: Listed | None
    ) -> tuple[wire.Decision, ...]:
        """Write decisions in order; looks that follow each other become one."""
        out: list[wire.Decision] = []
        looks: list[LookAt] = []
        for decision in decisions:
            if isinstance(decision, LookAt):
                if looks and looks[-1].why is not decision.why:
                    out.append(self._looks(looks, listed))
                    looks = []
                looks.append(decision)
                continue
            if looks:
                out.append(self._looks(looks, listed))
                looks = []
            out.append(self._decision(decision))
        if looks:
            out.append(self._looks(looks, listed))
        return tuple(out)

    def _looks(self, looks: list[LookAt], listed: Listed | None) -> wire.Looks:
        why = looks[0].why.value
        if listed is not None and [look.key for look in looks] == [s.key for s in listed.bundles]:
            return wire.Looks(why)
        return wire.Looks(why, tuple(self._entry(look.key).number for look in looks))

    def _decision(  # noqa: PLR0911 - one case each
        self,
        decision: Judged
        | Vanished
        | Died
        | OverBudget
        | Braked
        | Relist
        | AskNode
        | Clean
        | FinishRemoval,
    ) -> wire.Decision:
        match decision:
            case Judged():
                return self._judged(decision)
            case Vanished():
                number = self._entry(decision.key).number
                self._tables.leaving.append(number)
                last = None if decision.last is None else decision.last.value
                return wire.Vanished(number, last, decision.cleaned)
            case Died() | OverBudget():
                return self._complaint(decision)
            case Braked():
                return wire.Braked(decision.brake, decision.on, decision.detail)
            case Relist():
                return wire.Relist(decision.why.value, decision.namespace)
            case AskNode():
                return wire.AskNode(decision.why)
            case Clean() | FinishRemoval():
                return self._order(decision)
            case _:
                assert_never(decision)

    def _judged(self, judged: Judged) -> wire.Judged:
        return wire.Judged(
            b=self._entry(judged.key).number,
            j=self._row(judged.judgement, judged.facts),
            p=judged.phase.value,
            before=None if judged.previous is None else judged.previous.value,
            c=judged.cause,
            due=judged.due_at,
        )

    def _complaint(self, decision: Died | OverBudget) -> wire.Decision:
        number = self._entry(decision.key).number
        if isinstance(decision, Died):
            return wire.Died(number, decision.cause)
        return wire.OverBudget(number, decision.kind.value)

    def _order(self, order: Clean | FinishRemoval) -> wire.Decision:
        number, identity = self._entry(order.key).number, identity_out(order.identity)
        if isinstance(order, FinishRemoval):
            return wire.Finish(number, identity)
        return wire.Clean(number, identity, order.claimed, order.attempt, order.kill)


def _seen_out(entry: Entry, identity: Identity) -> wire.Seen:
    if entry.identity == identity:
        return entry.number
    return (entry.number, identity_out(identity))


def _sweep_out(before: Sweep, now: Sweep) -> wire.Sweep:
    was, are = set(before.shims), set(now.shims)
    return wire.Sweep(
        a=now.answered,
        helpers=tuple(sorted(now.helpers - before.helpers)),
        no_helpers=tuple(sorted(before.helpers - now.helpers)),
        shims=tuple(
            (p.key.namespace, p.key.id, p.pid, p.address) for p in now.shims if p not in was
        ),
        no_shims=tuple(
            (p.key.namespace, p.key.id, p.pid, p.address) for p in before.shims if p not in are
        ),
        cgroups=tuple(sorted(now.cgroup_names - before.cgroup_names)),
        no_cgroups=tuple(sorted(before.cgroup_names - now.cgroup_names)),
        unread=tuple((p.pid, p.key) for p in now.unread),
        paths=tuple(sorted(now.cgroup_paths - before.cgroup_paths)),
        no_paths=tuple(sorted(before.cgroup_paths - now.cgroup_paths)),
        unplaced=now.unplaced,
    )


def _containerd_out(before: Containerd, now: Containerd) -> wire.Containerd:
    return wire.Containerd(
        s=now.state.value,
        tasks=tuple(sorted(now.tasks - before.tasks)),
        no_tasks=tuple(sorted(before.tasks - now.tasks)),
        pid=now.pid,
        version=now.version,
        d=now.detail,
        unlisted=tuple(sorted(now.unlisted)),
        absent=tuple(sorted(now.absent)),
        wedged=tuple(sorted(now.wedged)),
    )
