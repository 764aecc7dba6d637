"""The nodes of a fleet: what goes wrong on each, which alert that is, and what mends it."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.daemon.running import NAMESPACE, Daemon, Site, free_port, running
from tests.support.fake_containerd import FakeContainerd

PILE: Final = 40
"""Bundles of a pile: more than ContainerdLeftoversGrowing takes for usual."""

_AT_ONCE: Final = 6
"""Daemons that start together: each needs a second of a processor."""

_ENFORCE: Final = {
    "mode": "enforce", "cleanup__grace": "0s", "cleanup__settle": "1s",
    "brake__max_per_minute": 100_000, "watch__relist": "10s",
}  # fmt: skip


@dataclass
class Node:
    """A node: its tree, its containerd and its daemon."""

    name: str
    site: Site
    fake: FakeContainerd
    portal: BlockingPortal
    _stack: ExitStack = field(default_factory=ExitStack)
    daemon: Daemon | None = None

    def start(self) -> None:
        """Start the daemon."""
        self.daemon = self._stack.enter_context(running(self.site, ready=False))

    def stop(self) -> None:
        """Kill the daemon, as a node that dies does."""
        self._stack.close()
        self.daemon = None

    @property
    def memory(self) -> int:
        """Bytes of the daemon and its fork server, shared pages divided among who has them."""
        assert self.daemon is not None
        return sum(map(_pss, _with_children(self.daemon.process.pid)))


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong on a node.

    Attributes:
        alerts: The alerts that fire for it, and no other does.
        cause: Makes it go wrong.
        mend: Ends it.
    """

    alerts: frozenset[str]
    cause: Callable[[Node], object]
    mend: Callable[[Node], object]


def _pile(node: Node) -> None:
    for number in range(PILE):
        node.site.make(f"dead-{number}")


def _block(node: Node) -> None:
    """Put somebody's data where a rootfs was: the bundle is kept for it."""
    bundle = node.site.make("kept")
    (bundle / "rootfs" / "data").write_text("somebody's")


def _unblock(node: Node) -> None:
    (node.site.tree / NAMESPACE / "kept" / "rootfs" / "data").unlink()


def _rewrite(node: Node, **options: object) -> None:
    node.site.write(**options)
    assert node.daemon is not None
    node.daemon.reload()


def _correct(node: Node) -> None:
    del node.site.options["nonsense"]
    _rewrite(node)


def _call(node: Node, what: str) -> None:
    node.portal.call(getattr(node.fake, what))


TROUBLES: Final = {
    "quiet": Trouble(frozenset(), lambda _: None, lambda _: None),
    "down": Trouble(frozenset({"ContainerdReconcilerDown"}), Node.stop, Node.start),
    "pile": Trouble(
        frozenset({"ContainerdLeftoversGrowing", "ContainerdLeftoversOnlyObserved"}),
        _pile,
        partial(_rewrite, mode="enforce"),
    ),
    "blocked": Trouble(frozenset({"ContainerdLeftoversBlocked"}), _block, _unblock),
    "refused": Trouble(
        frozenset({"ContainerdReconcilerReloadFailed"}), partial(_rewrite, nonsense=1), _correct
    ),
    "hung": Trouble(
        frozenset({"ContainerdNotAnswering"}), partial(_call, what="stop"),
        partial(_call, what="start"),
    ),
}  # fmt: skip


@dataclass
class Fleet:
    """All nodes, by name."""

    nodes: dict[str, Node]

    def trouble(self, name: str) -> Trouble:
        """Tell what goes wrong on a node; its name ends with it."""
        return TROUBLES[name.rpartition("-")[2]]

    @property
    def alerts(self) -> set[tuple[str, str]]:
        """All alerts that fire once everything has gone wrong, each with its node."""
        return {(name, alert) for name in self.nodes for alert in self.trouble(name).alerts}

    def cause(self) -> None:
        """Let everything go wrong."""
        for name, node in self.nodes.items():
            self.trouble(name).cause(node)

    def mend(self, names: Iterable[str] = ()) -> None:
        """End it, on these nodes or on all."""
        for name in names or self.nodes:
            self.trouble(name).mend(self.nodes[name])


@contextmanager
def fleet(directory: Path, count: int) -> Iterator[Fleet]:
    """Run a daemon on each of so many nodes; kinds of trouble take turns."""
    kinds = list(TROUBLES)
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        nodes: dict[str, Node] = {}
        ports = _ports(count)
        for number in range(count):
            kind = kinds[number % len(kinds)]
            name = f"node-{number + 1:02}-{kind}"
            site = Site(directory / name, port=ports[number])
            site.write(**_ENFORCE | ({"mode": "observe"} if kind == "pile" else {}))
            # What is no bundle is reported and never touched; so each knows its namespace.
            (site.tree / NAMESPACE).mkdir()
            (site.tree / NAMESPACE / "notes").write_text("no bundle")
            fake = FakeContainerd(site.base)
            fake.layout = site.layout
            stack.enter_context(portal.wrap_async_context_manager(fake))
            stack.enter_context(fake.lock())
            nodes[name] = Node(name, site, fake, portal)
        waiting = list(nodes.values())
        while waiting:
            some, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            for node in some:
                stack.callback(node.stop)
                node.start()
            for node in some:
                assert node.daemon is not None
                node.daemon.wait_for("inventory.counted")
        yield Fleet(nodes)


def _ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)


def _pss(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            yield from _with_children(int(child))
