"""Gathers what `reconciler.decide.ownership` proves from: whose are the processes in these cgroups?

Asked in a worker, about processes that a pidfd holds already, with a pass over /proc and a look at
every other bundle that are younger than the pidfds. What cannot be asked is said to be unanswered,
and then nobody is proven to be anybody's. Reads only.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from errno import ENODEV, ENOENT, EOPNOTSUPP
from typing import Final

from reconciler.decide.ownership import Evidence, Group, Member, Record
from reconciler.model.evidence import CgroupState, ShimProcess
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe import process
from reconciler.probe.beneath import opened
from reconciler.probe.bundle import Resources
from reconciler.probe.cgroups import children, resolve
from reconciler.probe.context import NodeContext
from reconciler.worker.groups import carries
from reconciler.worker.neighbours import UnansweredError, claims

MOST_GROUPS: Final = 10_000
MOST_MEMBERS: Final = 100_000
"""More of them than this are not gone through: nobody is then proven to be anybody's."""

_SHIM: Final = b"containerd-shi"  # as /proc/PID/comm has it, if need be behind a dot
_GONE: Final = frozenset({ENOENT, ENODEV})

Held = dict[Group, frozenset[int]]
"""Who is in a group or below it."""


def read_record(around: NodeContext, key: BundleKey, resources: Resources) -> Record:
    """Read what the runtime's state says of a bundle; config.json has no voice here."""
    remembered = resources.remembered
    if remembered is None or around.cgroups is None:
        return Record(answered=False)
    inner = resolve(remembered.cgroup_path) if remembered.cgroup_path else ()
    bundle = None if remembered.bundle is None else escape(remembered.bundle)
    if not (remembered.cgroup_dirs or inner):
        return Record(bundle, remembered.pid, remembered.start)
    found = around.cgroups.look(key, remembered.cgroup_dirs, inner)
    groups = frozenset(Group(escape(one.mount), "/" + escape(one.relative)) for one in found.dirs)
    named = all(carries(group.path.rpartition("/")[2], key.id) for group in groups)
    answered = found.state is not CgroupState.NONE
    return Record(bundle, remembered.pid, remembered.start, groups, named, answered)


def members_of(groups: Iterable[Group]) -> Held:
    """Say who is in each of these groups and in those below them.

    Raises:
        UnansweredError: One of them cannot be read, or holds somebody we cannot see.
    """
    return {group: frozenset(_pids_below(group)) for group in groups}


def gather(
    around: NodeContext,
    key: BundleKey,
    record: Record,
    shims: tuple[ShimProcess, ...],
    elsewhere: str,
) -> Evidence:
    """Gather everything that speaks for or against a bundle's ownership of whom it holds.

    Args:
        around: The node, kept near: what another bundle names must not hang whoever asks.
        key: The bundle.
        record: What the runtime's state says of it.
        shims: Those that live.
        elsewhere: Who else may have a bundle of this name (`reconciler.worker.instances`).

    Raises:
        UnansweredError: Something could not be asked.
    """
    held = members_of(record.groups)
    pids = frozenset(shim.pid for shim in shims)
    members = _members(held, pids)
    if not all(one.descent_known for one in members):
        # Whoever ends leaves its children to another parent: those are asked for theirs once more.
        members = _members(held, pids)
    paths = (around.layout.bundle(key), around.tree + b"/" + key.path)
    return Evidence(
        bundles=frozenset(map(escape, paths)),
        record=record,
        claims=tuple(claims(around, key)),
        elsewhere=elsewhere,
        members=members,
    )


def _pids_below(group: Group) -> Iterator[int]:
    """Give the pids in a group and in all below it."""
    waiting, left = [unescape(group.path.lstrip("/"))], MOST_GROUPS
    members = 0
    with opened(unescape(group.mount)) as mount:
        try:
            while waiting:
                path = waiting.pop()
                left -= 1
                for pid in _pids(mount, path):
                    members += 1
                    yield pid
                with suppress(FileNotFoundError):
                    waiting += children(mount, path)
                if left < len(waiting) or members > MOST_MEMBERS:
                    raise UnansweredError(f"too much lives in cgroup {group.path}")
        except OSError as error:
            raise UnansweredError(f"cgroup {group.path}: {error.strerror}") from error


def _pids(mount: int, path: bytes) -> list[int]:
    try:
        data = process.read_whole(path + b"/cgroup.procs", mount)
    except OSError as error:
        if error.errno in _GONE | {EOPNOTSUPP}:  # a threaded group: its parent lists them
            return []
        raise
    pids = [int(line) for line in data.split()]
    if 0 in pids:
        raise UnansweredError(f"cgroup {escape(path)} holds somebody of another pid namespace")
    return pids


def _members(held: Held, shims: frozenset[int]) -> tuple[Member, ...]:
    """Ask everybody in the groups; whoever has ended by the time he was asked is not in them."""
    descent = _Descent(shims)
    pids = sorted(frozenset[int]().union(*held.values()))
    members = [_member(pid, held, descent) for pid in pids]
    return tuple(one for one in members if os.path.lexists(b"/proc/%d" % one.pid))


def _member(pid: int, held: Held, descent: "_Descent") -> Member:
    groups = frozenset(group for group, pids in held.items() if pid in pids)
    known, shim, start = descent.of(pid)
    return Member(pid, start, groups, shim, known)


class _Descent:
    """Whom processes descend from; what was read once is not read again.

    Only ever right while the process asked about is held by a pidfd. A parent that is gone before
    it is asked leaves its pid to somebody else, who then is younger than its child: no answer.
    """

    def __init__(self, shims: frozenset[int]) -> None:
        self._shims = shims
        self._known: dict[int, tuple[bool, int | None, int | None]] = {}

    def of(self, pid: int) -> tuple[bool, int | None, int | None]:
        """Say whether all ancestors could be asked, which of them is a shim, and the start time."""
        line: list[tuple[int, int]] = []
        end: tuple[bool, int | None] = (True, None)
        child: int | None = None
        while pid > 0:
            if pid in self._known:
                known, shim, start = self._known[pid]
                end = (known and (child is None or start is None or start <= child), shim)
                break
            asked = self._ask(pid)
            if asked is None or (child is not None and asked[1] > child):
                self._known[pid] = (False, None, None)
                end = (False, None)
                break
            line.append((pid, asked[1]))
            if asked[2]:
                end = (True, pid)
                break
            pid, child = asked[0], asked[1]
        for one, start in line:
            self._known[one] = (*end, start)
        first = line[0][1] if line else self._known[pid][2]
        return (*end, first)

    def _ask(self, pid: int) -> tuple[int, int, bool] | None:
        """Give parent, start time, and whether it is a shim; None if it cannot be asked."""
        try:
            stat = process.read_stat(pid)
            name = process.read_name(pid)
        except OSError:
            return None
        if stat is None:
            return None
        return stat.ppid, stat.start, pid in self._shims or _SHIM in name
