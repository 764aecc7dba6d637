"""What `clean --rescue` does about shims: names those that would hold up containerd's start.

Each living shim is asked once whether it answers, by a worker that may be given up; one that is
wedged is named with its bundle and its pid, and ended where that was asked for and its init is
dead. What is left of it then is removed with all other leftovers.
"""

from collections.abc import Sequence
from typing import Final

from reconciler.assembly import opened
from reconciler.cli.output import Output
from reconciler.cli.preflight import check_guards
from reconciler.cli.session import run_alone
from reconciler.cli.work import Found
from reconciler.decide.views import BundleView
from reconciler.model.evidence import Answer, Node, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Outcome, Result
from reconciler.present import words
from reconciler.setup import Setup
from reconciler.worker.messages import Ping
from reconciler.worker.pool import WorkerPool

BATCH: Final = 64
"""Shims that one worker asks at a time: its deadline is that of any question about the node."""


def ask_shims(plan: Found, setup: Setup, output: Output, *, kill: bool) -> None:
    """Say which shims are wedged; end those of the dead where ``kill``.

    Raises:
        RefusedError: A guard refuses to end anything.
    """
    views = {v.key: v for v in plan.views if v.facts.shim is ShimState.ALIVE}
    if kill:
        check_guards(plan.refused)
    if not views:
        return

    async def work() -> list[tuple[Ping, Outcome | None]]:
        async with opened(setup, acting=kill) as session:
            pings = await _ask(session.pool, list(views), output)
            # A pod's shim serves several: it is named once, with the first of them.
            wedged = {one.pid: one for one in reversed(pings) if one.answers is Answer.NO}
            found: list[tuple[Ping, Outcome | None]] = []
            for ping in wedged.values():
                view = views[ping.key]
                ends = kill and not setup.policies.named(view.policy).protect
                found.append((ping, await _end(session.pool, view, plan.node) if ends else None))
            return found

    for ping, outcome in run_alone(work):
        init = views[ping.key].look.init
        output.say(words.wedged(ping.key, ping.pid, init.state.value, _came_to(outcome)))


async def _ask(pool: WorkerPool, keys: Sequence[BundleKey], output: Output) -> list[Ping]:
    pings: list[Ping] = []
    for begin in range(0, len(keys), BATCH):
        answer = await pool.ping(keys[begin : begin + BATCH])
        if isinstance(answer, str):
            output.complain(f"whether shims answer cannot be known: {answer}")
        else:
            pings += answer
    return pings


async def _end(pool: WorkerPool, view: BundleView, node: Node) -> Outcome:
    return await pool.end_wedged(view.key, view.look.identity, node)


def _came_to(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return "ended" if outcome.result is Result.KILLED else f"not ended: {outcome.detail}"
