"""Ownership: is a process a bundle's own, beyond doubt? Pure: evidence in, a proof or a reason out.

"May something of it live?" is another question (`reconciler.model.evidence`): any hint answers it
with yes, and a wrong yes only delays. Here a wrong yes kills somebody else's workload, so nothing
is believed that could also be true of a stranger (design section 2, principle 11):

1. A pid says nothing, nor do pid and start time together: a start time counts in ticks of 10 ms,
   and four of five reused pids were seen to have the old one's.
2. A name says nothing: ids are words, and words are parts of anybody's cgroup path.
3. config.json says what was asked for. What was done stands in the runtime's state, and that only
   counts if it says itself that it is about this very bundle: another containerd of the node keeps
   its state under the same name in the same directory.
4. A cgroup that the state names is its own only if nobody else can have a part in it: no other
   bundle names it, one above it or one below it, and nobody in it descends from a living shim.

Only :class:`Proven` may be signalled. Everything is proven or nothing is: one process that cannot
be shown to be its own may be a sign that none of them is.
"""

from typing import NamedTuple


class Group(NamedTuple):
    """A cgroup directory that exists: its hierarchy's mount, and its path from there."""

    mount: str
    path: str


class Record(NamedTuple):
    """What the runtime's own state says of a container.

    Attributes:
        bundle: The bundle that it is about; None if it does not say.
        pid, start: Its init; None if they are not named.
        groups: The cgroups it names, those that exist.
        carries_id: Whether each of them is named after the id.
        answered: False if it, or one of the cgroups, could not be asked.
    """

    bundle: str | None = None
    pid: int | None = None
    start: int | None = None
    groups: frozenset[Group] = frozenset()
    carries_id: bool = False
    answered: bool = True


class Claim(NamedTuple):
    """What another bundle says is its own.

    Attributes:
        who: The bundle, for people.
        paths: Its cgroups, as paths within a hierarchy; None if that cannot be known.
        init: A living process that may be its init.
    """

    who: str
    paths: frozenset[str] | None = frozenset()
    init: int | None = None


class Member(NamedTuple):
    """A process in one of the groups, seen while a pidfd held on to it.

    Attributes:
        pid: The pid.
        start: When it started, ticks since boot; None if that could not be read.
        groups: Those of the record's groups that hold it, themselves or by one below.
        shim: The living shim that it is, or that is nearest above it; None if there is none.
        descent_known: Whether all its ancestors could be asked.
    """

    pid: int
    start: int | None
    groups: frozenset[Group]
    shim: int | None = None
    descent_known: bool = True


class Evidence(NamedTuple):
    """All that a proof is made from.

    Attributes:
        bundles: The bundle's path, in each spelling that means it.
        record: What the runtime's state says.
        claims: What every other bundle says.
        elsewhere: Who else has a bundle of this name, or may have, in words; empty if nobody.
        members: Everybody in the record's groups.
    """

    bundles: frozenset[str]
    record: Record
    claims: tuple[Claim, ...] = ()
    elsewhere: str = ""
    members: tuple[Member, ...] = ()


class Proven(NamedTuple):
    """These processes are the bundle's own."""

    pids: frozenset[int]


class Unproven(NamedTuple):
    """Nothing may be done to anybody, and why."""

    why: str


def prove(evidence: Evidence) -> Proven | Unproven:
    """Say whether everybody in a bundle's cgroups is its own."""
    why = _against_the_record(evidence) or _against_the_groups(evidence)
    for member in evidence.members:
        why = why or _against(member, evidence)
    if why:
        return Unproven(why)
    return Proven(frozenset(member.pid for member in evidence.members))


def _against_the_record(evidence: Evidence) -> str:
    record = evidence.record
    return _first(
        (bool(evidence.elsewhere), evidence.elsewhere),
        (not record.answered, "the runtime's state or its cgroups could not be asked"),
        (record.bundle is None, "the runtime's state does not say which bundle it is about"),
        (
            record.bundle not in evidence.bundles,
            f"the runtime's state is that of {record.bundle or ''}",
        ),
        (not record.groups, "the runtime's state names no cgroup that exists"),
        (not record.carries_id, "the runtime's state names a cgroup that does not carry the id"),
        (record.start is None, "the runtime's state does not say when its init started"),
    )


def _first(*checks: tuple[bool, str]) -> str:
    return next((why for is_so, why in checks if is_so), "")


def _against_the_groups(evidence: Evidence) -> str:
    paths = {group.path for group in evidence.record.groups}
    pids = {member.pid for member in evidence.members}
    for claim in evidence.claims:
        if claim.paths is None:
            return f"whether they are those of {claim.who} cannot be known"
        if claim.init in pids:
            return f"pid {claim.init} may be the init of {claim.who}"
        for path in sorted(paths):
            if any(_overlap(path, other) for other in claim.paths):
                return f"cgroup {path} may be that of {claim.who}"
    return ""


def _overlap(one: str, other: str) -> bool:
    """Return whether one of two groups is the other or lies below it."""
    one, other = one + "/", other + "/"
    return one.startswith(other) or other.startswith(one)


def _against(member: Member, evidence: Evidence) -> str:
    """Say why a process may be somebody else's; empty if it cannot be."""
    record, who = evidence.record, f"pid {member.pid}"
    started, began = member.start, record.start
    missing = sorted(record.groups - member.groups)
    where = missing[0].mount + missing[0].path if missing else ""
    return _first(
        (member.shim is not None, f"{who} belongs to a living shim (pid {member.shim})"),
        (not member.descent_known, f"whom {who} descends from could not be asked"),
        (started is None or began is None, f"when {who} started could not be asked"),
        (bool(missing), f"{who} is not in cgroup {where}"),
        (
            member.pid == record.pid and started != began,
            f"{who} is not the init that the runtime's state names: it started at another time",
        ),
        ((started or 0) < (began or 0), f"{who} started before the container did"),
    )
