"""One pass over /proc, as evidence: who runs that matters to bundles, in which cgroups. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

from reconciler.model.ids import BundleKey
from reconciler.model.unread import UnreadProcess


class ShimProcess(NamedTuple):
    """A living shim as its command line shows it (``-namespace N -id I -address A``)."""

    key: BundleKey
    pid: int
    address: bytes = b""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over /proc: which shims and shim helpers run, and which cgroups hold processes.

    Attributes:
        answered: False if /proc hides processes from us (hidepid without CAP_SYS_PTRACE) or could
            not be read; then the sets prove nothing.
        helpers: Ids for which ``shim ... start`` or ``shim ... delete`` runs now.
        shims: Living shims.
        cgroup_names: Names in cgroups' paths, where the path is not known: as in older journals.
        cgroup_paths: The cgroups of living processes, as paths within a hierarchy.
        unread: Processes that may be a shim or a helper and do not answer what they are.
    """

    answered: bool = False
    helpers: frozenset[BundleKey] = frozenset()
    shims: tuple[ShimProcess, ...] = ()
    cgroup_names: frozenset[bytes] = frozenset()
    unread: tuple[UnreadProcess, ...] = ()
    cgroup_paths: frozenset[bytes] = frozenset()
