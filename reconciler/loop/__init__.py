"""The loop: joins the stages to the engine, and is the only place that knows them all.

Data flows one way. Sources emit observations into the inbox; the engine answers each with
decisions; requests among them are carried out here, and what comes of that is one more
observation. Listeners receive both. Nothing is decided here.

Whatever an adapter raises, the loop has an answer: the one that proves nothing. No look, no
listing, no word of containerd, a guard that refuses, a cleanup that failed; it never becomes a *no*
(principle 1), and never ends the loop (principle 13).

Observations are taken in and close looks are made in slices, so that the loop turns at least every
:data:`.looks.SLICE` seconds; everything that may take longer (cleanups, sweeps, containerd) runs in
tasks of its own. :mod:`.looks` has the looks at bundles, :mod:`.nodesource` those at the node.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from reconciler.decide.brakes import Patience
from reconciler.decide.engine import Engine
from reconciler.loop.listeners import Listeners, name_of
from reconciler.loop.looks import SLICE, Looks
from reconciler.loop.nodesource import NodeWatch
from reconciler.model.debris import WHOLE_BATCH, DebrisCleaned, Inventory, results_of
from reconciler.model.decisions import (
    AskNode,
    Clean,
    CleanDebris,
    Decision,
    FinishRemoval,
    LookAt,
    Relist,
    TakeInventory,
    Vanished,
    assert_reported,
)
from reconciler.model.evidence import Containerd, Node, ProcessScan
from reconciler.model.observations import (
    Guard,
    GuardsChecked,
    Listed,
    NodeLooked,
    Observation,
    Refusal,
    Resync,
    ResyncKind,
    Stamp,
    is_unsure,
)
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policies
from reconciler.ports import Source, Stages
from reconciler.supervision import INTERNAL, unsupervised

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

AGAIN: Final = 1.0
LONGEST: Final = 300.0
"""Seconds until the guards are asked again where one gave no answer; doubled each time, to this."""


class Loop:
    """Runs one engine on one state tree, listed every ``relist`` seconds; once if that is None."""

    def __init__(self, engine: Engine, stages: Stages, *, relist: float | None = None) -> None:
        self.engine = engine
        self._listeners = Listeners(stages)
        self._stages = stages
        self._watch = stages.supervisor
        self._relist = relist
        self._relist_at = float("inf")
        self._guards_at = float("inf")
        self._guards_pause = 0.0
        self._inbox: deque[tuple[Observation, Stamp]] = deque()
        self._looks = Looks(stages, self._start_task, self.emit, self._take)
        self._listings: dict[str | None, ResyncKind] = {}
        self._running_tasks = 0
        self._bell = anyio.Event()
        self._tasks: TaskGroup
        self._checking = anyio.Lock()
        self._node = NodeWatch(
            stages.clock,
            stages.node_source,
            self._watch,
            about=unsupervised(engine.to_ask),
            shims=unsupervised(engine.shims_to_ask),
            check_guards=self._check_guards,
            answered=self._receive_node,
        )
        self._untaken: NodeLooked | None = None
        self._refused: tuple[Refusal, ...] = ()
        self._patience = Patience()
        self._stopped = False
        self._turned = anyio.Event()

    # ------------------------------------------------------------------ from outside

    def emit(self, observation: Observation) -> None:
        """Hand in an observation; it is stamped now and taken in on the next turn."""
        self._inbox.append((observation, self._now()))
        self._bell.set()

    async def deliver(self, observation: Observation) -> None:
        """Hand in an observation and return once the engine has received it."""
        self.emit(observation)
        while any(waiting is observation for waiting, _ in self._inbox):
            await self.ping()

    def stop(self) -> None:
        """End :meth:`run` on the next turn; whatever is under way is cancelled."""
        self._stopped = True
        self._bell.set()

    async def ping(self) -> None:
        """Return once the loop has turned; it does so at once unless something blocks it."""
        turned = self._turned
        self._bell.set()
        await turned.wait()

    def configure(self, policies: Policies) -> None:
        """Put other policies into force at once."""
        stamp = self._now()
        self._listeners.configured(stamp, policies)
        # Whoever asked is supervised, and the engine is not: it must not go on half of the way.
        decisions = unsupervised(self.engine.configure)(stamp, policies)
        unsupervised(self._carry_out)(stamp, decisions)
        self._bell.set()

    def relist_every(self, seconds: float) -> None:
        """List the whole tree this often from now on."""
        self._relist = seconds
        self._relist_at = self._next_relist(self._stages.clock.monotonic())
        self._bell.set()

    async def run(self, until: Callable[[float], bool] | None = None) -> None:
        """Turn until stopped, or until nothing is left to do and ``until(now)`` says so."""
        stages = self._stages
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            watcher = [] if stages.watcher is None else [stages.watcher]
            for source in (*watcher, stages.exits, *stages.sources):
                tasks.start_soon(self._keep_running, source)
            self._relist_at = self._next_relist(stages.clock.monotonic())
            self.emit(Resync(ResyncKind.START))
            while not self._stopped:
                await self._turn()
                self._turned.set()
                self._turned = anyio.Event()
                if self._is_idle():
                    now = stages.clock.monotonic()
                    if until is not None and not self._running_tasks and until(now):
                        break
                    await self._wait()
            self._report_remaining()
            tasks.cancel_scope.cancel()

    # ------------------------------------------------------------------ one turn

    async def _turn(self) -> None:
        clock = self._stages.clock
        end = clock.monotonic() + SLICE
        while self._inbox:
            self._take(*self._inbox.popleft())
            if clock.monotonic() >= end:
                break
        stamp = self._now()
        if stamp.mono >= self._relist_at:
            self._relist_at = self._next_relist(stamp.mono)
            self._take(Resync(ResyncKind.TIMER), stamp)
        if stamp.mono >= self._guards_at:
            self._guards_at = float("inf")
            self._start_task(self._check_guards)
        while self._listings:
            self._list(*self._listings.popitem())
        self._looks.make_some()
        deadline = self.engine.deadline
        stamp = self._now()
        if deadline is not None and deadline <= stamp.mono:
            self._listeners.advanced(stamp)
            self._carry_out(stamp, self.engine.advance(stamp))
        await anyio.lowlevel.checkpoint()

    async def _wait(self) -> None:
        bell = self._bell = anyio.Event()
        deadline, timer = self.engine.deadline, min(self._relist_at, self._guards_at)
        until = timer if deadline is None else min(deadline, timer)
        await self._stages.clock.wait(bell, None if until == float("inf") else until)

    def _is_idle(self) -> bool:
        return self._looks.is_done and not (self._inbox or self._listings or self._stopped)

    def _take(self, observation: Observation, stamp: Stamp | None = None) -> None:
        """Give the engine an observation, of now unless it was stamped, and do what it asks for."""
        stamp = stamp or self._now()
        if observation is self._untaken:
            self._untaken = None
        self._listeners.observed(stamp, observation)
        self._carry_out(stamp, self.engine.observe(stamp, observation))

    def _report_remaining(self) -> None:
        """Report what came in before the end; nothing of it is carried out any more.

        Cleanups that were stopped have said what they had done: that must be reported.
        """
        while self._inbox:
            observation, stamp = self._inbox.popleft()
            self._listeners.observed(stamp, observation)
            for decision in self.engine.observe(stamp, observation):
                self._listeners.decided(stamp, decision)

    def _list(self, namespace: str | None, why: ResyncKind) -> None:
        stages = self._stages
        if namespace is None and why in (ResyncKind.START, ResyncKind.TIMER):
            self._start_task(self._check_guards)
        listed = Listed(answered=False, present=True, namespace=namespace)
        with self._watch.part("listing"):
            listed = stages.inspector.list(namespace)
        if stages.watcher is not None and listed.answered and namespace is None:
            # Watches first, looks after: what changes in between is then an event or seen.
            bundles = [self.engine.kept(seen.key) for seen in listed.bundles]
            self._watch.call("watcher", stages.watcher.follow, bundles)
            # The backend may have changed on this occasion, and with it what it needs.
            self._relist_at = self._next_relist(stages.clock.monotonic())
        self._take(listed)

    # ------------------------------------------------------------------ requests

    def _carry_out(self, stamp: Stamp, decisions: list[Decision]) -> None:
        for decision in decisions:
            self._listeners.decided(stamp, decision)
            match decision:
                case LookAt():
                    self._looks.want(decision.key, decision.why)
                case Relist():
                    self._listings[decision.namespace] = decision.why
                case AskNode():
                    # Not counted as running: the engine tracks which answers are pending.
                    self._tasks.start_soon(self._node.ask, stamp.mono)
                case TakeInventory():
                    self._tasks.start_soon(self._take_inventory)
                case CleanDebris():
                    self._start_task(partial(self._send_batch, decision))
                case Clean() | FinishRemoval():
                    self._start_task(partial(self._send, decision))
                case Vanished():
                    self._looks.forget(decision.key)
                case _:
                    assert_reported(decision)

    def _receive_node(self, since: float, scan: ProcessScan, containerd: Containerd) -> None:
        self._watch.call("exits", self._stages.exits.expect_containerd, containerd.pid)
        self._looks.note_shims(scan)
        self._untaken = received = NodeLooked(since, scan, containerd)
        self.emit(received)

    async def _take_inventory(self) -> None:
        clock = self._stages.clock
        began = clock.monotonic()
        taken = Inventory(0.0, troubles=(INTERNAL,))
        with self._watch.part("inventory"):
            taken = await self._stages.node_source.inventory()
        self.emit(replace(taken, since=began, seconds=clock.monotonic() - began))

    async def _check_guards(self) -> None:
        async with self._checking:  # or an older answer could replace a newer one
            guards = self._stages.guards
            why = f"the guards could not be checked: {INTERNAL}"
            refused: tuple[Refusal, ...] = (Refusal(Guard.WORKER, why, unsure=True),)
            with self._watch.part("guards"):
                refused = await guards.check()
            self._refused = refused
            self.emit(GuardsChecked(self._refused, guards.slow))
            if not is_unsure(self._refused):
                self._guards_pause, self._guards_at = 0.0, float("inf")
                return
            # Or one slow answer would hold everything until the next listing.
            self._guards_pause = min(max(AGAIN, self._guards_pause * 2), LONGEST)
            self._guards_at = self._stages.clock.monotonic() + self._guards_pause

    async def _refresh_node(self, asked: Awaitable[Node]) -> Node:
        """Ask the witnesses anew and wait until the engine knows the answer, for the brakes."""
        node = await asked
        while self._untaken is not None:
            await self.ping()
        return node

    async def _send(self, request: Clean | FinishRemoval) -> None:
        """Send a cleanup, if it is still wanted at the moment at which a worker is free."""
        stages, key, identity = self._stages, request.key, request.identity
        blocked = await self._looks.refusal(key, identity)
        if blocked is not None:
            self.emit(blocked)
            return
        ends_shim = isinstance(request, Clean) and request.shim
        # What is no task is known by containerd's records alone.
        shim = self.engine.shim_of(key) if ends_shim or key.tree else ()
        node = await self._refresh_node(self._node.fresh(key, shim))
        permit = partial(self._refusal, request)
        outcome = Outcome(key, identity, Result.FAILED, detail=INTERNAL)
        with self._watch.part("cleaner"):
            if isinstance(request, FinishRemoval):
                outcome = await stages.cleaner.finish(key, identity, permit)
            else:
                clean = stages.cleaner.clean
                # One pass has no second attempt.
                waits = self._relist is not None and self._patience.lasts(self._now().mono)
                outcome = await clean(
                    key, identity, node, permit, wanted=request.wanted, patient=waits
                )
        self._patience.ended(outcome, self._now().mono)
        if outcome.holders:
            pids = [holder.pid for holder in outcome.holders]
            self._watch.call("exits", stages.exits.expect_holders, key, pids)
        self.emit(outcome)

    async def _send_batch(self, request: CleanDebris) -> None:
        """Send a batch of debris, if it is still wanted at the moment a worker is free."""
        node = await self._refresh_node(self._node.fresh_for_all())
        places, permit = request.places, partial(self._refusal, request)
        results = results_of(places, replace(WHOLE_BATCH, detail=INTERNAL))
        with self._watch.part("cleaner"):
            results = await self._stages.cleaner.clean_debris(places, node.containerd, permit)
        self.emit(DebrisCleaned(results))

    def _refusal(self, request: Clean | FinishRemoval | CleanDebris) -> Outcome | None:
        now = self._stages.clock.monotonic()
        return unsupervised(self.engine.refusal)(request, now, self._refused)

    # ------------------------------------------------------------------ small things

    def _start_task(self, work: Callable[[], Awaitable[None]]) -> None:
        self._running_tasks += 1
        self._tasks.start_soon(self._run_task, work)

    async def _run_task(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._running_tasks -= 1
            self._bell.set()

    async def _keep_running(self, source: Source) -> None:
        clock = self._stages.clock

        async def pause(seconds: float) -> None:
            # Until it runs again nothing comes from it: only a listing makes up for that.
            self.emit(Resync(ResyncKind.WATCH_LOST))
            await clock.wait(anyio.Event(), clock.monotonic() + seconds)

        await self._watch.keep_running(
            f"source {name_of(source)}", lambda: source.run(self.emit), pause
        )

    def _next_relist(self, now: float) -> float:
        watcher, hint = self._stages.watcher, None
        with self._watch.part("watcher"):
            hint = None if watcher is None else watcher.relist_hint
        return now + min((each for each in (self._relist, hint) if each), default=float("inf"))

    def _now(self) -> Stamp:
        clock = self._stages.clock
        return Stamp(clock.monotonic(), clock.wall())
