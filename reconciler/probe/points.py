"""Mount points, as the kernel has them now; cheap among thousands.

The mount table as text costs microseconds a line, and a cleanup wants to know about one bundle
among thousands, twice. So its numbers are listed anew for each question, and only those not seen
a moment ago are looked at. On an older kernel the text is read. Reads only; opens no mount.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from errno import ENOENT, ENOSYS, EPERM
from typing import TYPE_CHECKING, Final

import msgspec

from reconciler.decide.foreign_mounts import VOLATILE
from reconciler.kernel.mounts import Mounted, list_mounts, stat_mount
from reconciler.model.evidence import Mount
from reconciler.model.ids import BundleKey, escape
from reconciler.probe import mounts

if TYPE_CHECKING:
    from reconciler.ports import Clock

FRESH_SECONDS: Final = 1.0
"""How long a mount that is still listed is taken to be where it was: moving one keeps its number.
Whatever was moved in the meantime is still refused by the kernel, which removes nothing through a
mount and no mount point."""

CGROUP: Final = b"cgroup"
"""How the types of both versions' filesystems begin."""

_VOLATILE: Final = frozenset(name.encode() for name in VOLATILE)
_UNSUPPORTED: Final = frozenset({ENOSYS, EPERM})


class MountPoints:
    """Asks for mount points; remembers each for a moment. :meth:`close` gives its handle back."""

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        self._lists = True
        self._numbers: list[int] = []
        self._until = 0.0
        self._table = mounts.MountTable()
        self._text = b""
        self._known = Mounts()

    def close(self) -> None:
        """Give the handle on the mount table back; the next question opens it again."""
        self._table.close()

    def below(self, path: bytes) -> list[Mounted]:
        """Give the mounts at or below a real path, in the order in which they were mounted.

        Raises:
            OSError: The mount table cannot be read.
        """
        return self.now().below(path)

    def now(self, *, anew: bool = False) -> "Mounts":
        """Give all mounts as they are now; what is given may, but need not, follow what changes.

        ``anew`` looks at each again, so that also those moved a moment ago are where they are now.

        Raises:
            OSError: The mount table cannot be read.
        """
        if self._lists:
            try:
                self._by_number(anew=anew)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._lists = False
        if not self._lists:
            self._by_text()
        return self._known

    def _by_number(self, *, anew: bool) -> None:
        now = self._clock.monotonic()
        numbers = list_mounts()
        known = self._known
        if anew or now >= self._until:
            known = Mounts()
        elif numbers == self._numbers:
            return
        self._numbers = []  # until all of them are known
        for number in known.lacks(numbers):
            one = _stat(number)
            if one is not None:
                known.add(number, one)
        self._numbers = numbers
        if known is not self._known:
            self._known, self._until = known, now + FRESH_SECONDS

    def _by_text(self) -> None:
        text = self._table.read()
        if text is self._text:
            return
        self._known = known = Mounts()
        for number, entry in enumerate(mounts.parse(text)):
            known.add(number, entry.mount)
        self._text = text


class TreeMounts(msgspec.Struct, frozen=True):
    """The mounts at or below the bundles of one state tree, in the order they were mounted."""

    bundles: dict[BundleKey, tuple[Mount, ...]] = msgspec.field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()  # namespace directories that are mount points

    def of(self, key: BundleKey) -> tuple[Mount, ...]:
        """Give the mounts at or below one bundle."""
        return self.bundles.get(key, ())


class BundleMounts:
    """The mounts at or below the bundles of one tree (its real path), found when somebody asks.

    Whether there are any at all is found at once: they are those of when this was made.
    """

    def __init__(self, mounts: "Mounts", tree: bytes) -> None:
        self._mounts = mounts
        self._tree = tree
        self._has_any = mounts.has_below(tree)

    def of(self, key: BundleKey) -> tuple[Mount, ...]:
        """Give the mounts at or below one bundle, in the order in which they were mounted."""
        if not self._has_any:
            return ()
        path = self._tree + b"/" + key.path
        cut = len(path) + 1
        return tuple(
            [
                Mount(
                    escape(one.point[cut:]),
                    one.mount_id,
                    mounts.type_name(one.fstype),
                    self._mounts.is_shown_outside(one, self._tree),
                )
                for one in self._mounts.below(path)
                if not one.point.endswith(mounts.DELETED)
            ]
        )

    def of_tree(self, tree: bytes) -> "BundleMounts":
        """Give those of another tree, by its real path, as of the same moment."""
        return BundleMounts(self._mounts, tree)

    def all(self) -> TreeMounts:
        """Give those of every bundle at once; whether they are shown outside is not asked."""
        cut = len(self._tree) + 1
        found: defaultdict[BundleKey, list[Mount]] = defaultdict(list)
        namespaces = set()
        for one in self._mounts.below(self._tree):
            if one.point.endswith(mounts.DELETED):
                continue
            namespace, _, inside = one.point[cut:].partition(b"/")
            id_, _, path = inside.partition(b"/")
            if id_:
                key = BundleKey(escape(namespace), escape(id_))
                found[key].append(Mount(escape(path), one.mount_id, mounts.type_name(one.fstype)))
            elif namespace:
                namespaces.add(escape(namespace))
        bundles = {key: tuple(below) for key, below in found.items()}
        return TreeMounts(bundles, frozenset(namespaces))

    def shows_outside(self, fstype: str, device: int, root: bytes) -> bool:
        """Return whether a mount outside of the tree shows this directory of a filesystem."""
        one = Mounted(-1, b"", fstype.encode(), device, root)
        return self._mounts.is_shown_outside(one, self._tree)


class Mounts:
    """Mounts by number, which grows with each that is mounted, and by where they are."""

    def __init__(self) -> None:
        self._by_number: dict[int, Mounted] = {}
        self._by_point: list[tuple[bytes, int]] = []  # sorted: what is below lies together
        self._groups: dict[int, Mounted] = {}
        self._volatile: dict[int, dict[int, Mounted]] = {}  # by device

    @property
    def groups(self) -> list[Mounted]:
        """Give the cgroup mounts, in the order in which they were mounted."""
        return list(self._groups.values())

    def below(self, path: bytes) -> list[Mounted]:
        """Give those at or below a path, in the same order."""
        found = [
            number
            for low, high in _ranges(path)
            for _, number in self._by_point[self._place(low) : self._place(high)]
        ]
        return [self._by_number[number] for number in sorted(found)]

    def has_below(self, path: bytes) -> bool:
        """Return whether there is one at or below a path."""
        return any(self._place(low) < self._place(high) for low, high in _ranges(path))

    def at(self, point: bytes) -> Mounted | None:
        """Give what was mounted last at exactly this point, if anything was."""
        place = self._place(point + b"\0") - 1  # no point holds a NUL
        if place < 0 or self._by_point[place][0] != point:
            return None
        return self._by_number[self._by_point[place][1]]

    def lacks(self, numbers: list[int]) -> list[int]:
        """Forget whatever is not listed any more; give the numbers that are not known."""
        by_number = self._by_number
        for number in by_number.keys() - set(numbers):
            gone = by_number.pop(number)
            del self._by_point[bisect_left(self._by_point, (gone.point, number))]
            self._groups.pop(number, None)
            self._forget_volatile(number, gone.device)
        return [number for number in numbers if number not in by_number]

    def add(self, number: int, one: Mounted) -> None:
        """Take in one; those mounted earlier come first."""
        self._by_number[number] = one
        insort(self._by_point, (one.point, number))
        if one.fstype.startswith(CGROUP):
            self._groups[number] = one
        if one.fstype in _VOLATILE:
            self._volatile.setdefault(one.device, {})[number] = one

    def is_shown_outside(self, one: Mounted, tree: bytes) -> bool:
        """Return whether whatever a mount of a filesystem in memory shows stays when it goes.

        It does if another mount of the same filesystem shows it too: the same directory of it or
        one above, at a place that nobody is about to unmount, which is none in the state tree (two
        bundles may be cleaned at the same time, each counting on the other). The directory's name
        alone does not tell: a bind of one may be the last mount of its filesystem, and the mount of
        a whole one may be the second. For other filesystems the question makes no sense: no.
        """
        inside = tree + b"/"
        return any(
            other.mount_id != one.mount_id
            and _contains(other.root, one.root)
            and not (other.point + b"/").startswith(inside)
            and bool(other.point)
            and not other.point.endswith(mounts.DELETED)
            for other in self._volatile.get(one.device, {}).values()
        )

    def _forget_volatile(self, number: int, device: int) -> None:
        same = self._volatile.get(device)
        if same is not None:
            same.pop(number, None)
            if not same:
                del self._volatile[device]

    def _place(self, point: bytes) -> int:
        return bisect_left(self._by_point, (point,))


def _ranges(path: bytes) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Give the points at a path and below it, from one to before another."""
    # No point holds a NUL, so the first range is the path itself; "0" follows "/".
    return (path, path + b"\0"), (path + b"/", path + b"0")


def _contains(above: bytes, below: bytes) -> bool:
    return bool(above) and (above == below or below.startswith(above.rstrip(b"/") + b"/"))


def _stat(number: int) -> Mounted | None:
    try:
        return stat_mount(number)
    except OSError as error:
        if error.errno == ENOENT:
            return None  # unmounted since it was listed
        raise
