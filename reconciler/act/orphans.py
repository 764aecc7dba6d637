"""Orphans: ends a workload that nobody manages, where the operator said so. Removes nothing.

A signal goes only through a pidfd, and only after it was shown that the process behind it is the
container's (I15): the pidfd is opened first, the evidence is taken then, and the pidfd is asked
again whether its process lives. A cgroup's members count only if its name carries the id and no
other bundle may mean it (`reconciler.act.neighbours`), so that no file can point at somebody
else's. What is left afterwards is a leftover like any
other, with a grace of its own.
"""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from reconciler.act.blocked import Blocked
from reconciler.act.channel import KillJob
from reconciler.act.groups import carries
from reconciler.act.neighbours import Neighbours
from reconciler.act.record import Record, Tally
from reconciler.act.second_look import NotLeftover, Seen, look_again
from reconciler.act.steps import conclude
from reconciler.act.workplace import Workplace
from reconciler.decide.decisions import Verdict
from reconciler.model.evidence import InitState
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.probe import process
from reconciler.probe.cgroups import CgroupDir
from reconciler.probe.process import Candidate, Cradle

ROUNDS: Final = 20
"""How often members that were forked meanwhile are looked for again."""

WAIT_MS: Final = 500
"""How long the killed may take to end, each round."""


def end_orphan(place: Workplace, job: KillJob) -> Outcome:
    """Judge the bundle once more and end its processes if it is still orphaned."""
    record = Record(place.clock, place.note, place.stop)
    ending = _Ending(place, job)

    def run() -> None:
        record.core("guards", ending.look)
        record.core("kill", ending.end)

    outcome = conclude(place, record, job, run, tuple)
    if outcome.result is Result.CLEANED:
        return replace(outcome, result=Result.KILLED)
    return outcome


class _Ending:
    """One attempt to end one workload."""

    def __init__(self, place: Workplace, job: KillJob) -> None:
        self._place = place
        self._job = job
        self._seen: Seen | None = None

    def look(self, _: Tally) -> str:
        """Make sure that it is orphaned still."""
        self._seen = look_again(self._place, self._job, Verdict.ORPHANED)
        return self._seen.judgement.reason

    def end(self, tally: Tally) -> str:
        """Kill until nobody is left, or until that does not seem to help."""
        for _ in range(ROUNDS):
            with ExitStack() as handles:
                pinned = self._pin(handles)
                if not pinned:
                    self._make_sure(tally)
                    return f"{tally.mutations} processes killed"
                ours = self._prove(pinned)
                for pidfd in ours:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    tally.add()
                _wait(ours)
        raise Blocked(BlockReason.CGROUP, self._job.key.id, "its processes do not end")

    def _make_sure(self, tally: Tally) -> None:
        """Raise if nobody was ended and somebody is there all the same."""
        if not tally.mutations:
            self.look(tally)
            detail = "processes that cannot be shown to be its"
            raise Blocked(BlockReason.CGROUP, self._job.key.id, detail)

    def _pin(self, handles: ExitStack) -> dict[int, int]:
        """Open a pidfd for whoever may be of this container; gives pid and pidfd."""
        pinned: dict[int, int] = {}
        for pid in self._candidates():
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            handles.callback(os.close, pidfd)
            if not process.has_ended(pidfd):
                pinned[pid] = pidfd
        return pinned

    def _candidates(self) -> set[int]:
        seen = self._seen
        if seen is None:
            return set()
        init = seen.look.init
        found = {pid for group in self._own_groups(seen) for pid in _members(group)}
        if init.state is InitState.ALIVE and init.pid is not None:
            found.add(init.pid)
        return found

    def _prove(self, pinned: dict[int, int]) -> list[int]:
        """Keep the pidfds whose processes are shown, after they were opened, to be ours.

        Raises:
            Blocked: Some are there and none of them can be shown to be.
        """
        key = self._job.key
        try:
            seen = self._seen = look_again(self._place, self._job, Verdict.ORPHANED)
        except NotLeftover as other:
            if other.look is None or other.look.identity != self._job.identity:
                raise
            return []  # the last one ended by itself meanwhile
        paths = frozenset(b"/" + group.relative for group in self._own_groups(seen))
        cradle = Cradle(key.id, paths)
        init = seen.look.init
        ours = [
            pidfd
            for pid, pidfd in pinned.items()
            if (
                (pid == init.pid and init.state is InitState.ALIVE)
                or process.judge_one(Candidate(pid), cradle).state is InitState.ALIVE
            )
            and not self._is_anothers(pid)
            and not process.has_ended(pidfd)
        ]
        if not ours and any(not process.has_ended(pidfd) for pidfd in pinned.values()):
            raise Blocked(BlockReason.CGROUP, key.id, "processes that cannot be shown to be its")
        return ours

    def _own_groups(self, seen: Seen) -> list[CgroupDir]:
        """Give the groups that carry the id and are no other bundle's."""
        neighbours = self._neighbours()
        return [
            group
            for group in seen.resources.cgroups
            if carries(group.relative.rsplit(b"/", 1)[-1], self._job.key.id)
            and neighbours.owner(b"/" + group.relative) is None
        ]

    def _is_anothers(self, pid: int) -> bool:
        """Tell whether a process may be another bundle's, whatever files say; so if unsure."""
        neighbours = self._neighbours()
        try:
            paths = process.read_cgroups(pid)
            return any(neighbours.owner(path) is not None for path in paths)
        except OSError:
            return True

    def _neighbours(self) -> Neighbours:
        """Look at the others anew: they may have come meanwhile."""
        place, job = self._place, self._job
        return Neighbours(place.around(job.manner.layout, place.sweep()), job.key)


def _members(group: CgroupDir) -> Iterator[int]:
    """Give the pids of a group and of the groups below it."""
    for directory, _, files in os.walk(group.path):
        if b"cgroup.procs" not in files:
            continue
        try:
            lines = process.read_whole(directory + b"/cgroup.procs").split(b"\n")
        except OSError:
            continue  # removed, or a threaded group whose members its parent lists
        yield from (int(line) for line in lines if line.isdigit())


def _wait(pidfds: list[int]) -> None:
    """Wait a moment for the killed to end."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    left = len(pidfds)
    while left:
        ended = poll.poll(WAIT_MS)
        if not ended:
            return
        for pidfd, _ in ended:
            poll.unregister(pidfd)
            left -= 1
