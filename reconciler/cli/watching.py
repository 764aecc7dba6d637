"""`run` and `demo`: the loop in the foreground until it is asked to end, and how it ended.

Stages flow in, an exit code flows out. Written against the ports; what is shown is a listener.
"""

from collections.abc import Awaitable, Callable, Sequence

import anyio
import msgspec
from msgspec.structs import replace
from typing_extensions import override

from reconciler.cli.passes import Pass
from reconciler.cli.signals import StopWorkers, ending_in_order
from reconciler.decide.engine import Engine
from reconciler.errors import ExitCode
from reconciler.loop import Loop
from reconciler.model.decisions import Decision, Phase
from reconciler.model.observations import (
    GuardsChecked,
    Observation,
    Refusal,
    Stamp,
    is_transient,
)
from reconciler.model.policy import Policies
from reconciler.ports import Listener, Stages

Story = Callable[[Loop], Awaitable[None]]
"""Something that goes on beside the loop; the loop ends when it returns."""


class Plan(msgspec.Struct, frozen=True):
    """How to watch.

    Attributes:
        policies: What may be removed, and when.
        relist: Seconds between two listings of the whole tree; None for none.
        once: End when waiting would change nothing more.
        story: What goes on beside the loop.
        stop_workers: Lets the cleanups stop at an entry boundary before the loop ends.
        engine_made: Is given the engine before anything goes through it.
    """

    policies: Policies
    relist: float | None = None
    once: bool = False
    story: Story | None = None
    stop_workers: StopWorkers | None = None
    engine_made: Callable[[Engine], None] = lambda _: None


class Ended(msgspec.Struct, frozen=True):
    """How it ended.

    Attributes:
        signal: The signal that ended it, if one did.
        refused: Reasons of guards that did not let it enforce.
        stayed: Leftovers that are blocked at the end.
        unread: Whether the tree could not be read.
    """

    signal: int | None = None
    refused: tuple[Refusal, ...] = ()
    stayed: int = 0
    unread: bool = False

    @property
    def code(self) -> int:
        """The exit code: as a shell reports a signal, else as the table of codes says."""
        if self.signal is not None:
            return 128 + self.signal
        if is_transient(self.refused):
            return ExitCode.NO_WORKER
        if self.refused or self.unread:
            return ExitCode.REFUSED
        return ExitCode.BLOCKED if self.stayed else ExitCode.DONE


class _Gate(Listener):
    """Ends the loop if a guard refuses at the first check of a run that was to enforce."""

    def __init__(self, *, enforce: bool) -> None:
        self.enforce = enforce
        self.stop: Callable[[], None] = lambda: None
        self.refused: tuple[Refusal, ...] = ()
        self.checked = False

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        if isinstance(observation, GuardsChecked) and not self.checked:
            self.checked = True
            if self.enforce and observation.refused:
                self.refused = observation.refused
                self.stop()

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        pass


async def watch(stages: Stages, plan: Plan, listeners: Sequence[Listener]) -> Ended:
    """Run the loop until a signal, the end of the story, or once nothing is left to wait for."""
    seen, gate = Pass(), _Gate(enforce=plan.policies.default.enforce)
    engine = Engine(plan.policies, is_one_pass=plan.once)
    plan.engine_made(engine)
    # Without the pass a run of one pass would never end; one that goes on needs it for nothing.
    essential = (seen,) if plan.once else ()
    supervised = replace(
        stages, listeners=(*stages.listeners, *listeners, gate), essential=essential
    )
    loop = Loop(engine, supervised, relist=plan.relist)
    gate.stop = loop.stop

    def is_over(now: float) -> bool:
        is_done = engine.is_settled(now) if gate.enforce else engine.is_answered
        return plan.once and seen.complete and is_done

    async with (
        ending_in_order(loop, plan.stop_workers) as caught,
        anyio.create_task_group() as tasks,
    ):
        if plan.story is not None:
            tasks.start_soon(_run_story, plan.story, loop)
        await loop.run(is_over)
        tasks.cancel_scope.cancel()
    now = stages.clock.monotonic()
    return Ended(
        signal=caught[0] if caught else None,
        refused=gate.refused,
        stayed=sum(view.phase in (Phase.BLOCKED, Phase.HELD) for view in engine.views(now)),
        unread=plan.once and seen.listed is not None and not seen.listed.answered,
    )


async def _run_story(story: Story, loop: Loop) -> None:
    await story(loop)
    loop.stop()
