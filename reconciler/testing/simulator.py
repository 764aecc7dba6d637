"""The simulator: one real engine on one simulated node, in virtual time.

It does what the loop does on a real node (fetch events, look, list, ask, clean) with simulated
an inspector and a cleaner, and remembers everything that went into the engine and came out. Answers
may come late (:attr:`Manners`), events may be lost, the daemon may be restarted. Each cleanup that
is asked for is compared with the truth at that instant, and each removal again: what should never
have happened is collected in :attr:`Simulation.harm`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

from msgspec.structs import replace

from reconciler.decide.claims import shares
from reconciler.decide.debris_verdicts import DebrisVerdict, judge_place, known_task
from reconciler.decide.engine import Engine
from reconciler.decide.ownership import Unproven, prove
from reconciler.decide.verdicts import CGROUP_CLEAR, INIT_GONE, judge
from reconciler.decide.views import BundleView
from reconciler.model.debris import DebrisCleaned, DebrisResult, Place, PlaceKey, results_of
from reconciler.model.decisions import (
    AskNode,
    Clean,
    CleanDebris,
    Decision,
    FinishRemoval,
    LookAt,
    Relist,
    TakeInventory,
    Verdict,
    assert_reported,
)
from reconciler.model.evidence import Answer, Containerd, Shim
from reconciler.model.evidence import Node as NodeWord
from reconciler.model.facts import weigh
from reconciler.model.ids import BundleKey
from reconciler.model.observations import (
    Guard,
    GuardsChecked,
    Looked,
    NodeLooked,
    Observation,
    Refusal,
    Resync,
    ResyncKind,
    Stamp,
)
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.model.policy import Policies
from reconciler.ports import Recorder
from reconciler.testing.node import Node
from reconciler.testing.outside import Outside, evidence_of, is_needed
from reconciler.testing.parts import Daemon, Truth
from reconciler.testing.sandboxes import members
from reconciler.testing.sight import Sight

MOST_TURNS: Final = 2_000_000
"""More deadlines than this in one wait: the engine's deadline does not move on."""


@dataclass(slots=True)
class Manners:
    """How long things take, in seconds.

    Attributes:
        ask: From the question to the witnesses' answer.
        clean: From the request to the outcome.
        relist: Between listings of the whole tree.
    """

    ask: float = 0.0
    clean: float = 0.0
    relist: float = 300.0


class Simulation:
    """An engine on a node, a fresh one if none is given.

    Attributes:
        harm: What should never have happened, in words; empty if all is well.
        seen: Every observation the present engine took, with its stamp.
        said: Every decision it made, with its stamp.
    """

    def __init__(
        self,
        policies: Policies,
        node: Node | None = None,
        manners: Manners | None = None,
        recorders: Sequence[Recorder] = (),
    ) -> None:
        self.policies = policies
        self.node = node or Node()
        self.sight = Sight(self.node)
        self.outside = Outside(self.node)
        self.manners = manners or Manners()
        self.harm: list[str] = []
        self.cleaned: list[BundleKey] = []
        self.debris_cleaned: list[PlaceKey] = []
        self.killed: list[int] = []
        self._recorders = list(recorders)
        self.restart()

    # ------------------------------------------------------------------ from outside

    def restart(self) -> None:
        """Kill the reconciler and start it: nothing is remembered."""
        self.engine = Engine(self.policies)
        self.seen: list[tuple[Stamp, Observation]] = []
        self.said: list[tuple[Stamp, Decision]] = []
        self._late: list[tuple[float, Observation]] = []
        self._cleaning: list[tuple[float, Clean]] = []
        self._batches: list[tuple[float, CleanDebris]] = []
        self._looked_at: dict[BundleKey, float] = {}
        self._work: deque[LookAt | Relist] = deque()
        self._relist_at = self.node.mono + self.manners.relist
        self.observe(self._guards())
        self.observe(Resync(ResyncKind.START))
        self.settle()

    def observe(self, observation: Observation) -> list[Decision]:
        """Hand one observation to the engine and carry out what follows."""
        stamp = self.node.stamp
        self.seen.append((stamp, observation))
        for recorder in self._recorders:
            recorder.observed(stamp, observation)
        decisions = self.engine.observe(stamp, observation)
        self._carry_out(stamp, decisions)
        return decisions

    def settle(self) -> None:
        """Do all that can be done at this instant."""
        for _ in range(MOST_TURNS):
            if not self._turn():
                return
        raise AssertionError("the engine asks for the same work without end")

    def wait(self, seconds: float) -> None:
        """Let time pass, firing every timer on the way."""
        end = self.node.mono + seconds
        self.settle()
        for _ in range(MOST_TURNS):
            at = self._next()
            if at > end:
                self.node.mono = max(self.node.mono, end)
                return
            self.node.mono = max(self.node.mono, at)
            self.settle()
        raise AssertionError("the engine's deadline does not move on")

    def relist(self) -> None:
        """Look at everything now."""
        self.observe(Resync(ResyncKind.ASKED))
        self.settle()

    def configure(self, policies: Policies) -> None:
        """Reload."""
        self.policies = policies
        stamp = self.node.stamp
        for recorder in self._recorders:
            recorder.configured(stamp, policies)
        self._carry_out(stamp, self.engine.configure(stamp, policies))
        self.settle()

    def view(self, key: BundleKey) -> BundleView | None:
        """Show what the engine believes about a bundle."""
        return self.engine.view(key, self.node.mono)

    def verdicts(self) -> dict[BundleKey, Verdict]:
        """Every verdict now."""
        return {v.key: v.judgement.verdict for v in self.engine.views(self.node.mono)}

    # ------------------------------------------------------------------ what the loop does

    def _turn(self) -> bool:
        node, now = self.node, self.node.mono
        if node.hints:
            hints, node.hints = node.hints, []
            for hint in hints:
                self.observe(hint)
            return True
        if now >= self._relist_at:
            self._relist_at = now + self.manners.relist
            self.observe(self._guards())
            self.observe(Resync(ResyncKind.TIMER))
            return True
        if self._work:
            self._do(self._work.popleft())
            return True
        return self._deliver(now) or self._advance(now)

    def _guards(self) -> GuardsChecked:
        foreign = Refusal(Guard.PID_NAMESPACE, "own pid namespace is not that of containerd")
        return GuardsChecked((foreign,) if self.sight.foreign else ())

    def _do(self, work: LookAt | Relist) -> None:
        match work:
            case LookAt():
                self._looked_at[work.key] = self.node.mono
                self.observe(Looked(work.key, self.sight.look(work.key)))
            case Relist():
                self.observe(self.sight.listed(work.namespace))
            case _:
                assert_never(work)

    def _deliver(self, now: float) -> bool:
        for place, (at, observation) in enumerate(self._late):
            if at <= now:
                del self._late[place]
                self.observe(observation)
                return True
        for place, (at, request) in enumerate(self._cleaning):
            if at <= now:
                del self._cleaning[place]
                self.observe(self._clean(request))
                return True
        for place, (at, batch) in enumerate(self._batches):
            if at <= now:
                del self._batches[place]
                self.observe(self._clean_batch(batch))
                return True
        return False

    def _advance(self, now: float) -> bool:
        deadline = self.engine.deadline
        if deadline is None or deadline > now:
            return False
        stamp = self.node.stamp
        for recorder in self._recorders:
            recorder.advanced(stamp)
        self._carry_out(stamp, self.engine.advance(stamp))
        return True

    def _next(self) -> float:
        deadline = self.engine.deadline
        waits = [at for at, _ in self._late] + [at for at, _ in self._cleaning]
        waits += [at for at, _ in self._batches]
        return min([self._relist_at, *waits, *([] if deadline is None else [deadline])])

    def _carry_out(self, stamp: Stamp, decisions: list[Decision]) -> None:
        for decision in decisions:
            self.said.append((stamp, decision))
            for recorder in self._recorders:
                recorder.decided(stamp, decision)
            match decision:
                case LookAt() | Relist():
                    if decision not in self._work:
                        self._work.append(decision)
                case AskNode() | TakeInventory():
                    self._late.append((self.node.mono + self.manners.ask, self._ask(decision)))
                case Clean():
                    if decision.wanted is Verdict.LEFTOVER:
                        self._check(decision)
                    self._cleaning.append((self.node.mono + self.manners.clean, decision))
                case CleanDebris():
                    self._batches.append((self.node.mono + self.manners.clean, decision))
                case FinishRemoval():
                    self._late.append((self.node.mono + self.manners.clean, self._finish(decision)))
                case _:
                    assert_reported(decision)

    def _ask(self, question: AskNode | TakeInventory) -> Observation:
        """Answer about the instant of the question, however late it comes."""
        now = self.node.mono
        if isinstance(question, TakeInventory):
            return self.outside.inventory(self.sight)
        return NodeLooked(now, self.sight.scan(), self._say())

    def _say(self) -> Containerd:
        return self.sight.containerd(self.engine.to_ask, self.engine.shims_to_ask)

    # ------------------------------------------------------------------ the cleaner

    def _check(self, request: Clean) -> None:
        """Compare a request with the truth, unless it changed without an event since the look.

        That is what the second look is for; whatever is removed after it is compared always.
        """
        bundle = self.node.bundles.get(request.key)
        if bundle is None or bundle.identity != request.identity:
            return
        if bundle.unheard > self._looked_at.get(request.key, 0.0):
            return
        if self.node.truth(request.key) is Truth.ALIVE:
            self.harm.append(f"at {self.node.mono - 1e5:.3f} s: cleanup of living {request.key}")

    def _clean(self, request: Clean) -> Outcome:
        """Look again and remove, as the worker does; the truth is only compared."""
        key = request.key
        outcome = Outcome(key, request.identity, Result.SKIPPED, detail="second look")
        look = self.sight.look(key)
        if look is None or look.identity != request.identity:
            return outcome
        shim = self.engine.shim_of(key) if request.shim or key.tree else ()
        said = self.sight.containerd(lambda _: [key], lambda: [shim] if shim else [])
        word = NodeWord(self.sight.scan(), said)
        pod = members(self.sight, key, look.shim) if key.tree else Answer.NONE
        facts = weigh(key, key.is_identifier, look, word, pod)
        young = self.node.stamp.wall - look.newest_mtime < self.policies.settle
        if judge(facts, young=young).verdict is not request.wanted:
            return replace(outcome, look=look)
        if request.wanted is not Verdict.LEFTOVER:
            shim_of = partial(self._end_shim, shim=look.shim, denied=said.unrecorded)
            return (shim_of if request.shim else self._kill)(outcome)
        if any(mount.path != "rootfs" for mount in look.mounts):
            return replace(outcome, result=Result.BLOCKED, reason=BlockReason.FOREIGN_MOUNT)
        if self.node.daemon is Daemon.HUNG:
            return replace(outcome, result=Result.BLOCKED, reason=BlockReason.CONTAINERD)
        if self.node.truth(key) is Truth.ALIVE:
            self.harm.append(f"at {self.node.mono - 1e5:.3f} s: removal of living {key}")
        self.node.tasks.discard(key)
        self.node.remove(key)
        self.cleaned.append(key)
        return replace(outcome, result=Result.CLEANED, detail="")

    def _kill(self, outcome: Outcome) -> Outcome:
        """End the processes that are proven to be a bundle's own; whose they are is compared."""
        found = prove(evidence_of(self.sight, outcome.key))
        if isinstance(found, Unproven):
            return replace(
                outcome, result=Result.BLOCKED, reason=BlockReason.CGROUP, detail=found.why
            )
        for pid in sorted(found.pids):
            whose = self.node.processes[pid].key
            if whose != outcome.key:
                self.harm.append(f"at {self.node.mono - 1e5:.3f} s: end of pid {pid} of {whose}")
            self.node.kill(pid)
            self.killed.append(pid)
        return replace(outcome, result=Result.KILLED, detail="")

    def _end_shim(self, outcome: Outcome, shim: Shim, denied: frozenset[BundleKey]) -> Outcome:
        """End the shim of a bundle if nobody shares it; whether it was needed is compared."""
        key, blocked = outcome.key, replace(outcome, result=Result.BLOCKED, reason=BlockReason.SHIM)
        for other in [one for one in self.node.bundles if one.namespace == key.namespace]:
            look = self.sight.look(other)
            if look is None or not shares(look, shim):
                continue
            is_idle = look.init.state in INIT_GONE and look.cgroup in CGROUP_CLEAR
            if other not in denied or not is_idle:
                return blocked
        process = self.node.shims.get((key.namespace, shim.group or ""))
        if process is None or process.key != BundleKey(key.namespace, shim.group or ""):
            return blocked
        if is_needed(self.node, process):
            self.harm.append(f"at {self.node.mono - 1e5:.3f} s: end of the shim of {key}")
        self.node.kill(process.pid)
        self.killed.append(process.pid)
        return replace(outcome, result=Result.KILLED, detail="")

    def _clean_batch(self, batch: CleanDebris) -> DebrisCleaned:
        """Ask whether a batch is still wanted, look again, and remove what is still debris."""
        self.observe(NodeLooked(self.node.mono, self.sight.scan(), self._say()))
        refused = self._guards().refused
        refusal = self.engine.refusal(batch, self.node.mono, refused)
        if refusal is not None:
            return DebrisCleaned(results_of(batch.places, refusal))
        return DebrisCleaned(tuple(map(self._remove, batch.places)))

    def _remove(self, place: Place) -> DebrisResult:
        """Look at a place again and remove it, as the worker does; the truth is only compared."""
        blank = DebrisResult(place.key, place.identity, Result.SKIPPED, detail="second look")
        now = self.outside.look(place, self.sight)
        said = self._say()
        ids = {key.id for key in said.tasks}
        if now is None or self.sight.foreign or not self.sight.proc:
            return blank
        if judge_place(now, known_task(now, said, ids), None)[0] is not DebrisVerdict.DEBRIS:
            return blank
        return self._take_away(place, blank)

    def _take_away(self, place: Place, blank: DebrisResult) -> DebrisResult:
        if self.outside.is_used(place.key):
            self.harm.append(f"at {self.node.mono - 1e5:.3f} s: removal of {place.key} in use")
        del self.outside.things[place.key]
        self.debris_cleaned.append(place.key)
        return replace(blank, result=Result.CLEANED, detail="")

    def _finish(self, request: FinishRemoval) -> Outcome:
        self.node.hidden.pop(request.key, None)
        return Outcome(request.key, request.identity, Result.CLEANED)
