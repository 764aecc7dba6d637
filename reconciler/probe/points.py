"""Mount points at or below one directory, as the kernel has them now; cheap among thousands.

The mount table as text costs microseconds a line, and a cleanup wants to know about one bundle
among thousands, twice. So its numbers are listed anew for each question, and only those not seen
a moment ago are looked at. On an older kernel the text is read. Reads only; opens no mount.
"""

from errno import ENOENT, ENOSYS, EPERM
from typing import TYPE_CHECKING, Final

from reconciler.kernel.mounts import Mounted, list_mounts, stat_mount
from reconciler.probe import mounts

if TYPE_CHECKING:
    from reconciler.ports import Clock

FRESH_SECONDS: Final = 1.0
"""How long a mount that is still listed is taken to be where it was: moving one keeps its number.
Whatever was moved in the meantime is still refused by the kernel, which removes nothing through a
mount and no mount point."""

_UNSUPPORTED: Final = frozenset({ENOSYS, EPERM})


class MountPoints:
    """Asks for mount points; remembers each for a moment. :meth:`close` gives its handle back.

    Args:
        clock: Says how long ago that was.
    """

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        self._numbers: list[int] = []
        self._rows: tuple[Mounted, ...] = ()
        self._until = 0.0
        self._lists = True
        self._table = mounts.MountTable()
        self._text = b""

    def close(self) -> None:
        """Give the handle on the mount table back; the next question opens it again."""
        self._table.close()

    def below(self, path: bytes) -> list[Mounted]:
        """Give the mounts at or below a directory, in the order in which they were mounted.

        Args:
            path: Its real path, as the kernel has it.

        Raises:
            OSError: The mount table cannot be read.
        """
        inside = path + b"/"
        return [one for one in self.all() if one.point.startswith(inside) or one.point == path]

    def all(self) -> tuple[Mounted, ...]:
        """Give all mounts, in that order; the same object as before if nothing has changed.

        Raises:
            OSError: The mount table cannot be read.
        """
        if self._lists:
            try:
                return self._by_number()
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._lists = False
        return self._by_text()

    def _by_number(self) -> tuple[Mounted, ...]:
        now = self._clock.monotonic()
        numbers = list_mounts()
        is_fresh = now < self._until
        if is_fresh and numbers == self._numbers:
            return self._rows
        known = dict(zip(self._numbers, self._rows, strict=True)) if is_fresh else {}
        found = {number: known.get(number) or _stat(number) for number in numbers}
        there = {number: one for number, one in found.items() if one is not None}
        self._numbers = list(there)
        self._keep(tuple(there.values()))
        if not is_fresh:
            self._until = now + FRESH_SECONDS
        return self._rows

    def _by_text(self) -> tuple[Mounted, ...]:
        text = self._table.read()
        if text is not self._text:
            self._text = text
            self._keep(mounts.rows(text))
        return self._rows

    def _keep(self, rows: tuple[Mounted, ...]) -> None:
        if rows != self._rows:
            self._rows = rows


def _stat(number: int) -> Mounted | None:
    try:
        return stat_mount(number)
    except OSError as error:
        if error.errno == ENOENT:
            return None  # unmounted since it was listed
        raise
