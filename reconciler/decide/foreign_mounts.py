"""Foreign mounts keep a leftover from being removed, as is known beforehand. Pure.

The worker refuses by this rule before it touches anything; a dry run, `explain` and a replay say by
the same rule that it will. Whatever shows only when it is tried (a busy rootfs) is not known here.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from typing_extensions import override

from reconciler.model.decisions import Judgement, Verdict
from reconciler.model.evidence import Mount

ROOTFS: Final = "rootfs"
VOLATILE: Final = frozenset({"bpf", "hugetlbfs", "ramfs", "tmpfs"})
"""Filesystems that live in memory and end with their last mount."""


class ForeignMount(NamedTuple):
    """A mount that is not ours to take away; ``detail`` says why, and what to do."""

    path: str
    detail: str

    @override
    def __str__(self) -> str:
        return f"{self.path} ({self.detail})"


def needless(judgement: Judgement) -> str:
    """Say why there is nothing to clean; empty of a leftover."""
    if judgement.verdict is Verdict.LEFTOVER:
        return ""
    return f"it is {judgement.verdict.value}: {judgement.reason}"


def foreign_mount(mounts: Iterable[Mount]) -> ForeignMount | None:
    """Find the first mount in the way: any but rootfs and its stack, and of those what is volatile.

    Unmounting a tmpfs destroys its content, unless another mount goes on showing it: native
    snapshotters bind a directory, which on a node in memory lies on a tmpfs.
    """
    for mount in mounts:
        if mount.path != ROOTFS:
            detail = f"{mount.fstype or 'something'} is mounted there; unmount it"
            return ForeignMount(mount.path or ".", detail)
        if mount.fstype in VOLATILE and not mount.shown_outside:
            detail = f"it is a {mount.fstype}, whose content unmounting would destroy"
            return ForeignMount(mount.path, detail)
    return None
