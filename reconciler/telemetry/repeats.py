"""Repeats: withhold the same news about the same thing for a while. Pure and bounded."""

from collections import OrderedDict
from typing import Final

from reconciler.model.ids import BundleKey
from reconciler.telemetry.records import Record

WINDOW: Final = 300.0
"""Seconds for which a repeat is withheld: the longest back-off between two attempts."""

_MOST: Final = 4096

_News = tuple[BundleKey | None, str, tuple[str, ...]]


class Repeats:
    """Remembers what was told. Forgets the oldest beyond a fixed number, so memory is bounded."""

    def __init__(self, window: float = WINDOW, most: int = _MOST) -> None:
        self._window = window
        self._most = most
        self._told: OrderedDict[_News, list[float]] = OrderedDict()

    def admit(self, mono: float, record: Record) -> int | None:
        """Decide whether a record is told.

        Returns:
            None if it is to be withheld, else how many like it were withheld before it.
        """
        if record.repeats is None:
            return 0
        what = (record.key, record.event, record.repeats)
        known = self._told.get(what)
        if known is not None and mono - known[0] < self._window:
            known[1] += 1
            return None
        self._told[what] = [mono, 0]
        self._told.move_to_end(what)
        if len(self._told) > self._most:
            self._told.popitem(last=False)
        return 0 if known is None else int(known[1])
