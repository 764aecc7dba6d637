"""Churn: pods come, die and go on a node of Kubernetes' while its containerd is killed at random.

What is left of the dead is told by a shell script that shares nothing with the program
(``left.sh``). Everything is drawn from a seed, so that a run which found something can be run
again; what comes of it also depends on who is faster.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from grpclib.exceptions import GRPCError, StreamTerminatedError

from tests.e2e import cri, product
from tests.e2e.node import Node
from tests.e2e.processes import Process, kill_all, until
from tests.e2e.snapshot import Snapshot
from tests.e2e.task import Task

MOST: Final = 5
"""Pods at a time."""

PATIENCE: Final = 40.0
"""Seconds in which two inventories must agree; each looks at another moment."""

UNLUCKY: Final = (OSError, GRPCError, StreamTerminatedError, AssertionError)
"""What a call comes to when containerd is killed under it."""

LOSABLE: Final = ("runtime", "init.pid", "options.json", "config.json", "address", "log.json")
SCRIPT: Final = Path(__file__).with_name("left.sh")


class Churn:
    """Does it, round by round, and compares.

    Args:
        node: Where; its containerd serves Kubernetes, and nobody else has its cgroups.
        seed: Of all that is drawn.
        config: A configuration by which nothing is too young to go.

    Attributes:
        done: What was done, for the message of a failure.
        left: How many things of each kind were left of the dead, over all rounds.
    """

    def __init__(self, node: Node, seed: int, config: Path) -> None:
        self.done = [f"seed {seed}"]
        self.left: Counter[str] = Counter()
        self._node = node
        self._config = config
        self._random = random.Random(seed)  # noqa: S311 -- not for secrets
        self._made = 0
        node.import_image(cri.NAMESPACE)
        self._keeper = self._pod()
        assert self._keeper

    def round(self, *, clean: bool) -> None:
        """Let things happen, see that nothing but what is left is told, and remove it."""
        draw = self._random
        self._note("round")
        with ThreadPoolExecutor(4) as pool:
            what: list[Callable[[], object]] = [self._pod] * draw.randrange(1, 3) + draw.choices(
                self._happenings(), k=2
            )
            going = [pool.submit(one) for one in what]
            threading.Event().wait(draw.random() * 0.8)
            self._note("kill containerd")
            self._node.containerd.kill()
            for one in going:
                one.result()
        for _ in range(draw.randrange(3)):
            draw.choice([self._kill_a_shim, self._kill_a_pod, self._lose])()
        self._node.containerd.start()
        for _ in range(draw.randrange(3)):
            draw.choice([self._kill_a_shim, self._kill_an_init, self._remove])()
        self._collect()
        self.compare()
        if clean:
            self.clean()

    def compare(self) -> None:
        """See that what `scan` tells is what the script finds, both ways."""
        differences: list[str] = []
        found: set[str] = set()

        def agree() -> bool:
            before, told, after = self._script(), self._scan(), self._script()
            found.clear()
            found.update(before & after)
            differences[:] = [f"not in scan: {one}" for one in sorted(found - told)]
            differences.extend(f"only in scan: {one}" for one in sorted(told - before - after))
            return not differences

        self._until(agree, "scan names what is left", differences)
        self.left.update(one.partition(" ")[0] for one in found)

    def clean(self) -> None:
        """Remove what is left: nothing is any more, and nobody who lives has noticed.

        But shims that serve nobody: they live, and are ended only where that is configured.
        """
        living = self._living()
        kept = Snapshot.take(self._node, living)
        left: list[str] = []

        def emptied() -> bool:
            product.clean(self._node, "--debris", "--config", self._config)
            assert kept.changes(Snapshot.take(self._node, living)) == [], "\n".join(self.done)
            left[:] = sorted(one for one in self._script() if not one.startswith("shim "))
            return not left

        self._until(emptied, "nothing is left", left)
        for task in living:
            assert task.init.alive, self.done
            if task.id in task.shim.cmdline:
                continue  # a sandbox, in which nobody executes anything
            assert cri.execute(self._node, task.id, "/bin/busybox", "echo", "here") == "here\n"

    # ------------------------------------------------------------------------ what happens

    def _happenings(self) -> list[Callable[[], None]]:
        return [self._kill_a_shim, self._kill_an_init, self._kill_a_pod, self._remove, self._lose]

    def _pod(self) -> list[Task]:
        name = f"p{self._made}"
        self._made += 1
        try:
            made = cri.run(self._node, name, members=self._random.randrange(1, 3), parent="")
        except UNLUCKY as error:
            self._note("no pod", name, repr(error)[:60])
            return []
        self._note("pod", name, made[0].id)
        return made

    def _kill_a_shim(self) -> None:
        self._kill("shim", lambda tasks: {tasks[0].shim})

    def _kill_an_init(self) -> None:
        self._kill("init", lambda tasks: {self._random.choice(tasks).init})

    def _kill_a_pod(self) -> None:
        self._kill("pod", lambda tasks: {one for task in tasks for one in (task.shim, task.init)})

    def _kill(self, what: str, chosen: Callable[[list[Task]], set[Process]]) -> None:
        pods = self._pods()
        if pods:
            shim = self._random.choice(sorted(pods))
            self._note("kill", what, *(task.id[:12] for task in pods[shim]))
            kill_all(chosen(pods[shim]))

    def _lose(self) -> None:
        """Take a file from whoever's bundle is there, and kill it: it may be left for that."""
        pods = self._pods()
        if pods:
            tasks = pods[self._random.choice(sorted(pods))]
            file = self._random.choice(LOSABLE)
            self._note("lose", file, *(task.id[:12] for task in tasks))
            kill_all(one for task in tasks for one in (task.shim, task.init))
            for task in tasks:
                if self._node.bundle(task.id, cri.NAMESPACE).exists():
                    self._node.lose(task, file)

    def _remove(self) -> None:
        """Stop and remove a pod that lives."""
        pods = self._pods()
        if pods:
            (first, *_) = pods[self._random.choice(sorted(pods))]
            self._forget(first.id)

    def _forget(self, sandbox: str) -> None:
        try:
            cri.remove(self._node, sandbox)
        except UNLUCKY as error:
            self._note("not removed", sandbox[:12], repr(error)[:60])
        else:
            self._note("removed", sandbox[:12])

    def _collect(self) -> None:
        """Remove dead pods and those that are too many, as a kubelet does."""
        pods: dict[str, bool] = {}

        def told() -> bool:
            try:
                pods.update(cri.sandboxes(self._node))
            except UNLUCKY:
                return False  # it serves before it serves Kubernetes
            return True

        until(told, "containerd serves Kubernetes")
        pods.pop(self._keeper[0].id)
        ready = [name for name, is_ready in pods.items() if is_ready]
        for sandbox in [name for name in pods if name not in ready] + ready[MOST:]:
            if self._random.random() < 0.7:
                self._forget(sandbox)

    # ------------------------------------------------------------------------ small things

    def _living(self) -> list[Task]:
        """List all who have a living init and a living shim."""
        found = []
        for bundle in self._node.bundle("x", cri.NAMESPACE).parent.glob("[!.]*"):
            try:
                task = self._node.task(bundle.name, cri.NAMESPACE)
            except (OSError, ValueError):
                continue
            if task.shim.cmdline[1:3] == ["-namespace", cri.NAMESPACE]:
                found.append(task)
        return found

    def _pods(self) -> dict[Process, list[Task]]:
        """Group the living by their shims, sandboxes first; the keeper is not among them."""
        pods: dict[Process, list[Task]] = {}
        for task in self._living():
            pods.setdefault(task.shim, []).append(task)
        kept = {task.shim for task in self._keeper}
        return {
            shim: sorted(tasks, key=lambda one: one.id not in shim.cmdline)
            for shim, tasks in pods.items()
            if shim not in kept
        }

    def _script(self) -> set[str]:
        """Ask the script."""
        words = ("sh", SCRIPT, self._node.state, self._node.root)
        said = self._node.apart.run(*words, env=self._node.containerd.environment).stdout
        return {line for line in said.splitlines() if not line.startswith("listed ")}

    def _scan(self) -> set[str]:
        """Ask the program the same."""
        told = product.scan(self._node, "--config", self._config)
        dead = [row for row in told["bundles"] if row["verdict"] in {"leftover", "unknown"}]
        bundles = {f"bundle {self._node.inside(row['id'], row['namespace'])}" for row in dead}
        return bundles | {f"{one['kind']} {one['path']}" for one in told["debris"]}

    def _until(self, condition: Callable[[], bool], what: str, why: list[str]) -> None:
        try:
            until(condition, what, PATIENCE)
        except AssertionError as error:
            scan = product.words(self._node, "scan", "--config", self._config, "--no-trunc")
            error.add_note("\n".join([*self.done, *why, product.run(self._node, *scan).out]))
            raise

    def _note(self, *words: str) -> None:
        self.done.append(" ".join(words))
