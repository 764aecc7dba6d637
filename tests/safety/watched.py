"""The whole program in this process, until something holds; the lag of its loop all the while.

The lag is that of a task that ticks beside it, without the time that others had the processor.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from msgspec.structs import replace
from typing_extensions import override

from reconciler.assembly import Opened, opened
from reconciler.cli.watching import Ended, Plan, watch
from reconciler.loop import Loop
from reconciler.model.decisions import Decision
from reconciler.model.observations import Observation, Stamp
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policies, Policy
from reconciler.ports import Cleaner, Listener
from reconciler.setup import Setup
from tests.safety.ground import Ground
from tests.support.bundles import Bundle
from tests.support.lag import waited_for_a_processor

LAG = 0.25
TICK = 0.01
PATIENCE = 30.0
NOW = Policy(enforce=True, grace=0.2, threshold=0.0, max_age=None, max_size=None)


@dataclass
class Watched(Listener):
    """A run in this process: what came of each bundle, and by how much the loop was ever late."""

    done: dict[str, list[Outcome]] = field(default_factory=dict)
    lag: float = 0.0
    ended: Ended | None = None

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        if isinstance(observation, Outcome):
            self.done.setdefault(observation.key.id, []).append(observation)

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        pass

    def cleaned(self, *bundles: Bundle) -> bool:
        """Whether all of these are gone."""
        return all(
            any(one.result is Result.CLEANED for one in self.done.get(bundle.path.name, ()))
            for bundle in bundles
        )


def run(
    on: Ground,
    until: Callable[[Watched], bool],
    *,
    before: Callable[[Opened], None] = lambda _: None,
    watched: Watched | None = None,
    cleaner: Callable[[Cleaner], Cleaner] = lambda ours: ours,
) -> Watched:
    """Run the program until something holds, and measure its lag all the while.

    Args:
        on: The node.
        until: What it is run for.
        before: Done before it begins.
        watched: Who listens.
        hands: May put other hands in the place of the program's.
    """
    watched = watched or Watched()

    async def story(_: Loop) -> None:
        deadline = anyio.current_time() + PATIENCE
        while not until(watched):
            asked, waited = anyio.current_time(), waited_for_a_processor()
            await anyio.sleep(TICK)
            late = anyio.current_time() - asked - TICK
            watched.lag = max(watched.lag, late - (waited_for_a_processor() - waited))
            assert asked < deadline, watched.done

    async def main() -> None:
        setup = Setup(on.site.layout, Policies(default=NOW), locks=os.fsencode(on.site.base))
        async with opened(setup, acting=True, watching=True) as session:
            before(session)
            plan = Plan(setup.policies, relist=0.5, story=story, stop_workers=session.pool.stop)
            stages = replace(session.stages, cleaner=cleaner(session.stages.cleaner))
            watched.ended = await watch(stages, plan, [watched])

    anyio.run(main)
    assert watched.ended is not None
    assert watched.ended.refused == ()
    return watched
