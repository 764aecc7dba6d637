"""Write the transcripts of README.md anew, from a real containerd: `make pictures`, as root.

A containerd in a mount namespace of its own is killed together with four shims and their tasks; the
`runtime` file of each is lost; containerd is started again. Then each command that the README shows
is run on it, and what it prints takes the place of what the README had.
"""

import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.task import Task

README: Final = Path(__file__).resolve().parents[1] / "README.md"
SHOWN: Final = re.compile(
    r"^(# containerd-reconciler (?P<words>[^|\n]+?)(?: \| head -n (?P<lines>\d+))?\n).*?(?=^```$)",
    re.MULTILINE | re.DOTALL,
)
"""A transcript: the command, and what it prints up to the end of its block."""

_NAMESPACE: Final = "shop"
_DEAD: Final = ("api", "cache", "db", "proxy")
_BUSY: Final = "proxy"


def rewritten(page: str, run: Callable[[list[str]], str]) -> str:
    """Give a page whose transcripts show what their commands print now.

    Whatever removes is run last, since all others show what is there before.
    """
    commands = [found["words"] for found in SHOWN.finditer(page)]
    printed = {one: run(shlex.split(one)) for one in sorted(commands, key=_removes)}

    def renew(found: re.Match[str]) -> str:
        lines = printed[found["words"]].splitlines(keepends=True)
        return found[1] + "".join(lines[: int(found["lines"] or len(lines))])

    return SHOWN.sub(renew, page)


def _removes(command: str) -> bool:
    return command.startswith("clean ") and "--dry-run" not in command


def damage(node: Node) -> list[Task]:
    """Fill a node with tasks in every state, and break it; gives the dead ones."""
    for name in ("web", "app"):
        node.run(name)
    node.run("pod", pod="pod")
    node.stopped("batch")
    node.stopped("job", pod="pod")
    dead = [node.run(name) for name in _DEAD]
    lonely = node.orphan("lonely")
    node.lose(lonely, "runtime")
    node.crash(*dead)
    for task in dead:
        node.lose(task, "runtime")
    # containerd before 2.1 gives up on whatever lacks `runtime`; later ones must not see it
    node.restart(unseen=[*dead, lonely] if node.containerd.version >= (2, 1) else [])
    return dead


def main() -> int:
    """Write them."""
    with tempfile.TemporaryDirectory() as name, Node(Path(name), namespace=_NAMESPACE) as node:
        node.occupy(next(task for task in damage(node) if task.id == _BUSY))

        def run(words: list[str]) -> str:
            ran = product.run(node, *product.words(node, *words))
            sys.stdout.write(f"{README.name}: {' '.join(words)}: exit code {ran.code}\n")
            return ran.out + ran.err

        README.write_text(rewritten(README.read_text(), run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
