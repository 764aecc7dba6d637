"""A second containerd beside a node's own: the same namespaces and ids, in the same place.

State, root and address are its own. What containerd and runc keep where the configuration does not
reach, both have in common: the directories of the shims' sockets and of the clients' FIFOs and,
unless they are told otherwise, runc's root and the names of the cgroups.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from shutil import rmtree
from typing import Final, NamedTuple

from typing_extensions import override

from tests.e2e.apart import Apart, Word
from tests.e2e.containerd import RUNTIME_DIR, TASKS, Containerd
from tests.e2e.node import Node
from tests.e2e.scene import BARE, DAMAGE, EMPTIED, damage
from tests.e2e.snapshot import Snapshot, tree
from tests.e2e.task import Task

ROWS: Final = (*DAMAGE, BARE, EMPTIED)
"""What the first one's bundles have lost."""

POD: Final = "pod"
"""The second one's pod, whose shim serves members that bear the ids of the first one's dead."""

AT_ONCE: Final = 4
"""Containers that are worked on at the same time."""


class Twin(Node):
    """Owns a second containerd in the place of a first node, and under its name."""

    def __init__(self, first: Node) -> None:
        self._first = first
        directory = first.root.parent / "twin"
        directory.mkdir()
        state = f"/run/{first.namespace}/twin/containerd"
        super().__init__(directory, state=state, namespace=first.namespace)

    @override
    def _place(self) -> Apart:
        return self._first.apart

    @override
    def _service(self, state: str, first: list[Path]) -> Containerd:
        own = os.path.dirname(state)
        self.apart.run("mkdir", "-p", own)
        self.apart.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", own)
        return super()._service(state, first)

    @override
    def close(self) -> None:
        """End its containerd; all else is in the first one's place, and ends with that."""
        self.containerd.kill()
        for helper in self._helpers:
            helper.communicate()


class Place(NamedTuple):
    """Where a container's things lie that two instances may have in common.

    Attributes:
        root: runc's root, if it is told one.
        cgroup: Its cgroup below that of the node, if it is told one.
    """

    root: str = ""
    cgroup: str = ""

    def options(self, node: Node, id_: str) -> list[Word]:
        """Say so to `ctr run`."""
        root = ["--runc-root", f"/run/{node.namespace}/{self.root}"] if self.root else []
        cgroup = ["--cgroup", f"/{node.namespace}/{self.cgroup}/{id_}"] if self.cgroup else []
        return [*root, *cgroup]

    def runc(self, node: Node, id_: str) -> Path:
        """Say where runc's state of it is."""
        root = f"/run/{node.namespace}/{self.root}" if self.root else f"{RUNTIME_DIR}/runc"
        return node.apart.path(f"{root}/{node.namespace}/{id_}")

    def cgroups(self, node: Node, id_: str) -> list[Path]:
        """List its cgroups."""
        return [top / self.cgroup / id_ for top in node.cgroups()]


class Sharing(NamedTuple):
    """What the two instances have in common of containers of one name.

    Attributes:
        name: Names it, and begins the ids.
        first, second: Where the things of either lie.
    """

    name: str
    first: Place
    second: Place

    @property
    def late(self) -> bool:
        """Whether the second can only be made when runc's state of the first has been lost."""
        return self.first.root == self.second.root


_USUAL, _OWN = Place(), Place("own-runc", "own")

SHARINGS: Final = (
    Sharing("nothing", _USUAL, _OWN),
    Sharing("cgroup", _USUAL, Place(root="own-runc")),
    Sharing("root", _USUAL, Place(cgroup="own")),
    Sharing("all", _USUAL, _USUAL),
    # A bundle that has lost `options.json` or `config.json` does not say that it was elsewhere.
    Sharing("usual", _OWN, _USUAL),
)


@dataclass
class Pair:
    """One container of each instance, of the same namespace and id.

    Attributes:
        sharing: What they have in common.
        row: What the first one's bundle has lost.
        stopped: Whether the second one's init is dead, and its shim alive.
        member: Whether the second one has no shim of its own, but one of a pod.
        first: Dead.
        second: Alive, and nothing of it may change.
        name: Its id, if it is to have a certain one.
    """

    sharing: Sharing
    row: str
    stopped: bool
    member: bool
    first: Task | None = None
    second: Task | None = None
    name: str = ""

    @property
    def id(self) -> str:
        """Name both."""
        kind = "stopped" if self.stopped else "running"
        return (
            self.name
            or f"{self.sharing.name}-{self.row}-{kind}-{'member' if self.member else 'alone'}"
        )

    @property
    def early(self) -> bool:
        """Whether the second one is there before the first, and so is all it has."""
        return not self.sharing.late and ROWS.index(self.row) % 2 == 1

    @property
    def tells_root(self) -> bool:
        """Whether the first one's bundle still says where runc's state is, or need not."""
        return not self.sharing.first.root or not self._lost("options.json")

    @property
    def tells_cgroup(self) -> bool:
        """Whether the first one's bundle, or runc's state of it, still names its cgroup."""
        return self._tells_state or not self._lost("config.json")

    @property
    def provable(self) -> bool:
        """Whether its death can ever be proven: nobody can be in what is not mounted.

        What is may be lived in by whoever has outlived its init, unless something names the cgroup.
        """
        return self.tells_cgroup or self.row == EMPTIED

    @property
    def _tells_state(self) -> bool:
        return self.tells_root and not self.sharing.late

    def _lost(self, file: str) -> bool:
        return file in DAMAGE.get(self.row, (file,))

    @property
    def separate(self) -> bool:
        """Whether all there is of the first is its own, and nobody who lives goes by its name."""
        return self.sharing.name == "nothing" and self.member


def every_pair() -> list[Pair]:
    """Make all there are."""
    kinds = [(stopped, member) for stopped in (False, True) for member in (False, True)]
    return [Pair(one, row, *kind) for one in SHARINGS for row in ROWS for kind in kinds]


def some_pairs(rows: tuple[str, ...] = ROWS) -> list[Pair]:
    """Make each row with each sharing once, and each kind of the second one about as often.

    There are five sharings and four kinds, so each row begins with the next kind.
    """
    kinds = cycle([(True, True), (False, True), (True, False), (False, False)])
    return [Pair(one, row, *next(kinds)) for row in rows for one in SHARINGS]


@dataclass
class Twins:
    """Two instances, and containers of the same names in both."""

    one: Node
    other: Twin
    pairs: list[Pair]
    _fifos: list[Path] = field(default_factory=list)

    def run_first(self) -> None:
        """Run the first instance's containers, and those of the second that are there before."""
        if any(pair.member for pair in self.pairs):
            self.other.run(POD, pod=POD)
        self._run_second([pair for pair in self.pairs if pair.early])
        for pair, task in zip(self.pairs, self._map(self._run, self.pairs), strict=True):
            pair.first = task

    def crash(self) -> None:
        """Crash them with their containerd, and start that again."""
        self.one.crash(*self.dead())
        for pair in self.pairs:
            if pair.sharing.late:
                rmtree(pair.sharing.first.runc(self.one, pair.id))
        for pair, task in zip(self.pairs, self.dead(), strict=True):
            damage(self.one, task, pair.row)
        self.one.restart(unseen=self.dead())

    def run_second(self) -> None:
        """Run the other ones of the second instance."""
        self._run_second([pair for pair in self.pairs if not pair.early])

    def dead(self) -> list[Task]:
        """List the first instance's containers."""
        return [pair.first for pair in self.pairs if pair.first is not None]

    def second_part(self) -> Snapshot:
        """Take everything that is the second instance's, wherever it lies."""
        other = self.other
        tops = [other.apart.path(other.state), other.root / TASKS, *self._fifos]
        things: dict[str, str] = {}
        for pair in self.pairs:
            assert pair.second is not None
            place = pair.sharing.second
            tops += [place.runc(other, pair.id), *place.cgroups(other, pair.id)]
            tops.append(_socket(other, pair.id))
            for process in (pair.second.init, pair.second.shim):
                things[str(process)] = _words_of(process.pid) if process.alive else "dead"
        for top in tops:
            things |= dict(tree(top))
        mounts = (row for row in other.apart.mountinfo() if row.split()[4].startswith(other.state))
        return Snapshot(things | {f"mount {row}": "there" for row in mounts})

    def first_part(self, pairs: list[Pair]) -> Snapshot:
        """Take what these bundles of the first instance are."""
        lines = (line for pair in pairs for line in tree(self.one.bundle(pair.id)))
        return Snapshot(dict(lines))

    def remains(self, pair: Pair, *, cgroups: bool = True) -> list[str]:
        """Name what is left of the first one, as far as it can be told to be its own.

        Args:
            pair: Which.
            cgroups: Whether its cgroups count, too: they are left where another instance has a
                bundle of the same name, whatever that one calls its own.
        """
        one, mine = self.one, pair.sharing.first
        left = [one.bundle(pair.id), one.root / TASKS / one.namespace / pair.id]
        if pair.tells_root and not (pair.sharing.late and self.other.bundle(pair.id).exists()):
            left.append(mine.runc(one, pair.id))
        left += mine.cgroups(one, pair.id) if cgroups and pair.tells_cgroup else []
        return [str(path) for path in left if path.exists()]

    def use_second(self) -> None:
        """Do with the second instance's containers all that one does with containers."""
        self._map(self._use, self.pairs)

    def _run(self, pair: Pair) -> Task:
        return self.one.run(pair.id, *pair.sharing.first.options(self.one, pair.id))

    def _run_second(self, pairs: list[Pair]) -> None:
        before = self._fifo_dirs()
        for pair, task in zip(pairs, self._map(self._run_again, pairs), strict=True):
            pair.second = task
        self._fifos += sorted(self._fifo_dirs() - before)

    def _run_again(self, pair: Pair) -> Task:
        options = pair.sharing.second.options(self.other, pair.id)
        task = self.other.run(pair.id, *options, pod=POD if pair.member else "")
        if pair.stopped:
            self.other.stop(task)
        return task

    def _use(self, pair: Pair) -> Task:
        ctr, task = self.other.ctr, pair.second
        assert task is not None
        if not pair.stopped:
            assert self.other.status(pair.id) == "RUNNING", pair.id
            ctr("tasks", "exec", "--exec-id", "again", pair.id, "/bin/true")
            ctr("tasks", "kill", "--signal", "KILL", pair.id)
            task.init.kill()
        ctr("tasks", "delete", "--force", pair.id)
        ctr("containers", "delete", pair.id)
        assert not self.other.bundle(pair.id).exists(), pair.id
        return task

    def _map(self, what: Callable[[Pair], Task], pairs: list[Pair]) -> list[Task]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(what, pairs))

    def _fifo_dirs(self) -> set[Path]:
        return set(self.one.apart.path(f"{RUNTIME_DIR}/fifo").iterdir())


def _socket(node: Node, id_: str) -> Path:
    return node.apart.path((node.bundle(id_) / "address").read_text().removeprefix("unix://"))


def _words_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()
