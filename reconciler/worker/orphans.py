"""Orphans: ends workloads containerd cannot manage, where the operator said so. Removes nothing.

A signal goes only through a pidfd, and only after it was proven that everybody in the bundle's
cgroups is its own (`reconciler.decide.ownership`; I15): the pidfds are opened first, the evidence
is taken then, and each pidfd is asked again whether its process lives. Whatever cannot be proven is
reported with its reason and left alone. What is left afterwards is a leftover like any other, with
a grace of its own.
"""

import os
import signal
from collections.abc import Collection
from contextlib import ExitStack
from typing import Final

from msgspec.structs import replace

from reconciler.decide.ownership import Evidence, Group, Unproven, prove
from reconciler.model.decisions import Verdict
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.probe import process
from reconciler.probe.context import NodeContext
from reconciler.worker import freezer
from reconciler.worker.blocked import Blocked
from reconciler.worker.context import WorkerContext
from reconciler.worker.messages import KillJob
from reconciler.worker.neighbours import UnansweredError
from reconciler.worker.ownership import gather, members_of, read_record
from reconciler.worker.second_look import NotLeftover, Seen, look_again
from reconciler.worker.signals import await_ends, send
from reconciler.worker.step_log import Record, Tally
from reconciler.worker.steps import conclude

ROUNDS: Final = 20
"""How often members that were forked meanwhile are looked for again."""

WAIT_MS: Final = 500
"""How long the killed may take to end, each round."""


def end_orphan(place: WorkerContext, job: KillJob) -> Outcome:
    """Judge the bundle once more and end its processes if it is still orphaned."""
    record = Record(place.clock, place.note, place.stop)
    ending = _Ending(place, job)

    def run() -> None:
        record.do("guards", ending.look)
        record.do("kill", ending.end)

    outcome = conclude(place, record, job, run, tuple)
    if outcome.result is Result.CLEANED:
        return replace(outcome, result=Result.KILLED)
    return outcome


class _Ending:
    """One attempt to end one workload."""

    def __init__(self, place: WorkerContext, job: KillJob) -> None:
        self._place = place
        self._job = job
        self._killed = 0

    def look(self, _: Tally) -> str:
        """Make sure that it is orphaned still."""
        return self._look().judgement.reason

    def end(self, tally: Tally) -> str:
        """Kill until nobody is left, or until that does not seem to help."""
        groups: Collection[Group] = ()
        try:
            for _ in range(ROUNDS):
                with ExitStack() as handles:
                    pinned = self._pin(handles)
                    if not pinned:
                        self._make_sure()
                        return f"{self._killed} processes killed"
                    groups, ours = self._prove(pinned)
                    freezer.thaw(groups, tally)
                    for pidfd in ours:
                        if send(pidfd, signal.SIGKILL):
                            self._killed += 1
                            tally.add()
                    await_ends(ours, WAIT_MS)
        except UnansweredError as error:
            raise self._blocked(str(error)) from error
        except FileNotFoundError:
            return self._given_up(NotLeftover("it is gone", None))
        except NotLeftover as other:
            return self._given_up(other)
        frozen = ": frozen" if freezer.is_frozen(groups) else ""
        raise self._blocked(f"its processes do not end{frozen}")

    def _given_up(self, why: NotLeftover) -> str:
        """Say whom it has ended before it was no orphan any more; raise why if nobody."""
        if not self._killed:
            raise why
        done = f"{self._killed} processes killed"
        if why.look is None:
            return f"{done}; {why}"
        raise self._blocked(f"{done}; then {why}")

    def _make_sure(self) -> None:
        """Raise if nobody was ended and somebody is there all the same; to thaw ends nobody."""
        if self._killed:
            return
        evidence = self._gather(self._look())
        found = prove(evidence)
        if isinstance(found, Unproven):
            raise self._unproven(found, evidence)
        raise self._blocked("whoever lives is in none of the cgroups that its state names")

    def _pin(self, handles: ExitStack) -> dict[int, int]:
        """Open a pidfd for everybody in its cgroups; gives pid and pidfd. Nobody if it is dead."""
        seen = self._look_unless_dead()
        if seen is None:
            return {}
        groups = read_record(self._around(), self._job.key, seen.resources).groups
        pinned: dict[int, int] = {}
        for pid in frozenset[int]().union(*members_of(groups).values()):
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            handles.callback(os.close, pidfd)
            if not process.has_ended(pidfd):
                pinned[pid] = pidfd
        return pinned

    def _prove(self, pinned: dict[int, int]) -> tuple[Collection[Group], list[int]]:
        """Give the groups and the pidfds that were proven, after they were opened, to be its own.

        Raises:
            Blocked: One of them was not, so none of them is.
            UnansweredError: That cannot be known.
        """
        self._place.scan(anew=True)
        seen = self._look_unless_dead()
        if seen is None:
            return (), []  # the last one ended by itself meanwhile
        evidence = self._gather(seen)
        found = prove(evidence)
        if isinstance(found, Unproven):
            raise self._unproven(found, evidence)
        ours = [
            pidfd
            for pid, pidfd in pinned.items()
            if pid in found.pids and not process.has_ended(pidfd)
        ]
        return evidence.record.groups, ours

    def _gather(self, seen: Seen) -> Evidence:
        around, key = self._around(), self._job.key
        record = read_record(around, key, seen.resources)
        # Two containerds of a node that have the same namespace and id share the runtime's state
        # and the cgroups of it, so that nothing there can be told apart.
        other = self._place.instances.user(key, even_going=True)
        scanned = self._place.scan()
        if not scanned.answered:
            raise UnansweredError("which shims run cannot be known")
        nearby = self._place.nearby(scanned)
        return gather(nearby, key, record, scanned.shims, other or "")

    def _look(self) -> Seen:
        return look_again(self._place, self._job, Verdict.ORPHANED)

    def _look_unless_dead(self) -> Seen | None:
        """Look again; None if it is no orphan any more, and still the same bundle."""
        try:
            return self._look()
        except NotLeftover as other:
            if other.look is None or other.look.identity != self._job.identity:
                raise
            return None

    def _around(self) -> NodeContext:
        return self._place.around(self._place.scan())

    def _unproven(self, found: Unproven, evidence: Evidence) -> Blocked:
        frozen = "frozen, and " if freezer.is_frozen(evidence.record.groups) else ""
        return self._blocked(f"{frozen}not shown to be its own: {found.why}")

    def _blocked(self, why: str) -> Blocked:
        return Blocked(BlockReason.CGROUP, self._job.key.id, why)
