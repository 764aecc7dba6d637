"""Rounds: the same ids are made, crash, are cleaned and made again, beside those who live on.

What crashes, how, and what the dead lose besides is drawn from a seed. After each round the node
must be as it was before the first one.
"""

import random
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.e2e import product
from tests.e2e.apart import Word
from tests.e2e.node import Node
from tests.e2e.processes import kill_all, until
from tests.e2e.scene import BARE, DAMAGE, damage
from tests.e2e.snapshot import Snapshot, listing
from tests.e2e.task import Task
from tests.support.canary import Canary, plant

POD: Final = "again-pod"
ALONE: Final = ("again-0", "again-1")
MEMBER: Final = "again-member"
EVERY: Final = (POD, *ALONE, MEMBER)
"""The ids that come again in every round."""

BLOCKED: Final = 75
PATIENCE: Final = 60.0
"""Seconds to clean in: while shims of strangers come and go it may stay open whose a thing is."""


class Rounds:
    """Crashes and cleans the same ids, and checks that nobody else notices.

    Args:
        node: Where.
        seed: Of all that is drawn.
        config: A configuration by which nothing is too young to go.

    Attributes:
        done: What was done, for the message of a failure.
        blocked: How often data that somebody had mounted into a dead bundle kept it.
    """

    def __init__(self, node: Node, seed: int, config: Path) -> None:
        self.done = [f"seed {seed}"]
        self.blocked = 0
        self._node = node
        self._config = config
        self._random = random.Random(seed)  # noqa: S311 -- not for secrets
        self._behind = plant(node.root.parent / "behind")
        self._data = self._mounting(self._behind.root)
        self._living = self._settle()
        self._canaries = [self._behind, *self._planted_with_the_living()]
        self._before = listing(node)
        self._kept = Snapshot.take(node, self._living)

    def round(self) -> None:
        """Make them, let them crash, clean, and compare."""
        node = self._node
        tasks = self._make()
        crash = self._random.choice(self._crashes())
        self.done.append(crash.__name__.strip("_"))
        crash(tasks)
        if not node.containerd.running:
            node.containerd.start()
        self._clean()
        for id_ in EVERY:
            node.ctr("containers", "delete", id_)
        self.check()

    def check(self) -> None:
        """Nothing but the living is there, and nothing of theirs has changed."""
        lost = [path for canary in self._canaries for path in canary.lost()]
        assert lost == [], "\n".join(self.done)
        changes = self._kept.changes(Snapshot.take(self._node, self._living))
        assert changes == [], "\n".join([*self.done, *changes])
        for task in self._living:
            words = ("tasks", "exec", "--exec-id", f"x{len(self.done)}", task.id, "/bin/true")
            self._node.ctr(*words)
        self._kept = Snapshot.take(self._node, self._living)  # their shims have written meanwhile

    # ------------------------------------------------------------------------ who is there

    def _mounting(self, data: Path) -> list[Word]:
        return ["--mount", f"type=bind,src={data},dst=/data,options=rbind:rw"]

    def _settle(self) -> list[Task]:
        """Run those that live all the time, and one whose id has had everything there ever was."""
        node = self._node
        living = [node.run("web", *self._data), node.run("pod", pod="pod")]
        living.append(node.run("member", *self._data, pod="pod"))
        self._end(self._make())  # the directories of namespaces are there from now on
        return living

    def _end(self, tasks: Sequence[Task]) -> None:
        for task in reversed(tasks):
            self._node.ctr("tasks", "delete", "--force", task.id)
            self._node.ctr("containers", "delete", task.id)

    def _planted_with_the_living(self) -> list[Canary]:
        """Mount data into a living bundle, and put some beside all bundles."""
        node = self._node
        data = plant(node.root.parent / "extra")
        (node.bundle("web") / "extra").mkdir()
        node.apart.run("mount", "--bind", data.root, f"{node.inside('web')}/extra")
        return [data, plant(node.apart.path(node.state) / "precious")]

    def _make(self) -> list[Task]:
        """Make all of them; each must start at the first attempt."""
        alone = [(name, "") for name in ALONE]
        with ThreadPoolExecutor(len(EVERY)) as pool:
            first = list(pool.map(self._run, [(POD, POD), *alone]))
        return [*first, self._run((MEMBER, POD))]

    def _run(self, named: tuple[str, str]) -> Task:
        name, pod = named
        return self._node.run(name, *self._data, pod=pod)

    # -------------------------------------------------------------------------- what happens

    def _crashes(self) -> list[Callable[[list[Task]], None]]:
        return [
            self._shims,
            self._inits_then_shims,
            self._containerd_with_all,
            self._shims_while_containerd_is_down,
            self._out_of_containerds_sight,
            self._with_data_in_the_bundle,
        ]

    def _spoil(self, tasks: Sequence[Task]) -> None:
        """Take files from some; most that a version of containerd leaves, it leaves for that."""
        for task in tasks:
            row = self._random.choice(["whole", "no-runtime", "half-made", BARE, *DAMAGE])
            self.done.append(f"  {task.id} {row}")
            damage(self._node, task, row)

    def _shims(self, tasks: list[Task]) -> None:
        """Kill the shims alone: containerd sees it and ends the rest, unless it cannot."""
        for task in tasks:
            self._node.lose(task, *self._random.choice([(), ("runtime",), ("options.json",)]))
        kill_all({task.shim for task in tasks})
        # What containerd cannot end is a workload that nobody manages, until it ends.
        kill_all({task.init for task in tasks})

    def _inits_then_shims(self, tasks: list[Task]) -> None:
        kill_all({task.init for task in tasks})
        self._node.containerd.kill()
        kill_all({task.shim for task in tasks})
        self._spoil(tasks)

    def _containerd_with_all(self, tasks: list[Task]) -> None:
        self._node.crash(*tasks)
        self._spoil(tasks)

    def _shims_while_containerd_is_down(self, tasks: list[Task]) -> None:
        """containerd finds living inits without shims when it starts, and ends them if it can."""
        self._node.containerd.kill()
        kill_all({task.shim for task in tasks})
        self._node.containerd.start()
        kill_all({task.init for task in tasks})

    def _out_of_containerds_sight(self, tasks: list[Task]) -> None:
        """Every version leaves what it has not seen."""
        self._node.crash(*tasks)
        self._spoil(tasks)
        self._node.restart(unseen=[task for task in tasks if self._node.bundle(task.id).exists()])

    def _with_data_in_the_bundle(self, tasks: list[Task]) -> None:
        """Somebody has mounted data into a dead bundle: it stays until that is taken off."""
        node, task = self._node, self._random.choice(tasks)
        self._out_of_containerds_sight(tasks)
        place = f"{node.inside(task.id)}/extra"
        node.bundle(task.id).joinpath("extra").mkdir()
        node.apart.run("mount", "--bind", self._behind.root, place)
        product.clean(node, "--debris", "--config", self._config, code=BLOCKED)
        self.check()
        node.apart.run("umount", place)
        self.blocked += 1

    def _clean(self) -> None:
        def emptied() -> bool:
            product.clean(self._node, "--debris", "--config", self._config)
            return listing(self._node) == self._before

        try:
            # A shim of somebody else's that ends just now leaves it open who owns what.
            until(emptied, "all is as before", PATIENCE)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            now = listing(self._node)
            error.add_note("\n".join(self.done))
            error.add_note("\n".join(f"left: {one}" for one in now if one not in self._before))
            error.add_note("\n".join(f"lost: {one}" for one in self._before if one not in now))
            words = product.words(self._node, "scan", "--config", self._config)
            error.add_note(product.run(self._node, *words).out)
            raise
