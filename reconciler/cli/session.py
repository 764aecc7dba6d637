"""Sessions: runs the real stages for one command, and shows what goes on.

Thin on purpose: what the commands do is in :mod:`reconciler.cli.passes` and
:mod:`reconciler.cli.watching`, against the ports; the stages come from :mod:`reconciler.assembly`.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, TypeVar

import anyio
import msgspec
from msgspec.structs import replace

from reconciler.assembly import opened
from reconciler.cli.checks import check_guards
from reconciler.cli.display import Shown, foreground
from reconciler.cli.garbage import collect_from_now_on, nothing_collected
from reconciler.cli.output import Heading, Output
from reconciler.cli.passes import Found, clean_once, look_once, observing
from reconciler.cli.watching import Ended, Plan, Story
from reconciler.cli.watching import watch as watch_stages
from reconciler.decide.verdicts import INIT_GONE
from reconciler.model.evidence import Answer, PartialLook, ShimState
from reconciler.model.ids import BundleKey, escape
from reconciler.model.observations import Listed, Stamp
from reconciler.model.policy import Policies
from reconciler.ports import Clock, Listener, Recorder, Stages
from reconciler.probe.tree import FilteredInspector
from reconciler.setup import Setup, acts
from reconciler.supervision import Fault, Supervisor
from reconciler.worker.client import ForkServerClient
from reconciler.worker.messages import Ping

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from reconciler.journal.recorder import FileRecorder, Options

T = TypeVar("T")

# ---------------------------------------------------------------------- one-shot commands


class Journalled(msgspec.Struct, frozen=True):
    """Where a look is written as a journal, and whether its names are replaced."""

    stream: IO[bytes]
    redact: bool


def look(
    setup: Setup,
    output: Output,
    server: ForkServerClient | None = None,
    journal: Journalled | None = None,
) -> Found:
    """Look at everything once."""

    async def work() -> Found:
        with _supervised(output) as watch, _progress(output) as shown:
            async with opened(setup, server=server) as session:
                with _snapshot(journal, session.stages.clock, setup.policies) as recorders:
                    stages = replace(_shown(session.stages, shown, watch), recorders=recorders)
                    return await look_once(stages, setup.policies)

    with nothing_collected():  # all that is found is kept to the end
        return run_alone(work)


def look_at(
    setup: Setup, choose: Callable[[Listed], BundleKey], server: ForkServerClient | None = None
) -> tuple[BundleKey, Found]:
    """Look at the one bundle that is chosen from a listing, and at its pod's if it needs it."""

    async def work() -> tuple[BundleKey, Found]:
        async with opened(setup, server=server) as session:
            inspector = session.stages.inspector
            key = choose(inspector.list())
            seen = inspector.look(key)
            look = seen.look if isinstance(seen, PartialLook) else seen
            sandbox = "" if look is None else escape(look.labels.sandbox.encode())
            group = BundleKey(key.namespace, sandbox)
            names = {key, group, group.sandbox}
            # Whether a shim serves nobody hangs on all that it may serve.
            is_shared = look is not None and look.shim.state is ShimState.ALIVE
            is_of_all = look is not None and is_shared and look.init.state in INIT_GONE
            # A sandbox goes after all that may be a member of its pod.
            is_of_all = is_of_all or bool(key.tree)

            def wanted(one: BundleKey) -> bool:
                return one in names or (is_of_all and one.namespace == key.namespace)

            stages = replace(session.stages, inspector=FilteredInspector(inspector, wanted))
            return key, await look_once(stages, setup.policies)

    return run_alone(work)


def ping_one(setup: Setup, key: BundleKey) -> Ping:
    """Ask the shim of one bundle whether it answers."""

    async def work() -> Ping:
        async with opened(setup) as session:
            answer = await session.pool.ping((key,))
            return Ping(key, Answer.NONE, detail=answer) if isinstance(answer, str) else answer[0]

    return run_alone(work)


def clean(setup: Setup, output: Output, server: ForkServerClient | None = None) -> Found:
    """Clean what is due, once."""

    async def work() -> Found:
        with _supervised(output) as watch, _progress(output) as shown:
            async with opened(setup, acting=True, server=server) as session:
                stages = _shown(session.stages, shown, watch)
                return await clean_once(stages, setup.policies, session.pool.stop)

    collect_from_now_on()
    return run_alone(work)


# ---------------------------------------------------------------------- in the foreground


def follow(
    setup: Setup,
    output: Output,
    show: Callable[[Stages], Awaitable[Ended]],
    server: ForkServerClient | None = None,
) -> Ended:
    """Watch without acting, for whoever shows it on standard output."""

    async def work() -> Ended:
        with _supervised(output) as watch:
            async with opened(setup, watching=True, server=server) as session:
                return await show(_shown(session.stages, Shown(), watch))

    collect_from_now_on()
    return run_alone(work)


class Foreground(msgspec.Struct, frozen=True):
    """How to show a run, and what goes on beside it.

    Attributes:
        title: The view's first words.
        once: End when waiting would change nothing more.
        verbose: How much more to log.
        story: What goes on beside the loop; its end is the end.
        listeners: Who else listens.
        record: Write a journal of it.
    """

    title: str = "containerd-reconciler"
    once: bool = False
    verbose: int = 0
    story: Story | None = None
    listeners: Sequence[Listener] = ()
    record: "Options | None" = None


def watch(
    setup: Setup, output: Output, how: Foreground, server: ForkServerClient | None = None
) -> int:
    """Watch in the foreground until asked to end; returns the exit code."""
    heading = Heading(
        how.title,
        escape(setup.layout.state),
        setup.policies.default.enforce,
        *(["ends when waiting would change nothing more"] if how.once else []),
    )

    async def work() -> Ended:
        with _supervised(output) as watch:
            return await shown_work(watch)

    async def shown_work(watch: Supervisor) -> Ended:
        async with (
            opened(
                setup, acting=acts(setup.policies), watching=not how.once, server=server
            ) as session,
            _recording(how.record, session.stages.clock, setup.policies, watch) as recorders,
        ):
            stages, pool = replace(session.stages, recorders=recorders), session.pool
            watcher = stages.watcher
            plan = Plan(
                setup.policies,
                relist=None if how.once else setup.relist,
                once=how.once,
                story=how.story,
                stop_workers=pool.stop,
            )

            def backend() -> str:
                if watcher is None:
                    return "nothing"
                return f"{watcher.backend}: {watcher.reason}" if watcher.reason else watcher.backend

            with foreground(
                output,
                heading,
                stages.clock,
                backend,
                verbose=how.verbose,
                wanted=setup.log,
                files=setup.files,
                hints=setup.hints,
                watcher=watcher,
            ) as shown:
                watch.report = shown.report or watch.report
                plan = replace(plan, engine_made=shown.engine_made)
                ended = await watch_stages(_shown(stages, shown, watch), plan, how.listeners)
        for recorder in recorders:
            if recorder.lost:
                output.complain(f"{recorder.lost} records are missing: {recorder.trouble}")
        return ended

    collect_from_now_on()
    ended = run_alone(work)
    check_guards(ended.refused)
    return ended.code


def run_alone(work: Callable[[], Awaitable[T]]) -> T:
    """Run it in a loop of its own and give what it returns.

    Not as the result of the loop's own task: putting the signal handlers back, Python describes
    that task with its whole result in words, only to throw them away: 60 us for each bundle.
    """
    kept: list[T] = []

    async def keep() -> None:
        kept.append(await work())

    anyio.run(keep)
    return kept[0]


@contextmanager
def _supervised(output: Output) -> Iterator[Supervisor]:
    """Let parts fail; at the end it is said which have, where nobody else said so."""
    faults: list[Fault] = []
    try:
        yield Supervisor(faults.append)
    finally:
        for fault in faults:
            where = f"{fault.where} ({fault.frames[-1]})" if fault.frames else fault.where
            output.complain(f"internal error in {where}: {fault.what}")


def _shown(stages: Stages, shown: Shown, watch: Supervisor) -> Stages:
    return replace(
        stages,
        supervisor=watch,
        listeners=(*stages.listeners, *shown.listeners),
        sources=(*stages.sources, *shown.sources),
    )


def _recording(
    options: "Options | None", clock: Clock, policies: Policies, watch: Supervisor
) -> "AbstractAsyncContextManager[tuple[FileRecorder, ...]]":
    if options is None:
        return nullcontext(())
    from reconciler.journal.recorder import recording

    return recording(options, clock, policies, watch)


@contextmanager
def _snapshot(
    journal: Journalled | None, clock: Clock, policies: Policies
) -> Iterator[tuple[Recorder, ...]]:
    if journal is None:
        yield ()
        return
    from reconciler.journal.listener import Snapshot

    stamp = Stamp(clock.monotonic(), clock.wall())
    with Snapshot(journal.stream, stamp, observing(policies), redact=journal.redact) as recorder:
        yield (recorder,)


@contextmanager
def _progress(output: Output) -> Iterator[Shown]:
    if not output.shows_progress:
        yield Shown()
        return
    from reconciler.cli.live import ProgressLine

    with ProgressLine(output.console(to_messages=True)) as line:
        yield Shown((line,), (line,))
