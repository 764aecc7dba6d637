"""Mount points at or below one directory, as the kernel has them now; cheap among thousands.

The mount table as text costs microseconds a line, and a cleanup wants to know about one bundle
among thousands, twice. So its numbers are listed anew for each question, and only those not seen
a moment ago are looked at. On an older kernel the text is read. Reads only; opens no mount.
"""

from errno import ENOENT, ENOSYS, EPERM
from typing import TYPE_CHECKING, Final

from reconciler.kernel.mounts import Mounted, list_mounts, stat_mount
from reconciler.probe.mounts import MOUNTINFO, entries_at

if TYPE_CHECKING:
    from reconciler.ports import Clock

FRESH_SECONDS: Final = 1.0
"""How long a mount that is still listed is taken to be where it was: moving one keeps its number.
Whatever was moved in the meantime is still refused by the kernel, which removes nothing through a
mount and no mount point."""

_UNSUPPORTED: Final = frozenset({ENOSYS, EPERM})


class MountPoints:
    """Asks for mount points; remembers each for a moment.

    Args:
        clock: Says how long ago that was.
    """

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        self._known: dict[int, Mounted] = {}
        self._until = 0.0
        self._lists = True

    def below(self, path: bytes) -> list[Mounted]:
        """Give the mounts at or below a directory, in the order in which they were mounted.

        Args:
            path: Its real path, as the kernel has it.

        Raises:
            OSError: The mount table cannot be read.
        """
        if self._lists:
            try:
                self._refresh()
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._lists = False
        if not self._lists:
            return _read(path)
        inside = path + b"/"
        return [
            one for one in self._known.values() if one.point.startswith(inside) or one.point == path
        ]

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now >= self._until:
            self._known = {}
            self._until = now + FRESH_SECONDS
        known: dict[int, Mounted] = {}
        for number in list_mounts():
            one = self._known.get(number) or _stat(number)
            if one is not None:
                known[number] = one
        self._known = known


def _stat(number: int) -> Mounted | None:
    try:
        return stat_mount(number)
    except OSError as error:
        if error.errno == ENOENT:
            return None  # unmounted since it was listed
        raise


def _read(path: bytes) -> list[Mounted]:
    with open(MOUNTINFO, "rb") as table:
        entries = entries_at(table.read(), path)
    return [Mounted(entry.mount_id, entry.point, entry.fstype) for entry in entries]
