"""Sessions: puts the real stages together for one command, runs it, and takes all apart again.

Thin on purpose: what the commands do is in :mod:`reconciler.cli.work` and
:mod:`reconciler.cli.watching`, against the ports. Imported only by commands that do something, for
it draws in most of the program.
"""

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import anyio
from typing_extensions import override

from reconciler.act.channel import Manner
from reconciler.act.executor import Executor
from reconciler.act.lock import InstanceLock, directory
from reconciler.act.standing import Post
from reconciler.cli.display import Shown, foreground
from reconciler.cli.live import Heading
from reconciler.cli.narrow import NarrowEyes
from reconciler.cli.output import Output
from reconciler.cli.setup import Setup
from reconciler.cli.watching import Ended, Plan, Story
from reconciler.cli.watching import watch as watch_stages
from reconciler.cli.work import Found, clean_once, look_once
from reconciler.clock import SystemClock
from reconciler.containerd import witness
from reconciler.containerd.client import ContainerdClient
from reconciler.containerd.events import Events
from reconciler.decide.policy import Policies
from reconciler.errors import RefusedError
from reconciler.loop import Stages
from reconciler.model.evidence import Containerd, Sweep
from reconciler.model.ids import BundleKey, show
from reconciler.model.observations import Guard, Listed, Refusal
from reconciler.ports import Emit, Exits, Eyes, Guards, Listener, Source, Watcher, Witnesses
from reconciler.probe.mounts import MountTable, index
from reconciler.probe.tree import TreeEyes
from reconciler.watch.exits import ExitWatch
from reconciler.watch.mounts import MountWatch
from reconciler.watch.select import Watching


class NodeWitnesses(Witnesses):
    """The two witnesses that speak about the whole node."""

    def __init__(self, setup: Setup, executor: Executor) -> None:
        self._setup = setup
        self._executor = executor

    @override
    async def sweep(self) -> Sweep:
        """Pass over /proc in a worker, which can be killed should it hang."""
        return await self._executor.sweep()

    @override
    async def containerd(self) -> Containerd:
        """Ask containerd, unless the operator says that there is none."""
        return await witness.ask(self._setup.layout, waived=self._setup.waived)


class OwnTreeGuards(Guards):
    """Guards for a tree of our own making, where an ordinary user needs no privileges."""

    def __init__(self, guards: Guards) -> None:
        self._guards = guards

    @override
    async def check(self) -> tuple[Refusal, ...]:
        """Name every reason but missing privileges."""
        refused = await self._guards.check()
        return tuple(one for one in refused if one.guard is not Guard.PRIVILEGES)


class NoExits(Exits):
    """For one-shot commands: they end before it matters when a process ends."""

    @override
    async def run(self, emit: Emit) -> None:
        """Do nothing."""

    @override
    def expect(self, key: BundleKey, *, init: int | None, shim: int | None) -> None:
        """Do nothing."""

    @override
    def expect_holders(self, key: BundleKey, pids: Collection[int]) -> None:
        """Do nothing."""

    @override
    def expect_containerd(self, pid: int | None) -> None:
        """Do nothing."""

    @override
    def forget(self, key: BundleKey) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The stages of a session, and the executor among them."""

    stages: Stages
    executor: Executor


@asynccontextmanager
async def opened(
    setup: Setup, *, acting: bool = False, watching: bool = False
) -> AsyncIterator[Opened]:
    """Put the stages together; all processes and handles are gone when it closes.

    Args:
        setup: What the operator said.
        acting: Something may be removed: be the only one on this tree that may.
        watching: For a run that lasts: hear of changes, not only look once.
    """
    policies, layout = setup.policies, setup.layout
    clock = SystemClock()
    client = ContainerdClient(layout.address)
    manner = Manner(layout, settle=policies.settle, lazy_unmount=setup.lazy_unmount)
    executor = Executor(manner, parallel=policies.parallel, delete=client.delete)
    lock = InstanceLock(setup.locks or directory(os.environ)) if acting else None
    guards: Guards = Post(layout, executor.sweep, lock, allow_disk=setup.allow_disk)
    with ExitStack() as cleanup:
        eyes = TreeEyes(layout, annotation_keys=policies.annotation_keys, clock=clock)
        cleanup.callback(eyes.close)
        if lock is not None:
            cleanup.callback(lock.release)
        exits, watcher, sources = _watchers(setup, cleanup, client) if watching else _NONE
        async with executor:
            stages = Stages(
                clock=clock,
                eyes=_narrowed(eyes, setup.namespaces),
                witnesses=NodeWitnesses(setup, executor),
                hands=executor,
                guards=OwnTreeGuards(guards) if setup.own_tree else guards,
                exits=exits,
                watcher=watcher,
                sources=sources,
            )
            yield Opened(stages, executor)


_Watchers = tuple[Exits, Watcher | None, tuple[Source, ...]]
_NONE: Final[_Watchers] = (NoExits(), None, ())


def _watchers(setup: Setup, cleanup: ExitStack, client: ContainerdClient) -> _Watchers:
    layout = setup.layout
    exits, watcher = ExitWatch(), Watching(layout, setup.backend)
    table = MountTable()
    for closes in (exits, watcher, table):
        cleanup.callback(closes.close)
    mounts = MountWatch(lambda: index(table.read(), os.path.realpath(layout.tasks)))
    events = () if setup.waived else (Events(client, SystemClock()),)
    return exits, watcher, (mounts, *events)


def _acts(policies: Policies) -> bool:
    return policies.default.enforce or any(rule.policy.enforce for rule in policies.rules)


def _narrowed(eyes: Eyes, namespaces: frozenset[bytes]) -> Eyes:
    if not namespaces:
        return eyes
    return NarrowEyes(eyes, lambda key: key.namespace in namespaces)


# ---------------------------------------------------------------------- one-shot commands


def look(setup: Setup, output: Output) -> Found:
    """Look at everything once."""

    async def work() -> Found:
        with _progress(output) as shown:
            async with opened(setup) as session:
                return await look_once(_shown(session.stages, shown), setup.policies)

    return anyio.run(work)


def look_at(setup: Setup, choose: Callable[[Listed], BundleKey]) -> tuple[BundleKey, Found]:
    """Look at the one bundle that is chosen from a listing."""

    async def work() -> tuple[BundleKey, Found]:
        async with opened(setup) as session:
            eyes = session.stages.eyes
            key = choose(eyes.list())
            stages = replace(session.stages, eyes=NarrowEyes(eyes, lambda one: one == key))
            return key, await look_once(stages, setup.policies)

    return anyio.run(work)


def clean(setup: Setup, output: Output) -> Found:
    """Clean what is due, once."""

    async def work() -> Found:
        with _progress(output) as shown:
            async with opened(setup, acting=True) as session:
                return await clean_once(_shown(session.stages, shown), setup.policies)

    return anyio.run(work)


# ---------------------------------------------------------------------- in the foreground


@dataclass(frozen=True, slots=True)
class Foreground:
    """How to show a run, and what goes on beside it.

    Attributes:
        title: The view's first words.
        once: End when waiting would change nothing more.
        verbose: How much more to log.
        story: What goes on beside the loop; its end is the end.
        listeners: Who else hears.
    """

    title: str = "containerd-reconciler"
    once: bool = False
    verbose: int = 0
    story: Story | None = None
    listeners: Sequence[Listener] = ()


def watch(setup: Setup, output: Output, how: Foreground) -> int:
    """Watch in the foreground until told to end; returns the exit code."""
    heading = Heading(how.title, show(setup.layout.state), setup.policies.default.enforce)

    async def work() -> Ended:
        async with opened(setup, acting=_acts(setup.policies), watching=not how.once) as session:
            stages, executor = session.stages, session.executor
            watcher = stages.watcher
            plan = Plan(
                setup.policies,
                relist=None if how.once else setup.relist,
                once=how.once,
                story=how.story,
                stop_hands=executor.stop,
            )

            def backend() -> str:
                return "nothing" if watcher is None else watcher.backend

            with foreground(output, heading, stages.clock, backend, verbose=how.verbose) as shown:
                return await watch_stages(_shown(stages, shown), plan, how.listeners)

    ended = anyio.run(work)
    if ended.refused:
        raise RefusedError("; ".join(refusal.reason for refusal in ended.refused))
    return ended.code


def _shown(stages: Stages, shown: Shown) -> Stages:
    return replace(
        stages,
        listeners=(*stages.listeners, *shown.listeners),
        sources=(*stages.sources, *shown.sources),
    )


@contextmanager
def _progress(output: Output) -> Iterator[Shown]:
    if not output.shows_progress:
        yield Shown()
        return
    from reconciler.cli.progress import ProgressLine

    with ProgressLine(output.console(to_messages=True)) as line:
        yield Shown((line,), (line,))
