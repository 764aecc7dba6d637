"""Cgroup names: may a living process that was seen in some cgroup be a certain container's? Pure.

An id is a word, and words are parts of anybody's cgroup path: ``c1`` of ``session-c1.scope``,
``docker`` of all that dockerd runs. Such a hint only ever delays a removal (whether a process *is*
a container's is asked in `reconciler.decide.ownership`), but it must not delay for ever what is
plainly dead. So it counts for as much as nothing better is known:

1. Whoever is in a cgroup that the bundle's files name, or in one below it, may be its own, wherever
   that path begins: a hierarchy may be mounted from within, or be seen from inside another cgroup.
2. The runtime's state names the cgroup: it is where the runtime has put the container, as a
   directory that it made itself. Empty or gone, nobody is in there: the kernel removes no cgroup
   that holds a process, and only root moves anybody out of one. No other place counts.
3. config.json alone names it, and it is there: what was asked for was done, and the same holds.
4. config.json alone names it, and it is nowhere that we can see. That it was asked for does not say
   that it was done (another driver, a mount that we do not see): whoever is in a cgroup whose last
   name is the id, or a systemd scope's of it, may be its own. Not so for names further up the path,
   which are those of what the process's cgroup is only a part of. The best-known of these: runc's
   own driver takes the systemd path ``x.slice:cri-containerd:<id>`` for the name of one directory.
   So the part after a name's last colon may be the id, too; no id holds a colon.
5. Nothing names it: any name anywhere in the path that may stand for the id counts.

Only a cgroup that was made, in the cases 2 and 3, says of a process outside it that it is not the
container's (`refutes`). Else the process that ``init.pid`` names may be its init wherever it is.

In the cases 4 and 5 a name counts for nothing where another bundle's evidence explains it: in the
cgroup that containerd gives to the same id of another namespace, while a shim of that name lives
there. Wherever this is asked the bundle's own shim is dead.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, pairwise
from typing import Final, NamedTuple

from reconciler.model.ids import MAX_IDENTIFIER, BundleKey
from reconciler.model.values import EMPTY, Word

SCOPE: Final = ".scope"
COLON: Final = ":"
_FEW: Final = 64


class CgroupSource(Word):
    """Which of a bundle's files names its cgroup."""

    RUNTIME = "runtime's state"
    CONFIG = "config.json"
    NONE = "nothing"


class NamedCgroup(NamedTuple):
    """What a bundle's own files say about its cgroup.

    Attributes:
        source: Who names it.
        paths: As paths within a hierarchy.
        exists: Whether one of them was seen; not if that could not be known.
    """

    source: CgroupSource = CgroupSource.NONE
    paths: tuple[str, ...] = ()
    exists: bool = False

    @property
    def refutes(self) -> bool:
        """Whether a process that is in none of the named is another's; cases 2 and 3."""
        match self.source:
            case CgroupSource.RUNTIME:
                return True
            case CgroupSource.CONFIG:
                return self.exists
            case CgroupSource.NONE:
                return False

    def holds(self, path: str) -> bool:
        """Return whether a path is a named one, or lies below one; case 1."""
        return any(named + "/" in path + "/" for named in self.paths)

    def may_be_called(self, id_: str, path: str) -> bool:
        """Return whether the names in a path count for the id; cases 2 to 5."""
        match self.source:
            case CgroupSource.RUNTIME:
                return False
            case CgroupSource.CONFIG:
                return not self.exists and id_ in names_in(path.rpartition("/")[2])
            case CgroupSource.NONE:
                return id_ in names_of(path)


def find_hints(
    key: BundleKey, named: NamedCgroup, paths: frozenset[str], served: Collection[BundleKey]
) -> tuple[str, ...]:
    """Give the cgroups in which a living process may be a bundle's, in order of name.

    Args:
        key: The bundle.
        named: What its files say.
        paths: The cgroups of all living processes.
        served: The names of living shims.
    """
    found = (
        path
        for path in _named(key.id, paths)
        if named.holds(path)
        or (named.may_be_called(key.id, path) and not _is_explained(key, path, served))
    )
    return tuple(sorted(found))


def _is_explained(key: BundleKey, path: str, served: Collection[BundleKey]) -> bool:
    """Return whether a cgroup is that of the same id in another namespace, where its shim lives."""
    return any(
        id_ == key.id and namespace != key.namespace and BundleKey(namespace, id_) in served
        for namespace, id_ in pairwise(path.split("/"))
    )


def may_hint(id_: str, paths: frozenset[str]) -> bool:
    """Return whether any path has a part that may stand for an id; there is none for nearly all."""
    # Of no paths nothing is asked: the index would be emptied, and filled again by the next bundle.
    return bool(paths) and id_ in _LATEST.of(paths)


def _named(id_: str, paths: frozenset[str]) -> frozenset[str]:
    """Find the paths of which a part may stand for an id."""
    found = _LATEST.of(paths).get(id_, EMPTY)
    return frozenset((found,)) if isinstance(found, str) else frozenset(found)


class _Index:
    """Paths by the ids that their parts may stand for: those of the pass that was asked for last.

    Passes that follow each other are alike, so what is new is put in and what is gone is taken out.
    What it says of some paths follows from these alone, whichever it was asked for before: it
    compares them with those that it holds, and while it changes, it counts as holding none.
    However many ids are named, whoever makes many paths makes no work beyond that. Nearly all
    names stand in one path, which then needs no set.
    """

    def __init__(self) -> None:
        self._paths: frozenset[str] | None = None
        self._by_name: dict[str, str | set[str]] = {}
        self._changes = 0  # since it was made

    def of(self, paths: frozenset[str]) -> Mapping[str, str | set[str]]:
        """Give the path of each name, or a set of them; to be used before the next question."""
        if paths is not self._paths:
            self._change_to(paths)
        return self._by_name

    def _change_to(self, paths: frozenset[str]) -> None:
        before, self._paths = self._paths, None
        changed = paths if before is None else before ^ paths
        self._changes += len(changed)
        if before is None or self._changes > _FEW + len(paths):
            self._by_name, self._changes, changed = {}, 0, paths  # what has shrunk keeps its size
        for path in changed:
            if path in paths:
                self._put(path)
            else:
                self._take(path)
        self._paths = paths

    def _put(self, path: str) -> None:
        by_name = self._by_name
        for name in _names(path):
            there = by_name.get(name)
            if there is None:
                by_name[name] = path
            elif isinstance(there, str):
                by_name[name] = {there, path}
            else:
                there.add(path)

    def _take(self, path: str) -> None:
        by_name = self._by_name
        for name in _names(path):
            there = by_name[name]
            if isinstance(there, str):
                del by_name[name]
            else:
                there.discard(path)
                if len(there) == 1:
                    by_name[name] = there.pop()


_LATEST: Final = _Index()


def usual_path(key: BundleKey) -> str:
    """Give the path that containerd asks for unless it is given another one."""
    return f"/{key.namespace}/{key.id}"


def names_of(path: str) -> Iterator[str]:
    """Give every id that a part of a path may stand for."""
    return (name for part in path.split("/") if part for name in names_in(part))


def names_in_all(paths: Iterable[str]) -> frozenset[str]:
    """Give every id that a part of any path may stand for.

    Of no path none: not the empty one, which would be news at every word of the witnesses.
    """
    return frozenset(chain.from_iterable(map(_names, paths)))


@lru_cache(maxsize=256)
def _names(path: str) -> frozenset[str]:
    """Give every id that a part of a path may stand for; remembered while it comes or goes."""
    parts = frozenset(filter(None, path.split("/")))
    if SCOPE in path or COLON in path:
        special = [part for part in parts if part.endswith(SCOPE) or COLON in part]
        return parts.union(*map(names_in, special))
    return parts


def names_in(component: str) -> tuple[str, ...]:
    """Give the ids that a cgroup's name may stand for, none longer than an id can be.

    A systemd scope is ``<prefix>-<id>.scope``; both may hold dashes, so every cut is tried. In
    config.json it is ``<slice>:<prefix>:<id>``, which another driver takes as it is.
    """
    names = [component]
    if tail := component[component.rfind(COLON) + 1 :] if COLON in component else "":
        names.append(tail)
    if component.endswith(SCOPE):
        stem = component.removesuffix(SCOPE)
        at = max(0, len(stem) - MAX_IDENTIFIER - 1)
        names.append(stem)
        while (at := stem.find("-", at) + 1) > 0:
            names.append(stem[at:])
    return tuple(name for name in names if len(name) <= MAX_IDENTIFIER)
