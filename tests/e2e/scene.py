"""The scene of the crash matrix: many ways to be dead, beside every way to be alive."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.e2e import cri
from tests.e2e.node import Node
from tests.e2e.snapshot import Snapshot
from tests.e2e.task import Task

BARE: Final = "bare"
"""Nothing in the bundle but the mounted rootfs."""

EMPTIED: Final = "all-gone"
"""Nothing in the bundle at all."""

DAMAGE: Final = {
    "whole": (),
    "lacks-init-pid": ("init.pid",),
    "no-options": ("options.json",),
    "no-config": ("config.json",),
    "no-address": ("address", "bootstrap.json"),
    "lacks-runtime": ("runtime",),
    "no-shim-path": ("shim-binary-path",),
    "no-log": ("log", "log.json"),
    "no-work": ("work",),
    # docker's "file exists" at the next start of the id
    "half-made": ("init.pid", "options.json", "runtime", "log.json"),
}
"""Which files each dead bundle has lost."""


@dataclass(frozen=True)
class Scene:
    """Who is there.

    Attributes:
        node: Where.
        dead: Tasks whose shim and init are gone.
        living: Tasks of which nothing may change.
        starting: Names of tasks in creation.
    """

    node: Node
    dead: list[Task]
    living: list[Task]
    starting: list[str]

    def living_part(self) -> Snapshot:
        """Everything that must stay as it is."""
        return Snapshot.take(self.node, self.living, self.starting)


@contextlib.contextmanager
def crashed(node: Node, *, also_lost: tuple[str, ...] = (), restart: bool) -> Iterator[Scene]:
    """Crash a node with all of it on, and let containerd do what it can if it is restarted.

    Args:
        node: Where; its containerd serves Kubernetes.
        also_lost: Files that every dead bundle has lost besides.
        restart: Whether containerd is started again.
    """
    living = _living(node)
    # containerd since 1.7 deletes stopped tasks when it restarts: there they come after it
    late = restart and node.containerd.version >= (1, 7)
    if not late:
        living += _stopped(node)
    dead = node.run_all((*DAMAGE, BARE, EMPTIED))
    with contextlib.ExitStack() as stack:
        if not restart:
            stack.enter_context(node.creating("slow"))
        orphan = node.orphan("orphan")
        node.lose(orphan, "runtime")
        node.crash(*dead)
        for task in dead:
            damage(node, task, task.id)
            node.lose(task, *also_lost)
        if restart:
            # containerd before 2.1 gives up on whatever lacks `runtime`; later ones must not see it
            given_up = [orphan, *(dead if "runtime" in also_lost else [])]
            node.restart(unseen=given_up if node.containerd.version >= (2, 1) else [])
            if late:
                living += _stopped(node)
            stack.enter_context(node.creating("slow"))
        yield Scene(node, dead, [*living, orphan], ["slow"])


def _living(node: Node) -> list[Task]:
    pod = [node.run("pod", pod="pod"), node.run("member", pod="pod")]
    return [node.run("web"), *pod, *cri.pod(node, "real")]


def _stopped(node: Node) -> list[Task]:
    return [node.stopped("stopped"), node.stopped("ended", pod="pod")]


def damage(node: Node, task: Task, row: str) -> None:
    """Take from a dead bundle what one of that row has lost."""
    place = node.bundle(task.id)
    if row in DAMAGE:
        node.lose(task, *DAMAGE[row])
        return
    node.lose(task, *(one.name for one in place.iterdir() if one.name != "rootfs"))
    if row == EMPTIED:
        rootfs = f"{node.inside(task.id)}/rootfs"
        node.apart.run("umount", rootfs)
        (place / "rootfs").rmdir()
