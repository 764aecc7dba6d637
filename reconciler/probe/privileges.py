"""Which process of ours holds which capability, and what for: one table for code, units and README.

The parent reads and speaks, the workers do. Everything else is given up as soon as it can be: by
the workers at their start, by the parent of a daemon once its workers can be made. Values only.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple


class Privilege(NamedTuple):
    """One capability (capabilities(7)).

    Attributes:
        name, number: As the kernel has them.
        reason: What fails without it.
        needed: A guard refuses to act without it; else only what the reason says is not done.
    """

    name: str
    number: int
    reason: str
    needed: bool = True


WORKER: Final = (
    Privilege("CAP_SYS_ADMIN", 21, "unmount a rootfs"),
    Privilege("CAP_DAC_OVERRIDE", 1, "read and remove what others own"),
    Privilege("CAP_FOWNER", 3, "remove what others own from sticky directories"),
    Privilege("CAP_SYS_PTRACE", 19, "see others' namespaces, and who keeps a mount busy"),
    Privilege(
        "CAP_KILL",
        5,
        "end orphaned workloads of other users and abandoned shims, where told to",
        needed=False,
    ),
)
"""What the fork server and its children hold: a cleanup needs all of it, and nothing else."""

PARENT: Final = (
    Privilege("CAP_DAC_READ_SEARCH", 2, "look at bundles of containers with users of their own"),
    Privilege("CAP_DAC_OVERRIDE", 1, "connect to sockets that others own"),
)
"""What the parent of a daemon keeps; none of it unmounts, and Landlock keeps it from removing."""


def numbers(privileges: Iterable[Privilege]) -> frozenset[int]:
    """Give their numbers."""
    return frozenset(one.number for one in privileges)
