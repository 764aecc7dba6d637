"""Where the race takes place, and the attackers."""

import ctypes
import mmap
import os
import random
import select
import signal
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reconciler import kernel
from reconciler.act.walk import identity_of
from tests.safety.removers import Job
from tests.support.canary import plant
from tests.support.mountns import MNT_DETACH, attach, clone_tree, tmpfs, umount

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES: Final = (b"rootfs", b"rootfs/data", b"extra", b"a", b"a/b", b"a/b/c")
VICTIMS: Final = (b"victim-0", b"victim-1", b"victim-2")
FILES: Final = (b"config.json", b"a/file", b"a/b/c/file")
RENAME_EXCHANGE: Final = 2
_PR_SET_PDEATHSIG: Final = 1


class Arena:
    """A tmpfs with the bundles; canaries on it and beside it, and a living bundle."""

    def __init__(self, top: Path) -> None:
        self.top = top / "arena"
        self.top.mkdir()
        tmpfs(self.top, "size=256m")
        for name in ("tree", "nursery", "stash"):
            (self.top / name).mkdir()
        self.tree = self.top / "tree"
        self.canaries = [plant(self.top / "same"), plant(top / "other")]
        self.alive = plant(self.top / "alive")
        self.parent = os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY)
        # By a handle, since the attacker moves it about.
        self._alive_fd = os.open(self.alive.root, os.O_RDONLY | os.O_DIRECTORY)
        self._made = 0

    def new_job(self, name: bytes) -> Job:
        """Put a bundle in its place, judged while it was still out of the attackers' reach."""
        self._made += 1
        made = self.top / "nursery" / str(self._made)
        for place in PLACES:
            (made / os.fsdecode(place)).mkdir(parents=True, exist_ok=True)
            if place != b"extra":  # stays empty, so that an attacker can drop it without a care
                (made / os.fsdecode(place) / "file").touch()
        (made / "config.json").touch()
        os.mkfifo(made / "log")
        fd = os.open(made, os.O_PATH)
        expected = identity_of(kernel.statx_handle(fd))
        os.close(fd)
        made.rename(self.tree / os.fsdecode(name))
        return Job(self.parent, self.tree, name, expected)

    def missing(self) -> list[Path]:
        """Name what is gone: a quick look, for every pass."""
        gone = [path for canary in self.canaries for path in canary.missing()]
        for path in self.alive.planted:
            try:
                os.stat(
                    path.relative_to(self.alive.root), dir_fd=self._alive_fd, follow_symlinks=False
                )
            except FileNotFoundError:
                gone.append(path)
        return gone

    def lost(self) -> list[Path]:
        """Name what is gone or different: a close look, for the end."""
        return [*self.missing(), *(path for canary in self.canaries for path in canary.lost())]


class Counters:
    """Numbers that processes share; each is written by one of them."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    def __getitem__(self, index: int) -> int:
        (value,) = struct.unpack_from("=Q", self._shared, index * 8)
        return int(value)

    def add(self, index: int) -> None:
        struct.pack_into("=Q", self._shared, index * 8, self[index] + 1)


MOUNTS, SWAPS, EXCHANGES, STOP = range(4)


class Attackers:
    """Processes that do their worst until told to stop. A context manager.

    Several, because most of an unmount is waiting for the other processors, and waits overlap.
    """

    def __init__(self, arena: Arena, attacks: frozenset[str], seed: int, count: int = 4) -> None:
        self._shared = Counters()
        self._attackers = [
            # The living bundle is moved by one alone: two would lose count of where it is.
            Attacker(
                arena, attacks if not number else attacks - {"exchange"}, seed, number, self._shared
            )
            for number in range(count)
            if not number or attacks - {"exchange"}
        ]
        self._pids: list[int] = []

    def done(self, what: int) -> int:
        """Tell how often something was done, by all of them together."""
        return sum(self._shared[4 * number + what] for number in range(len(self._attackers)))

    def __enter__(self) -> "Attackers":
        for attacker in self._attackers:
            self._pids.append(attacker.start())
        return self

    def __exit__(self, *_: object) -> None:
        for number in range(len(self._attackers)):
            self._shared.add(4 * number + STOP)
        for pid in self._pids:
            pidfd = os.pidfd_open(pid)
            if not select.select([pidfd], [], [], 5)[0]:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            os.waitpid(pid, 0)


class Attacker:
    """One of them."""

    def __init__(
        self, arena: Arena, attacks: frozenset[str], seed: int, number: int, counters: Counters
    ) -> None:
        self._arena = arena
        self._number = number
        self._counters = counters
        self._victim = b""
        self._random = random.Random(f"{seed}/{number}")  # noqa: S311 -- repeatable
        known: dict[str, Callable[[int], None]] = {
            "mount": self._mount,
            "swap": self._swap,
            "exchange": self._exchange,
        }
        weights = {"mount": 8, "swap": 1, "exchange": 1}
        self._moves = [known[name] for name in sorted(attacks) for _ in range(weights[name])]

    def start(self) -> int:
        """Begin, in a process of its own that ends with this one; give its pid."""
        pid = os.fork()
        if pid == 0:
            try:
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                self._attack()
            finally:
                os._exit(0)
        return pid

    def _did(self, what: int) -> None:
        self._counters.add(4 * self._number + what)

    def _stopped(self) -> bool:
        return self._counters[4 * self._number + STOP] > 0

    def _attack(self) -> None:
        tree = os.fsencode(self._arena.tree)
        while not self._stopped():
            self._victim = tree + b"/" + self._random.choice(VICTIMS)
            try:
                fd = os.open(self._victim, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue
            # More than once on the same handle: it goes along when the bundle is hidden.
            for _ in range(self._random.randrange(1, 6)):
                with suppress(OSError):
                    self._random.choice(self._moves)(fd)
            os.close(fd)

    def _wait(self) -> None:
        for _ in range(self._random.randrange(200)):
            pass

    def _mount(self, fd: int) -> None:
        """Mount a canary by handles: what it is mounted on may be moved about at the same time."""
        canary = self._random.choice(self._arena.canaries).root
        if self._random.random() < 0.25:
            source, place = canary / "data-0", self._random.choice(FILES)
        else:
            source, place = canary, self._random.choice((*PLACES, b"."))
        pinned = os.open(place, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        tree = clone_tree(source)
        try:
            attach(tree, pinned)
            self._did(MOUNTS)
            self._wait()
            # What goes is the topmost, which may be another attacker's: until ours is gone, too.
            while True:
                umount(b"/proc/self/fd/%d" % tree, MNT_DETACH)
        finally:
            os.close(tree)
            os.close(pinned)

    def _swap(self, fd: int) -> None:
        """Put a symlink to a canary where a directory or a file was, and put it back."""
        canary = self._random.choice(self._arena.canaries).root
        name, target = self._random.choice(
            ((b"extra", canary), (b"config.json", canary / "data-0"))
        )
        stash = os.fsencode(self._arena.top) + b"/stash/%d" % self._number
        os.rename(name, stash, src_dir_fd=fd)
        try:
            os.symlink(target, name, dir_fd=fd)
            self._did(SWAPS)
            self._wait()
            os.unlink(name, dir_fd=fd)
            os.rename(stash, name, dst_dir_fd=fd)
        except OSError:
            self._drop(stash)

    def _drop(self, stash: bytes) -> None:
        """Forget what was swapped out of a bundle that is gone by now. Not recursive on purpose."""
        try:
            os.rmdir(stash)
        except NotADirectoryError:
            os.unlink(stash)

    def _exchange(self, fd: int) -> None:
        """Put a living bundle where the judged one was, and back again."""
        alive = os.fsencode(self._arena.alive.root)
        here = kernel.AT_FDCWD
        kernel.renameat2(here, self._victim, here, alive, RENAME_EXCHANGE)
        self._did(EXCHANGES)
        self._wait()
        while not self._stopped():
            # Hidden by mistake until that is noticed, or another attacker's mount is on it.
            with suppress(OSError):
                kernel.renameat2(here, self._victim, here, alive, RENAME_EXCHANGE)
                return
