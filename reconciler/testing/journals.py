"""Journals for tests: say what happens to a node, get what the reconciler would have recorded.

    with JournalBuilder(path, policies) as node:
        node.start("default/web")
        node.wait("10m")
        node.crash("default/web")
        node.wait("1h")

Everything between the words is the real thing: the engine, the journal's format, and simulated
an inspector that sees only what a real one could (:mod:`reconciler.testing.simulator`).

A replay comes as a value: what was cleaned when, what came of each bundle, what differed.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from reconciler.journal import expect
from reconciler.journal.compare import ReplayDiff
from reconciler.journal.listener import Snapshot
from reconciler.journal.reader import Journal
from reconciler.journal.replay import Repeater, Turn
from reconciler.journal.what_if import WhatIf, enforcing
from reconciler.model.decisions import Clean, Judged, Vanished, Verdict
from reconciler.model.evidence import ENTRY_NAMES, Entries
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Resync, ResyncKind
from reconciler.model.policy import Policies
from reconciler.present.comparison import Differing, describe
from reconciler.present.decisions import DecisionSummary, is_conclusion, summary
from reconciler.settings.units import parse_duration
from reconciler.testing.node import Node
from reconciler.testing.parts import Daemon
from reconciler.testing.simulator import Manners, Simulation

_DAEMON = {"up": Daemon.UP, "down": Daemon.DOWN, "hung": Daemon.HUNG}


def key_of(name: str) -> BundleKey:
    """Turn ``NAMESPACE/ID`` into a key."""
    namespace, _, bundle = name.partition("/")
    return BundleKey(namespace, bundle)


class JournalBuilder:
    """Writes the journal of a simulated run. Bundles go by ``NAMESPACE/ID``, times as ``12m``.

    ``simulation`` is the run itself, for whatever has no word here.
    """

    simulation: Simulation

    def __init__(
        self, path: Path, policies: Policies | None = None, manners: Manners | None = None
    ) -> None:
        self.path = path
        self._policies = policies or Policies()
        self._manners = manners or Manners()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Begin the run: an empty node with containerd up."""
        node = Node()
        file = self._open.enter_context(self.path.open("wb"))
        recorder = self._open.enter_context(Snapshot(file, node.stamp, self._policies))
        self.simulation = Simulation(self._policies, node, self._manners, recorders=[recorder])
        return self

    def __exit__(self, *_: object) -> None:
        """End the run."""
        self._open.close()

    # ------------------------------------------------------------------ what happens in order

    def create(self, name: str, *, pod: str | None = None, runtime: str = "runc") -> None:
        """Begin a creation; :meth:`proceed` takes it on."""
        self._node.create(key_of(name), pod, runtime=runtime)
        self._settle()

    def proceed(self, name: str) -> None:
        """Take a creation one step on: first the shim, then init."""
        self._do(self._node.proceed, name)

    def start(self, name: str, *, pod: str | None = None, runtime: str = "runc") -> None:
        """Create a task and let it run; ``pod`` is the id of the sandbox whose shim serves it."""
        self.create(name, pod=pod, runtime=runtime)
        self.proceed(name)
        self.proceed(name)

    def stop(self, name: str) -> None:
        """Let a task end in order; its shim and bundle stay until :meth:`delete`."""
        self._do(self._node.stop, name)

    def delete(self, name: str) -> None:
        """Let containerd delete a stopped task."""
        self._do(self._node.delete, name)

    # ------------------------------------------------------------------ what goes wrong

    def crash(self, *names: str) -> None:
        """Kill shim and container of each, at once."""
        for name in names:
            self._node.crash(key_of(name))
        self._settle()

    def kill_shim(self, name: str) -> None:
        """Kill the shim; the container lives on."""
        self._do(self._node.kill_shim, name)

    def kill_init(self, name: str) -> None:
        """Kill the container; the shim lives on."""
        self._do(self._node.kill_init, name)

    def lose_files(self, name: str, *files: str) -> None:
        """Remove files of a bundle by name (``init.pid``, ``runtime``, ``options.json``, ...)."""
        entries = Entries(0)
        for file in files:
            entries |= ENTRY_NAMES[file]
        self._node.lose_file(key_of(name), entries)
        self._settle()

    def lose_runc_state(self, name: str) -> None:
        """Remove runc's state directory of a bundle."""
        self._do(self._node.lose_runc_state, name)

    def lose_records(self, name: str) -> None:
        """Let containerd forget all that it knows of a name; what runs of it goes on."""
        self._do(self._node.lose_records, name)

    def reuse_pid(self, name: str) -> None:
        """Give the pid a dead bundle names to a stranger."""
        self._do(self._node.reuse_pid, name)

    def mount(self, name: str, path: str = "extra") -> None:
        """Mount something of somebody else's inside a bundle."""
        self._node.mount(key_of(name), path)
        self._settle()

    def unmount(self, name: str) -> None:
        """Take it away again."""
        self._do(self._node.unmount, name)

    def containerd(self, state: str, *, sweeps: bool = False) -> None:
        """Let containerd be ``up``, ``down`` or ``hung``; ``sweeps`` at its start or not."""
        self._node.set_daemon(_DAEMON[state], sweeps=sweeps)
        self._settle()

    # ------------------------------------------------------------------ what we miss

    def lose_events(self) -> None:
        """Receive no event from now on: only relists show what happens."""
        self._node.events_arrive = False

    def receive_again(self, *, overflow: bool = False) -> None:
        """Receive events again; ``overflow`` says that something was missed, as inotify does."""
        self._node.events_arrive = True
        if overflow:
            self.simulation.observe(Resync(ResyncKind.OVERFLOW))
        self._settle()

    def jump_clock(self, duration: str, *, back: bool = False) -> None:
        """Set the wall clock on, or back."""
        seconds = parse_duration(duration)
        self._node.jump(-seconds if back else seconds)

    def wait(self, duration: str) -> None:
        """Let time pass."""
        self.simulation.wait(parse_duration(duration))

    @property
    def _node(self) -> Node:
        return self.simulation.node

    def _do(self, happens: Callable[[BundleKey], None], name: str) -> None:
        happens(key_of(name))
        self._settle()

    def _settle(self) -> None:
        self.simulation.settle()


@dataclass(slots=True)
class Replayed:
    """What came of a replay. Times are seconds since the journal began.

    Attributes:
        observations: How many were played.
        summaries: Every conclusion, in order.
        differences: Where a plain replay decided otherwise.
        warnings: What the reader complained about.
        unmet: Expectations that were not met, one line each.
        cleaned: For each bundle (``NAMESPACE/ID``), when it was given to the cleaner.
        verdicts: For each bundle, the last verdict; absent once it is gone.
    """

    observations: int = 0
    summaries: list[DecisionSummary] = field(default_factory=list)
    differences: list[Differing] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    cleaned: dict[str, list[float]] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def take(self, at: float, turn: Turn) -> None:
        """Take in a turn."""
        self.observations += turn.observation is not None
        for decision in turn.replayed:
            if is_conclusion(decision):
                self.summaries.append(summary(at, decision))
            match decision:
                case Clean():
                    self.cleaned.setdefault(str(decision.key), []).append(at)
                case Judged():
                    self.verdicts[str(decision.key)] = decision.judgement.verdict
                case Vanished():
                    self.verdicts.pop(str(decision.key), None)
                case _:
                    pass


def replay(
    path: Path,
    policies: Policies | None = None,
    expectations: Iterable[expect.Expectation] = (),
    until: float | None = None,
) -> Replayed:
    """Replay a journal.

    Args:
        path: The journal.
        policies: Let these decide; None for the recorded ones, which are compared. If they only
            observe, they are asked what they would remove.
        expectations: What must come true; see :mod:`reconciler.journal.expect`.
        until: Seconds after the begin; with ``policies`` also beyond the end.

    Raises:
        BadJournalError: It is damaged.
    """
    result = Replayed()
    journal = Journal(path, result.warnings.append)
    begin = journal.header.mono
    end = None if until is None else begin + until
    watch = expect.Watch(tuple(expectations))
    likeness = ReplayDiff(None, in_order=not journal.header.redacted)
    player = Repeater() if policies is None else WhatIf(enforcing(policies))
    items = journal.items()
    turns = player.play(items) if isinstance(player, Repeater) else player.play(items, end)
    for turn in turns:
        if end is not None and turn.stamp.mono > end:
            break
        at = turn.stamp.mono - begin
        result.take(at, turn)
        watch.follow(at, turn)
        found = likeness.take(turn)
        if found is not None:
            result.differences.append(describe(found.recorded, found.replayed, at, begin, None))
    result.unmet = list(watch.failures())
    return result
