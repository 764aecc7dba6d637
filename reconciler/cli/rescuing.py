"""What `clean --rescue` does about shims: names those that would hold up containerd's start.

Each living shim is asked once whether it answers, by a worker that may be given up; one that is
wedged is named with its bundle and its pid. Where that was asked for, and agreed to, it is ended if
nobody lives in any bundle that it may serve and no rule of theirs keeps it; right before each it
is made sure once more that containerd is down. What is left of it then is removed with all other
leftovers.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from reconciler.assembly import Opened, opened
from reconciler.cli.checks import check_guards
from reconciler.cli.output import Output
from reconciler.cli.passes import Found, look_once
from reconciler.cli.selection import known_of, labels_of
from reconciler.cli.session import run_alone
from reconciler.decide.claims import objection_to_end_shim, shares
from reconciler.decide.verdicts import CGROUP_CLEAR, INIT_GONE
from reconciler.decide.views import BundleView
from reconciler.errors import RefusedError
from reconciler.model.evidence import Answer, ContainerdState, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Policies
from reconciler.present import formatting
from reconciler.probe.locks import LockState
from reconciler.setup import Setup
from reconciler.worker.messages import Ping
from reconciler.worker.pool import WorkerPool

BATCH: Final = 64
"""Shims that one worker asks at a time: its deadline is that of any question about the node."""


class Wedged(msgspec.Struct, frozen=True):
    """A shim that never answers.

    Attributes:
        view: The first of the bundles that it serves.
        pid: Its own.
        objection: Why it may not be ended; empty if it may.
    """

    view: BundleView
    pid: int
    objection: str

    def say(self, output: Output, came_to: str) -> None:
        """Name it, and say what is done about it; empty for what can be done."""
        init = self.view.look.init.state.value
        output.say(formatting.wedged(self.view.key, self.pid, init, came_to))


def ask_shims(plan: Found, setup: Setup, output: Output) -> list[Wedged]:
    """Find out which shims are wedged; nothing is ended."""
    views = {v.key: v for v in plan.views if v.facts.shim is ShimState.ALIVE}
    if not views:
        return []

    async def work() -> list[Wedged]:
        async with opened(setup) as session:
            pings = await _ask(session.pool, list(views), output)
            # A pod's shim serves several: it is named once, with the first of them.
            silent = [ping for ping in reversed(pings) if ping.answers is Answer.NO]
            wedged = {ping.pid: views[ping.key] for ping in silent}
            if not wedged:
                return []
            # All of them: those that are not meant may share such a shim.
            found = await look_once(session.stages, setup.policies)
            policies = setup.policies
            return [Wedged(v, pid, _objection(v.key, found, policies)) for pid, v in wedged.items()]

    return run_alone(work)


def end_shims(wedged: Sequence[Wedged], setup: Setup, output: Output) -> None:
    """End those that may be ended, and say what came of each.

    Raises:
        RefusedError: A guard refuses to end anything, or containerd has started.
        NoWorkerError: Whether one refuses cannot be known now.
    """

    async def work() -> None:
        async with opened(setup, acting=True) as session:
            for one in wedged:
                outcome = await _end(session, one, setup.policies)
                is_ended = outcome.result is Result.KILLED
                one.say(output, "ended" if is_ended else f"not ended: {outcome.detail}")

    run_alone(work)


async def _ask(pool: WorkerPool, keys: Sequence[BundleKey], output: Output) -> list[Ping]:
    pings: list[Ping] = []
    for begin in range(0, len(keys), BATCH):
        answer = await pool.ping(keys[begin : begin + BATCH])
        if isinstance(answer, str):
            output.complain(f"whether shims answer cannot be known: {answer}")
        else:
            pings += answer
    return pings


async def _end(session: Opened, one: Wedged, policies: Policies) -> Outcome:
    """End one, by what guards, containerd and all bundles say at this moment."""
    key, identity = one.view.key, one.view.look.identity
    found = await look_once(session.stages, policies)
    check_guards(found.refused)
    lock, said = await session.pool.lock(), found.node.containerd
    if lock.state is LockState.HELD or said.state is ContainerdState.UP:
        raise RefusedError("containerd has started meanwhile", f"the shim of {key} was not ended")

    def permit() -> Outcome | None:
        why, reason = _objection(key, found, policies), BlockReason.POLICY
        if said.state is not ContainerdState.DOWN or lock.state is not LockState.FREE:
            why, reason = "containerd is not proven down", BlockReason.GUARD
        return Outcome(key, identity, Result.HELD, reason, why) if why else None

    return await session.pool.end_wedged(key, identity, found.node, permit)


def _objection(key: BundleKey, found: Found, policies: Policies) -> str:
    """Say why the shim of a bundle may not be ended; empty if all that it may serve allow it."""
    if key not in {view.key for view in found.views}:
        return "its bundle is not there any more"
    labels = labels_of(found.views)
    for other, view in _sharing(key, found):
        if view is None:
            return f"{other} could not be looked at"
        look = view.look
        if look.init.state not in INIT_GONE or look.cgroup not in CGROUP_CLEAR:
            return f"somebody may live in {other}"
        why = objection_to_end_shim(policies, other, known_of(view, labels))
        if why:
            return why if other == key else f"{other} may share its shim: {why}"
    return ""


def _sharing(key: BundleKey, found: Found) -> Iterator[tuple[BundleKey, BundleView | None]]:
    """Give every bundle that the shim of this one may serve; None of what was not looked at."""
    views = {view.key: view for view in found.views}
    for seen in found.listed.bundles:
        other = views.get(seen.key)
        if seen.key.namespace != key.namespace:
            continue
        if seen.key == key or other is None or shares(other.look, views[key].look.shim):
            yield seen.key, other
