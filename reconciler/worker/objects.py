"""Objects: what a name meant when it was looked at, and how what it means now is compared.

A device and an inode number are not enough: a disk gives a freed number to the next file at once.
The time of birth is of the object alone. Where a filesystem keeps none (cgroups) it is 0, and the
kernel counts the numbers of cgroups on and gives none twice (kernfs). Of what is here only
:class:`Aside` changes anything: it renames.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from reconciler import kernel
from reconciler.model.ids import NOWHERE, Identity, escape
from reconciler.probe.beneath import identity_of
from reconciler.worker.blocked import Blocked
from reconciler.worker.step_log import Kept, Tally


class ObjectId(msgspec.Struct, frozen=True, gc=False):
    """One object, whatever is called so later; ``born_ns`` is 0 where that is not kept."""

    identity: Identity
    born_ns: int


HIDDEN: Final = b".reconciler-"
"""Put before the name of what is taken out of use: always the same, so that the next run finds what
one that was killed began. No id begins with a dot."""

NOTHING: Final = ObjectId(NOWHERE, 0)
"""Of what is there and could not be looked at."""


def object_of(seen: kernel.Stat) -> ObjectId:
    """Give the object that a stat was taken of."""
    return ObjectId(identity_of(seen), seen.btime_ns)


def find(path: bytes) -> ObjectId | None:
    """Give the object at a path; None if there is none, or if that cannot be known.

    Both lead to the same: what is there later was not judged and is kept.
    """
    try:
        return object_of(kernel.statx(kernel.AT_FDCWD, path))
    except OSError:
        return None


def check_object(seen: kernel.Stat, expected: ObjectId | None, what: str) -> None:
    """Raise Kept unless this is the object that was judged."""
    if expected is None:
        raise Kept(f"{what} has appeared since the bundle was judged")
    if object_of(seen) != expected:
        raise Kept(f"{what} is another one than was judged")


class Aside(NamedTuple):
    """A name, and the one under which its object is out of use: nobody begins to use that one.

    Between a look and an act the name may come to mean another object. So what was judged is
    renamed first, looked at again, and only then removed; whatever else was renamed gets its name
    back.

    Attributes:
        parent: Handle on the directory.
        name, hidden: The names in it.
        refuse: Raises Kept or Blocked unless the object of a name is the one that was judged. It is
            asked before and after the rename.
        tally: Counts the renames.
    """

    parent: int
    name: bytes
    hidden: bytes
    refuse: Callable[[bytes], None]
    tally: Tally

    def put(self) -> None:
        """Rename the object, and make sure that it was the one.

        Raises:
            Kept, Blocked: It was not.
            FileNotFoundError: There is no such name, or somebody was faster.
            OSError: The kernel refused.
        """
        self.refuse(self.name)
        self._rename(self.name, self.hidden)
        self.check()

    def check(self) -> None:
        """Make sure of what is aside, perhaps since an earlier run; raises as :meth:`put` does."""
        try:
            self.refuse(self.hidden)
        except Kept:
            self.put_back()
            raise
        except Blocked as blocked:
            try:
                self.put_back()
            except OSError as error:
                blocked.detail += f"; it is now {escape(self.hidden)}: {error.strerror}"
            else:
                blocked.detail += "; renamed back"
            raise
        except FileNotFoundError:
            raise
        except OSError:
            # What it is cannot be known, so it is not what was judged.
            with suppress(OSError):
                self.put_back()
            raise

    def put_back(self) -> None:
        """Give what is aside its name back; nothing is overwritten.

        Raises:
            OSError: The kernel refused; EEXIST if the name is another's by now.
        """
        self._rename(self.hidden, self.name)

    def _rename(self, old: bytes, new: bytes) -> None:
        kernel.renameat2(self.parent, old, self.parent, new)
        self.tally.add()
