"""Blocked: why a step of a cleanup cannot be done now. One error policy, in one place.

A core step (unmount, removal) raises it, and whatever it was part of stops there. It is not a
failure: it names a cause that may pass, and the path, so that somebody can act on it.
"""

import errno
from typing import Final

from typing_extensions import override

from reconciler import kernel
from reconciler.model.ids import escape
from reconciler.model.outcome import BlockReason

_REASONS: Final = {
    errno.EXDEV: BlockReason.FOREIGN_MOUNT,
    errno.EBUSY: BlockReason.MOUNT_BUSY,
    errno.ETXTBSY: BlockReason.MOUNT_BUSY,
    errno.ENOTEMPTY: BlockReason.NOT_EMPTY,
    errno.EROFS: BlockReason.READ_ONLY,
    errno.EPERM: BlockReason.IMMUTABLE,
    errno.EACCES: BlockReason.IMMUTABLE,
    errno.ENOSPC: BlockReason.NO_SPACE,
    errno.EDQUOT: BlockReason.NO_SPACE,
    errno.ENOENT: BlockReason.CHANGED,
    errno.ENOTDIR: BlockReason.CHANGED,
    errno.ELOOP: BlockReason.CHANGED,
    errno.ESTALE: BlockReason.CHANGED,
}


class Blocked(Exception):  # noqa: N818 -- blocked is not failed
    """A step cannot go on.

    Attributes:
        reason: The cause, out of a closed set.
        path: What is in the way, relative to the handle the step was given; for people.
        detail: What the kernel said, for people.
    """

    def __init__(self, reason: BlockReason, path: str, detail: str = "") -> None:
        super().__init__(reason, path, detail)
        self.reason = reason
        self.path = path
        self.detail = detail

    @override
    def __str__(self) -> str:
        """Give one line: cause, path, detail."""
        text = f"{self.reason.value}: {self.path}"
        return f"{text} ({self.detail})" if self.detail else text


def blocked_by(error: OSError, path: str) -> Blocked:
    """Turn what the kernel said into a reason; what there is no word for is an i/o error."""
    reason = _REASONS.get(error.errno or 0, BlockReason.IO)
    return Blocked(reason, path, error.strerror or str(error))


def blocked_at(dir_fd: int, name: bytes, error: OSError, path: str | None = None) -> Blocked:
    """Do the same for a call about ``name`` in ``dir_fd``: EBUSY on a mount point is a mount."""
    blocked = blocked_by(error, escape(name) if path is None else path)
    if blocked.reason is BlockReason.MOUNT_BUSY and _is_mount_root(dir_fd, name):
        blocked.reason = BlockReason.FOREIGN_MOUNT
        blocked.detail = "something is mounted there"
    return blocked


def _is_mount_root(dir_fd: int, name: bytes) -> bool:
    try:
        return kernel.statx(dir_fd, name).is_mount_root
    except OSError:
        return False
