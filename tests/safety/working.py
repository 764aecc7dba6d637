"""A worker of the program at the work that a test puts trouble into: which job, on which bundle.

The pool, its fork server and its workers are the program's own. What a test does to the worker's
system calls it does by `tests.safety.straced`.
"""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import pytest

from reconciler.model.hidden import parse_hidden
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Outcome, Result
from reconciler.worker.messages import WorkerScope
from reconciler.worker.pool import WorkerPool
from tests.safety import straced
from tests.safety.ground import REPOSITORY, Ground
from tests.support.bundles import (
    DOWN,
    MARK,
    Bundle,
    identify,
    new_mark,
    remove_cgroups,
    top_cgroup,
)

Kind = Literal["whole", "hooks", "hidden"]
"""A complete dead bundle, one with poststop hooks, or what a removal cut short has left of one."""

Report = TypeVar("Report")

PATIENCE = 20.0
KINDS: tuple[Kind, ...] = ("whole", "hooks", "hidden")


@dataclass
class Work:
    """A pool on a ground, and the kind of bundles it gets."""

    on: Ground
    kind: Kind
    pool: WorkerPool
    hide_at: tuple[str, int] = ("", 0)

    async def worker(self) -> int:
        """Have a worker that waits for a job and has just passed over /proc; give its pid."""
        assert (await self.pool.scan()).answered
        pid = self.pool._idle[-1].pid
        assert pid is not None
        return pid

    async def bundle(self, id_: str) -> Bundle:
        """Make a bundle of this kind."""
        made = self.on.dead(id_.replace("_", "-"), hooks=self.kind == "hooks")
        if self.kind == "hidden":
            await self._hide(made)
        return made

    async def do(self, bundle: Bundle) -> Outcome:
        """Have a worker remove it, under whichever name it has now."""
        hidden = hidden_of(bundle)
        if hidden is None:
            return await self.pool.clean(bundle.key, bundle.identity, DOWN)
        key = BundleKey(bundle.key.namespace, hidden.name)
        return await self.pool.finish(key, bundle.identity)

    async def trace(self, bundle: Bundle, to: Path) -> list[straced.Call]:
        """Remove one without any trouble and give the worker's calls."""
        with straced.attached(await self.worker(), to=to):
            outcome = await self.do(bundle)
        assert outcome.result is Result.CLEANED, outcome
        return straced.read(to)

    async def _hide(self, bundle: Bundle) -> None:
        """Kill a worker right after it has hidden a bundle."""
        if not self.hide_at[0]:
            whole = Work(self.on, "whole", self.pool)
            to = self.on.site.base / "hiding"
            calls = await whole.trace(self.on.dead("hiding"), to)
            last = max(at for at, call in enumerate(calls) if call.name == "renameat2")
            # Its first removal from there on: what is only looked at differs from time to time.
            name = "unlinkat"
            begun = next(at for at in range(last, len(calls)) if calls[at].name == name)
            self.hide_at = name, straced.counted(calls[: begun + 1])[name]
        name, number = self.hide_at
        inject = f"inject={name}:signal=KILL:when={number}"
        with straced.attached(await self.worker(), "-e", f"trace={name}", "-e", inject):
            outcome = await self.pool.clean(bundle.key, bundle.identity, DOWN)
        assert outcome.result is Result.FAILED, outcome
        assert hidden_of(bundle) is not None


def hidden_of(bundle: Bundle) -> Path | None:
    """Find a bundle by the hidden name it has got, None if it has none."""
    if bundle.path.exists():
        return None
    for path in bundle.path.parent.iterdir():
        if parse_hidden(path.name) == bundle.identity.ino:
            return path if identify(path) == bundle.identity else None
    return None


@asynccontextmanager
async def working(on: Ground, kind: Kind) -> AsyncIterator[Work]:
    """Have a pool on a ground."""
    scope = WorkerScope(on.site.layout, runc=str(on.programs / "runc"))
    async with WorkerPool(scope) as pool:
        yield Work(on, kind, pool)


def left_of(on: Ground, bundles: list[Bundle]) -> list[str]:
    """Name everything that is left of dead bundles, wherever it is."""
    left = [str(path) for bundle in bundles for path in bundle.left()]
    left += [point for bundle in bundles for point in bundle.mounts()]
    left += [str(path) for path in (on.site.tree / "default").iterdir()]
    live = {one.bundle.socket for one in on.live}
    sockets = Path(os.fsdecode(on.site.layout.sockets))
    return left + [str(path) for path in sockets.iterdir() if path not in live]


def in_shards(kind: type[Report], *options: str, of: int = 2) -> list[Report]:
    """Run the work of a report's module as one process for each processor; give their reports.

    They start afresh, so that nothing of a test run is inherited by the workers.
    """
    straced.needed()
    if os.geteuid() != 0:
        pytest.skip("needs root to make a mount namespace")
    module = kind.__module__
    commands = [[sys.executable, "-m", module, "--shard", f"{n}/{of}", *options] for n in range(of)]
    with tempfile.TemporaryDirectory() as scratch:
        said = _said_by(commands, scratch)
    for (out, err), command in zip(said, commands, strict=True):
        assert out, f"{command!r} said nothing:\n{err}"
        assert "Traceback" not in err, err
    return [msgspec.json.decode(out, type=kind) for out, _ in said]


def _said_by(commands: list[list[str]], scratch: str) -> list[tuple[str, str]]:
    """Run them at the same time, each to its end; or end them all, with whatever they started."""
    with ExitStack() as stack:
        running = []
        for command in commands:
            mark = new_mark()
            environment = {**os.environ, "TMPDIR": scratch, MARK: mark}
            stack.callback(remove_cgroups, top_cgroup(mark))
            running.append(stack.enter_context(_running(command, environment)))
        return [one.communicate() for one in running]


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment,
    ) as shard:
        try:
            yield shard
        finally:
            shard.kill()
            # Who ends what it has started (`tests.support.trees`) has its pipes until that is done.
            for pipe in (shard.stdout, shard.stderr):
                while pipe and not pipe.closed and select.select([pipe], [], [], PATIENCE)[0]:
                    if not os.read(pipe.fileno(), 1 << 16):
                        break
