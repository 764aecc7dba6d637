"""Where the daemon meets everything at once: its configuration, cheap tasks, who must be gone.

The troubles themselves are in `tests.e2e.troubles`.
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reconciler.demo.fixtures import Task as Fake
from reconciler.demo.fixtures import contents, runc_state
from reconciler.model.ids import BundleKey
from tests.e2e.containerd import RUNTIME_DIR, TASKS
from tests.e2e.node import Node
from tests.e2e.processes import Process
from tests.e2e.task import Task

BULK: Final = "bulk"
"""Namespace of the bundles that are made without containerd."""

CONFIG: Final = """
mode = "{mode}"
[watch]
relist = "2s"
[cleanup]
grace = "500ms"
settle = "0s"
threshold = "{threshold}"
[brake]
max_per_minute = 100000
mass_deaths = 100000
hold = "2s"
[http]
listen = "127.0.0.1:{port}"
[journal]
path = "{journal}"
max_size = "8GiB"
[log]
format = "json"
level = "debug"
"""


@dataclass
class Ground:
    """Where it happens.

    Attributes:
        node: The node.
        directory: For files on disk.
        port: Where the daemon listens.
        seconds: How long it lasts.
        deaths: How many cheap tasks die meanwhile.
        wedged: Tasks whose shims may be stopped.
        daemon: Pid of the daemon, which must bear it.
        seed: Of whatever is drawn.
        dying: Bundles that must be gone in the end.
        over: Set when the time is over.
    """

    node: Node
    directory: Path
    port: int
    seconds: float
    deaths: int
    wedged: list[Task]
    daemon: int = 0
    seed: int = 1
    dying: list[Path] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def config(self) -> Path:
        """The daemon's configuration."""
        return self.directory / "config.toml"

    @property
    def journal(self) -> Path:
        """The daemon's journal."""
        return self.directory / "journal.jsonl"

    def configure(self, mode: str = "enforce", threshold: str = "0s") -> None:
        """Write a configuration that is valid."""
        said = {"mode": mode, "threshold": threshold, "port": self.port, "journal": self.journal}
        self.write(CONFIG.format(**said))

    def write(self, text: str) -> None:
        """Write a configuration, over the old one."""
        fresh = self.config.with_suffix(".fresh")
        fresh.write_text(text)
        fresh.rename(self.config)

    def fake(self, name: str, pid: int = 0, **files: str) -> Path:
        """Make the bundle of a cheap task, complete at once for who watches.

        Args:
            name: Its id.
            pid: Its init, if it lives.
            files: What is to be in its files instead, `_` for `.`.
        """
        node, key = self.node, BundleKey(BULK, name)
        start = Process.at(pid).start if pid else 1
        shim = f"{RUNTIME_DIR}/s/{name}".encode()
        made = Fake(key, pid or 1 << 22, start, shim, None, f"{RUNTIME_DIR}/runc".encode())
        fresh = node.apart.path(f"{node.state}-making") / name
        (fresh / "rootfs").mkdir(parents=True)
        told = contents(made) | {
            file.replace("_", "."): text.encode() for file, text in files.items()
        }
        for file, text in told.items():
            (fresh / file).write_bytes(text)
        state = node.apart.path(f"{RUNTIME_DIR}/runc/{BULK}/{name}")
        work = node.root / TASKS / BULK / name
        for directory in (state, work):
            directory.mkdir(parents=True)
        (state / "state.json").write_bytes(runc_state(made, node.inside(name, BULK).encode()))
        (fresh / "work").symlink_to(work)
        bundle = node.bundle(name, BULK)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        return fresh.rename(bundle)

    def left(self) -> list[str]:
        """Name the dying whose bundles are still there."""
        return [path.name for path in self.dying if path.exists()]
