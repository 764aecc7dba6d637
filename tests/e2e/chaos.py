"""Chaos: a node on which tasks come, stop, die and go at random while the reconciler enforces.

The test's own books say at every moment what must be untouched and what must be gone in the end.
Every step is drawn from a seed, so that a run which found something can be run again.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.e2e.node import Node
from tests.e2e.processes import kill_all, until
from tests.e2e.snapshot import Snapshot
from tests.e2e.task import Task

MOST: Final = 12
"""Living tasks at a time."""

LOSABLE: Final = ("runtime", "init.pid", "options.json", "config.json", "address", "log.json")

SPOILT: Final = 0.5
"""How many crashes containerd 1.x cannot clean up after."""

END_SECONDS: Final = 60.0


@dataclass
class Books:
    """What the test knows.

    Attributes:
        alive: Tasks with a living shim, each with all there is of it; nobody may touch them.
        orphans: Tasks whose shim is dead and whose init lives; containerd may end them, not we.
        dead: Names of those that must be gone in the end.
        taken: Names of stopped tasks that containerd itself took away as it started.
        pods: Which pod a task belongs to.
    """

    alive: dict[str, tuple[Task, Snapshot]] = field(default_factory=dict)
    orphans: dict[str, tuple[Task, Snapshot]] = field(default_factory=dict)
    dead: dict[str, Task] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    pods: dict[str, str] = field(default_factory=dict)


class Chaos:
    """Does things to a node, and checks after each that nothing was harmed.

    Attributes:
        books: What should be.
        done: What was done, for the message of a failure.
    """

    def __init__(self, node: Node, seed: int) -> None:
        self.books = Books()
        self.done: list[str] = []
        self._node = node
        self._random = random.Random(seed)  # noqa: S311 -- not for secrets
        self._made = 0
        self._keeper = self._run()  # whoever lives says in which namespaces this node is

    def steps(self, number: int) -> None:
        """Do so many things."""
        for _ in range(number):
            what = self._random.choice(self._possible())
            what()
            self.check()

    def end(self) -> None:
        """Start containerd if it is down, and wait until all that is dead is gone."""
        if not self._node.containerd.running:
            self._start_containerd()
        self._wait_for_the_dead()
        self.check()

    def check(self) -> None:
        """Nobody who lives has lost a byte, a mount or a process."""
        for task, before in [*self.books.alive.values(), *self.books.orphans.values()]:
            changes = before.changes(Snapshot.take(self._node, [task]))
            assert changes == [], "\n".join([*self.done, *changes])

    # ------------------------------------------------------------------ what can be done

    def _possible(self) -> list[Callable[[], None]]:
        up = self._node.containerd.running
        found: list[Callable[[], None]] = [self._kill_containerd if up else self._start_containerd]
        if up and len(self.books.alive) < MOST:
            found += 3 * [self._run_one] + [self._run_pod]
        if self._others():
            found += [self._crash, self._crash]
            found += [self._stop, self._delete] if up else [self._orphan]
        if self._left() and not up:
            found += [self._lose, self._wait_until_gone]
        return found

    def _run_one(self) -> None:
        self._run()

    def _run_pod(self) -> None:
        pod = self._run(pod=f"c{self._made}")
        for _ in range(2):
            self._run(pod=pod)

    def _run(self, pod: str = "") -> str:
        name = f"c{self._made}"
        self._made += 1
        self._note("run", name, pod)
        self.books.pods[name] = pod or name
        self._count_alive(self._node.run(name, pod=pod))
        return name

    def _stop(self) -> None:
        """Kill an init; its shim, and the bundle, are containerd's business for ever."""
        name = self._pick()
        self._note("stop", name)
        task, _ = self.books.alive[name]
        if task.init.alive:
            self._node.stop(task)
        self._count_alive(task)

    def _delete(self) -> None:
        name = self._pick()
        self._note("delete", name)
        task, _ = self.books.alive.pop(name)
        # A sandbox's shim serves its members, too; containerd leaves it to the last of them.
        self._node.ctr("tasks", "delete", "--force", name)
        self._node.ctr("containers", "rm", name)
        assert not self._node.bundle(task.id).exists(), f"{name} was deleted in vain"

    def _crash(self) -> None:
        """Kill a shim and all whom it serves; without `runtime` containerd 1.x cannot clean up."""
        tasks = self._pick_all_of_a_shim()
        spoilt = self._random.random() < SPOILT
        self._note("crash", "without runtime" if spoilt else "", *(task.id for task in tasks))
        for task in tasks:
            del self.books.alive[task.id]
            self.books.dead[task.id] = task
            if spoilt:
                self._node.lose(task, "runtime")
        kill_all({one for task in tasks for one in (task.shim, task.init)})

    def _orphan(self) -> None:
        """Kill a shim alone, while containerd cannot see it."""
        tasks = self._pick_all_of_a_shim()
        self._note("orphan", *(task.id for task in tasks))
        kill_all({task.shim for task in tasks})
        for task in tasks:
            del self.books.alive[task.id]
            if task.init.alive:
                self.books.orphans[task.id] = task, Snapshot.take(self._node, [task])
            else:
                self.books.dead[task.id] = task

    def _lose(self) -> None:
        task = self._random.choice(self._left())
        file = self._random.choice(LOSABLE)
        self._note("lose", task.id, file)
        self._node.lose(task, file)

    def _wait_until_gone(self) -> None:
        """With containerd down nobody else removes anything."""
        self._note("wait")
        self._wait_for_the_dead()

    def _kill_containerd(self) -> None:
        self._note("kill containerd")
        self._node.containerd.kill()

    def _start_containerd(self) -> None:
        """It ends orphans by itself, and may write to the bundles of those that live."""
        self._note("start containerd")
        self._node.containerd.start()
        for name, (task, _) in self.books.orphans.items():
            self.books.dead[name] = task
        self.books.orphans.clear()
        for task, _ in list(self.books.alive.values()):
            was_alive = task.init.alive
            if not was_alive and not self._node.bundle(task.id).exists():
                # From 1.7 on it deletes stopped tasks then, and ends their shims.
                del self.books.alive[task.id]
                self.books.taken.add(task.id)
                continue
            assert task.shim.alive, self.done
            self._count_alive(task)
            assert task.init.alive is was_alive, self.done

    # ------------------------------------------------------------------ small things

    def _count_alive(self, task: Task) -> None:
        self.books.alive[task.id] = task, Snapshot.take(self._node, [task])

    def _others(self) -> list[str]:
        return [name for name in self.books.alive if name != getattr(self, "_keeper", name)]

    def _pick(self) -> str:
        return self._random.choice(self._others())

    def _pick_all_of_a_shim(self) -> list[Task]:
        pods = self.books.pods
        pod = pods[self._pick()]
        return [task for name, (task, _) in self.books.alive.items() if pods[name] == pod]

    def _left(self) -> list[Task]:
        dead = self.books.dead.values()
        return [task for task in dead if self._node.bundle(task.id).exists()]

    def _wait_for_the_dead(self) -> None:
        until(lambda: not self._left(), f"the dead are gone after {self.done}", END_SECONDS)

    def _note(self, *words: str) -> None:
        self.done.append(" ".join(word for word in words if word))
