"""The attackers of the race."""

import ctypes
import itertools
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
from tests.safety.arena import FILES, PLACES, VICTIMS, Arena
from tests.support.mountns import MNT_DETACH, attach, clone_tree, umount

if TYPE_CHECKING:
    from collections.abc import Callable

RENAME_EXCHANGE: Final = 2
_PR_SET_PDEATHSIG: Final = 1


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
    """Processes that do their worst until a stop is requested. A context manager.

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


class Wanderer:
    """A mounted canary that is moved in and out of bundles, and at home in between.

    A move is one step that waits for nothing; an unmount waits for every processor of the machine.
    """

    def __init__(self, source: Path, home: Path) -> None:
        home.mkdir() if source.is_dir() else home.touch()
        self._home = os.open(home, os.O_PATH)
        self._tree = clone_tree(source)

    def visit(self, place: int) -> None:
        """Be mounted on the object behind a handle."""
        attach(self._tree, place)

    def go_home(self) -> None:
        """Be mounted there no more."""
        attach(self._tree, self._home)

    def close(self) -> None:
        """Be mounted nowhere."""
        unmount(self._tree)
        os.close(self._tree)
        os.close(self._home)


def unmount(tree: int) -> None:
    """Unmount what a handle is of. What goes is the topmost, so until the one meant is gone."""
    with suppress(OSError):
        while True:
            umount(b"/proc/self/fd/%d" % tree, MNT_DETACH)


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
        known: dict[str, tuple[Callable[[int], None], ...]] = {
            # Few real mounts: each is taken off again, and that waits for every processor.
            "mount": (self._mount, *[self._wander] * 7),
            "swap": (self._swap,),
            "exchange": (self._exchange,),
        }
        self._moves = [move for name in sorted(attacks) for move in known[name]]
        self._wanderers: dict[Path, Wanderer] = {}
        self._count = itertools.count()

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
        source, place = self._source_and_place()
        pinned = os.open(place, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        tree = clone_tree(source)
        try:
            attach(tree, pinned)
            self._did(MOUNTS)
            self._wait()
            unmount(tree)
        finally:
            os.close(tree)
            os.close(pinned)

    def _wander(self, fd: int) -> None:
        """Let a mounted canary turn up in the bundle and be gone again."""
        source, place = self._source_and_place()
        pinned = os.open(place, os.O_PATH | os.O_NOFOLLOW, dir_fd=fd)
        wanderer = self._wanderers.pop(source, None) or self._new_wanderer(source)
        try:
            wanderer.visit(pinned)
            self._did(MOUNTS)
            self._wait()
            wanderer.go_home()
        except OSError:
            wanderer.close()  # unmounted together with another attacker's mount that it was in
            raise
        finally:
            os.close(pinned)
        self._wanderers[source] = wanderer

    def _new_wanderer(self, source: Path) -> Wanderer:
        home = self._arena.homes / f"{self._number}-{next(self._count)}"
        return Wanderer(source, home)

    def _source_and_place(self) -> tuple[Path, bytes]:
        canary = self._random.choice(self._arena.canaries).root
        if self._random.random() < 0.25:
            return canary / "data-0", self._random.choice(FILES)
        return canary, self._random.choice((*PLACES, b"."))

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
