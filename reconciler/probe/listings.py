"""Listings: directories of which a moment asks for many names are listed once. Reads only.

A name that is not in a listing is gone, if the listing was taken after whatever bears the name was
seen. So a listing belongs to one moment (:mod:`.handles`), in which only bundles are looked at that
were known when it began, and is never older than that: a slice of the loop, or one job of a worker.
A look that stands alone, as the second one just before anything is removed, is a moment of its own,
asks too little for a listing, and asks the kernel itself.
"""

import os
from collections.abc import Collection
from itertools import islice
from typing import Final

from reconciler.probe.beneath import beneath

MANY: Final = 12
"""Names asked for in one directory from which on it is listed: that costs as much as some of them.
"""

_MOST_NAMES: Final = 256
"""Of a directory with more of them a listing may cost more than all questions of a moment."""


class Listings:
    """The listings of one moment, each of the directories that have one path below several tops."""

    def __init__(self) -> None:
        self._asked: dict[bytes, int] = {}
        self._names: dict[bytes, frozenset[bytes] | None] = {}

    def clear(self) -> None:
        """End the moment."""
        if self._asked:
            self._asked.clear()
            self._names.clear()

    def lack(self, tops: Collection[int], path: bytes) -> bool:
        """Return whether a listing shows that there is no such path below any of these handles.

        False where it must be asked for: it is there, or nothing was listed. The same handles for
        all questions of a moment.
        """
        parent, _, name = path.rpartition(b"/")
        asked = self._asked[parent] = self._asked.get(parent, 0) + 1
        if asked < MANY:
            return False
        if asked == MANY:
            self._names[parent] = _names_in(tops, parent)
        names = self._names[parent]
        return names is not None and name not in names


def _names_in(tops: Collection[int], parent: bytes) -> frozenset[bytes] | None:
    """List a path below each handle; None if they hold too many, or one of them does not tell."""
    found: set[bytes] = set()
    for top in tops:
        try:
            with beneath(top, parent or b".") as here, os.scandir(here) as listing:
                found.update(os.fsencode(one.name) for one in islice(listing, _MOST_NAMES + 1))
        except FileNotFoundError:
            continue
        except OSError:
            return None
        if len(found) > _MOST_NAMES:
            return None
    return frozenset(found)
