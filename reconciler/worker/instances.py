"""Instances: other containerds of this node, as their living shims show them. Reads only.

Several containerds may share runc's root, the names of cgroups and the directory of FIFOs. A shim
works in its bundle (`reconciler.worker.preflight`), so a shim of another instance leads to that
instance's tree. Whatever may be used there under a bundle's name is not removed here, and nobody is
ended. What nobody serves has no living user, and an instance without any living shim has none at
all. This is the one place that is asked, and it never takes no answer for "nobody".

Shims end all the time, and one that does leads nowhere. One that has ended by its own state is left
out, and then who has come is asked once more: another one of its containerd's may lead there now.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Final, NamedTuple

from reconciler import kernel
from reconciler.model.evidence import Answer, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.layout import SANDBOXES, TASKS, Layout
from reconciler.probe.ending import Endings
from reconciler.worker.preflight import serves_sandbox, works_in
from reconciler.worker.under_removal import stays

_TREE: Final = b"/proc/%d/cwd/../.."
_BUNDLES: Final = _TREE + b"/../" + TASKS
"""Where the bundles are of the containerd that a shim in a sandbox is of: beside its sandboxes."""
_TRIES: Final = 3
_ROUNDS: Final = 32
"""Passes looked at for one question while shims end; each costs as much as those who came since."""
_FOLLOW: Final = kernel.AT_PASSIVE & ~kernel.AT_SYMLINK_NOFOLLOW

_Object = tuple[int, int]  # device, inode


class _NoAnswer(str):
    """Why it cannot be known who else uses a name; outside of here a text like any other."""

    __slots__ = ()


def _text(why: str | None) -> str | None:
    """Give what may be written into a message, whose encoder takes no text of a kind of its own."""
    return None if why is None else str(why)


class Instances:
    """Remembers which trees one pass over /proc leads to.

    ``scan`` gives a pass that shows everybody who runs by now, made anew if asked for.
    """

    def __init__(self, layout: Layout, scan: Callable[[bool], ProcessScan]) -> None:
        self._layout = layout
        self._scan = scan
        self._scanned: ProcessScan | None = None
        self._trees: dict[_Object, _Way] = {}
        """One way to each tree that is not ours."""
        self._silent: tuple[ProcessScan, _Name] | None = None
        """The last pass that shows nobody of a name, and the name: no pass ever changes."""
        self._lost = 0
        """A shim of which even a new pass did not tell where it works."""

    def user(self, key: BundleKey, *, even_going: bool = False) -> str | None:
        """Say who else may use the name of a bundle, or that this cannot be known; None if nobody.

        Also a bundle that is being removed now, if ``even_going``: to what is dead it has no more
        claim than the bundle at hand.
        """
        return _text(self._ask(_Name(key.id, key.namespace, even_going)))

    def user_of_id(self, id_: str) -> str | None:
        """Say the same for an id, whatever the namespace."""
        return _text(self._ask(_Name(id_)))

    def unanswered(self, key: BundleKey, *, anywhere: bool = False) -> str | None:
        """Say why nobody can tell who else uses a name, or its id ``anywhere``; None if one can."""
        found = self._ask(_Name(key.id) if anywhere else _Name(key.id, key.namespace))
        return _text(found) if isinstance(found, _NoAnswer) else None

    def runner(self, key: BundleKey) -> str | None:
        """Say which shim or helper of that name runs, or that this cannot be known."""
        return _text(self._settle(partial(_named, _Name(key.id, key.namespace))))

    @contextmanager
    def others(self, scanned: ProcessScan) -> Iterator[tuple[list[bytes], str]]:
        """Hold the trees of other containerds, so that whoever ends meanwhile hides none.

        Gives a path to each tree to which a shim of a pass leads, or one that has come since, and
        why these may not be all; empty if they are.
        """
        with ExitStack() as held:
            trees: list[bytes] = []

            def hold(scanned: ProcessScan, endings: Endings) -> None:
                trees.clear()
                for tree, way in self._trees_of(scanned, endings).items():
                    trees.append(b"/proc/self/fd/%d/." % held.enter_context(_open(tree, way)))

            why = self._settle(hold, scanned)
            yield ([], str(why)) if why else (trees, "")

    def _ask(self, name: "_Name") -> str | None:
        return self._sandbox(name) or self._settle(partial(self._user, name))

    def _settle(
        self,
        look: Callable[[ProcessScan, Endings], str | None],
        scanned: ProcessScan | None = None,
    ) -> str | None:
        """Look at a pass until it is known who of it has ended, and who has come since they did.

        Args:
            look: Says what speaks against it, None if nothing does; raises :class:`_UnsureError`.
            scanned: The first pass, if it is not the one that shows everybody by now.
        """
        unanswered, tries, endings = "which shims run cannot be known", 0, Endings()
        for _ in range(_ROUNDS):
            shown = len(endings.shown)
            pass_, scanned = scanned or self._scan(tries > 0), None
            if pass_.answered:
                try:
                    found = look(pass_, endings)
                except _UnsureError as error:
                    self._scanned = None
                    if error.pid and endings.show(error.pid):
                        continue
                    unanswered = str(error)
                    lost, self._lost = self._lost, error.pid
                    if error.pid and lost == error.pid:
                        break
                else:
                    if found is not None or len(endings.shown) == shown:
                        return found
                    continue
            tries += 1  # that may have been for a moment
            if tries == _TRIES:
                break
        return _NoAnswer(unanswered)

    def _user(self, name: "_Name", scanned: ProcessScan, endings: Endings) -> str | None:
        if self._silent is None or self._silent[0] is not scanned or self._silent[1] != name:
            why = _named(name, scanned, endings)
            if why is not None:
                return why
            self._silent = None if endings.shown else (scanned, name)
        pid = self._having(name, scanned, endings)
        if pid is None:
            return None
        return f"another containerd, that of the shim with pid {pid}, has one so named"

    def _sandbox(self, name: "_Name") -> str | None:
        """Say that our own containerd has a sandbox so named, or that this cannot be known."""
        tree = self._layout.sandboxes
        try:
            there = any(
                stays(kernel.AT_FDCWD, tree + b"/" + key.path, even_going=name.even_going)
                for key in name.keys_in(tree)
            )
        except FileNotFoundError:  # containerd has no such tree
            return None
        except OSError as error:
            return _NoAnswer(f"which sandboxes there are cannot be known: {error.strerror}")
        return "a sandbox of containerd's has that name" if there else None

    def _having(self, name: "_Name", scanned: ProcessScan, endings: Endings) -> int | None:
        """Give a pid of an instance that has a bundle of such a name.

        Raises:
            _UnsureError: A shim does not lead to its tree, or not any more.
        """
        for tree, (pid, path) in self._trees_of(scanned, endings).items():
            try:
                there = any(
                    stays(kernel.AT_FDCWD, path + b"/" + key.path, even_going=name.even_going)
                    for key in name.keys_in(path)
                )
                # Nothing was there: that counts only if it was that tree which was asked.
                if _object(path) != tree:
                    raise _lost(pid)
            except OSError:
                raise _lost(pid) from None
            if there:
                return pid
        return None

    def _trees_of(self, scanned: ProcessScan, endings: Endings) -> Mapping[_Object, "_Way"]:
        """Give one way to each tree that is not ours.

        Raises:
            _UnsureError: A living shim leads nowhere.
            OSError: Our own tree cannot be looked at.
        """
        if scanned is not self._scanned:
            self._trees = dict(_trees(self._layout, scanned, endings))
            self._scanned = scanned
        return self._trees


class _Way(NamedTuple):
    """A way to a tree of another containerd: by the directory that a shim of it works in."""

    pid: int
    path: bytes


class _Name(NamedTuple):
    """What is asked about: an id, in one namespace or in any."""

    id: str
    namespace: str | None = None
    even_going: bool = False

    def fits(self, key: BundleKey) -> bool:
        return key.id == self.id and self.namespace in {None, key.namespace}

    def keys_in(self, tree: bytes) -> list[BundleKey]:
        if self.namespace is not None:
            return [BundleKey(self.namespace, self.id)]
        return [BundleKey(escape(namespace), self.id) for namespace in os.listdir(tree)]


class _UnsureError(Exception):
    """A pass gives no answer, because of one process; pid 0 where that is not known."""

    def __init__(self, why: str, pid: int = 0) -> None:
        super().__init__(why)
        self.pid = pid


def _lost(pid: int) -> _UnsureError:
    return _UnsureError(f"where the shim with pid {pid} works cannot be known", pid)


def _named(name: _Name, scanned: ProcessScan, endings: Endings) -> str | None:
    """Say which process of a pass bears such a name, or may.

    Raises:
        _UnsureError: A helper does, but the pass may be a moment old, and helpers end soon.
    """
    for shim in scanned.shims:
        if name.fits(shim.key) and not endings.show(shim.pid):
            return f"a shim of {shim.key} is running"
    for one in scanned.unread:
        if (one.key is None or name.fits(one.key)) and not endings.show(one.pid):
            return _NoAnswer(f"whose shim the process with pid {one.pid} is cannot be known")
    for key in scanned.helpers:
        if name.fits(key):
            raise _UnsureError(f"a shim of {key} is running")
    return None


def _trees(
    layout: Layout, scanned: ProcessScan, endings: Endings
) -> Iterator[tuple[_Object, _Way]]:
    """Find the trees that are not ours, also those of shims of which only the directory is known.

    Raises:
        _UnsureError: A shim that has not ended leads neither to our tree nor to where a bundle or
            a sandbox is or was in another one.
    """
    ours = {_object(layout.tasks)}
    with suppress(FileNotFoundError):  # containerd has no such tree
        ours.add(_object(layout.sandboxes))
    silent = (ShimProcess(one.key, one.pid) for one in scanned.unread if one.key is not None)
    for shim in (*scanned.shims, *silent):
        where = works_in(layout, shim)
        if where is Answer.YES or serves_sandbox(layout, shim):
            continue
        try:
            tree = _object(_TREE % shim.pid)
            if tree in ours:
                continue  # its bundle or its sandbox was removed under it
            yield from dict(_ways(shim, tree, is_bundle=where is Answer.NO)).items()
        except OSError:
            if not endings.show(shim.pid):
                raise _lost(shim.pid) from None


def _ways(shim: ShimProcess, tree: _Object, *, is_bundle: bool) -> Iterator[tuple[_Object, _Way]]:
    """Give what a shim leads to: the tree of bundles, or that of sandboxes and the one beside it.

    Raises:
        OSError: Neither a bundle nor a sandbox of its namespace is or was where it works.
    """
    yield tree, _Way(shim.pid, _TREE % shim.pid)
    if is_bundle or _was_in(TASKS, shim):
        return
    if not _was_in(SANDBOXES, shim):
        raise FileNotFoundError
    bundles = _BUNDLES % shim.pid
    try:
        yield _object(bundles), _Way(shim.pid, bundles)
    except FileNotFoundError:
        if _object(_TREE % shim.pid) != tree:  # it has ended; else there are no bundles
            raise


@contextmanager
def _open(tree: _Object, way: _Way) -> Iterator[int]:
    """Open the tree that a shim leads to.

    Raises:
        _UnsureError: It does not lead there any more.
    """
    try:
        handle = os.open(way.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise _lost(way.pid) from None
    try:
        found = kernel.statx_handle(handle)
        if (found.dev, found.ino) != tree:
            raise _lost(way.pid)
        yield handle
    finally:
        os.close(handle)


def _was_in(home: bytes, shim: ShimProcess) -> bool:
    """Return whether a shim works where something of its namespace is or was, in such a tree.

    That may have been hidden or removed under it; the kernel keeps both names above.

    Raises:
        OSError: It cannot be known.
    """
    path = os.readlink(b"/proc/%d/cwd" % shim.pid)
    namespace = b"/".join((b"", home, unescape(shim.key.namespace)))
    return path.rpartition(b"/")[0].endswith(namespace)


def _object(path: bytes) -> _Object:
    found = kernel.statx(kernel.AT_FDCWD, path, _FOLLOW)
    return found.dev, found.ino
