"""One pass over /proc, as evidence: who runs that matters to bundles, in which cgroups. Pure."""

from collections.abc import Collection
from typing import NamedTuple

from msgspec.structs import replace

from reconciler.model.ids import BundleKey
from reconciler.model.values import EMPTY, Value


class ShimProcess(NamedTuple):
    """A living shim as its command line shows it (``-namespace N -id I -address A``)."""

    key: BundleKey
    pid: int
    address: str = ""


class UnreadProcess(NamedTuple):
    """A process that may be a shim or a helper and does not answer what it is.

    What is stuck in the kernel cannot be asked for its command line. ``key`` is the bundle that the
    directory it works in shows; None where it shows none: it may be any bundle's.
    """

    pid: int
    key: BundleKey | None = None


class ProcessScan(Value, frozen=True):
    """One pass over /proc: which shims and shim helpers run, and which cgroups hold processes.

    Attributes:
        answered: False if /proc hides processes from us (hidepid without CAP_SYS_PTRACE) or could
            not be read; then the sets prove nothing.
        helpers: Ids for which ``shim ... start`` or ``shim ... delete`` runs now.
        shims: Living shims.
        cgroup_names: Names in cgroups' paths, where the path is not known: there are too many, or
            the journal is an older one.
        cgroup_paths: The cgroups of living processes, as paths within a hierarchy.
        unread: Processes that may be a shim or a helper and do not answer what they are.
        unplaced: Pid of a living process of which the cgroup cannot be known, 0 if there is none.
    """

    answered: bool = False
    helpers: frozenset[BundleKey] = EMPTY
    shims: tuple[ShimProcess, ...] = ()
    cgroup_names: frozenset[str] = EMPTY
    unread: tuple[UnreadProcess, ...] = ()
    cgroup_paths: frozenset[str] = EMPTY
    unplaced: int = 0

    def with_cgroups_of(self, other: "ProcessScan") -> "ProcessScan":
        """Give the same with what another pass says of cgroups."""
        return replace(
            self,
            cgroup_names=other.cgroup_names,
            cgroup_paths=other.cgroup_paths,
            unplaced=other.unplaced,
        )


def may_be(unread: Collection[BundleKey | None], *keys: BundleKey) -> bool:
    """Return whether one that does not answer may belong to one of these; None is anybody's."""
    return bool(unread) and any(key in unread for key in (None, *keys))


def may_be_in(unread: Collection[BundleKey | None], namespace: str) -> bool:
    """Return whether one that does not answer works in a namespace."""
    return any(key is not None and key.namespace == namespace for key in unread)
