"""Print the transcripts of the README's minute on a real node: `python -m tests.minute`, as root.

A containerd in a mount namespace of its own is killed together with four shims and their tasks; the
`runtime` file of each is lost; containerd is started again. Then each command is run as the README
has it, and what it prints is printed here.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.task import Task

NAMESPACE: Final = "shop"
DEAD: Final = ("api", "cache", "db", "proxy")
BUSY: Final = "proxy"
SHOWN: Final = "api"


def damage(node: Node) -> list[Task]:
    """Fill a node with tasks in every state, and break it; gives the dead ones."""
    for name in ("web", "app"):
        node.run(name)
    node.run("pod", pod="pod")
    node.stopped("batch")
    node.stopped("job", pod="pod")
    dead = [node.run(name) for name in DEAD]
    lonely = node.orphan("lonely")
    node.lose(lonely, "runtime")
    node.crash(*dead)
    for task in dead:
        node.lose(task, "runtime")
    node.restart(unseen=[*dead, lonely] if node.containerd.version >= (2, 1) else [])
    return dead


def show(node: Node, *words: str) -> None:
    """Run a command and print what it prints."""
    ran = product.run(node, *product.words(node, *words))
    code = f"[exit code {ran.code}]\n" if ran.code else ""
    sys.stdout.write(f"# containerd-reconciler {' '.join(words)}\n{ran.out}{ran.err}{code}\n")
    sys.stdout.flush()


def main() -> int:
    """Print all of them."""
    with tempfile.TemporaryDirectory() as name, Node(Path(name), namespace=NAMESPACE) as node:
        dead = damage(node)
        node.occupy(next(task for task in dead if task.id == BUSY))
        show(node, "scan")
        show(node, "explain", f"{NAMESPACE}/{SHOWN}")
        show(node, "clean", "--dry-run")
        show(node, "clean", "--yes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
