"""Abandoned: ends a leaked shim that has a bundle, where the operator said so. Removes nothing.

The second look must find it abandoned, and nobody else who may be served by the same shim: every
other bundle of its namespace is looked at, too, because a pod's containers share one. It looks once
more when the shim is held by a pidfd and proven (`reconciler.worker.shims`). What is left then is a
leftover like any other, with a grace of its own.
"""

from collections.abc import Iterator
from typing import ClassVar

from msgspec.structs import replace

from reconciler import kernel
from reconciler.decide.verdicts import CGROUP_CLEAR, INIT_GONE
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Look, Shim
from reconciler.model.ids import BundleKey, unescape
from reconciler.model.outcome import BlockReason, Outcome, Result
from reconciler.worker.blocked import Blocked, blocked_by
from reconciler.worker.context import WorkerContext
from reconciler.worker.messages import EndShimJob, EndWedgedJob
from reconciler.worker.pods import sharing
from reconciler.worker.second_look import NotLeftover, Seen, look_again
from reconciler.worker.shims import end_shim, find_shim
from reconciler.worker.step_log import Record, Tally
from reconciler.worker.steps import conclude
from reconciler.worker.under_removal import stays


def end_abandoned(place: WorkerContext, job: EndShimJob) -> Outcome:
    """Judge the bundle once more and end its shim if it is still abandoned."""
    return Ending(place, job).run()


class Ending:
    """One attempt to end one shim.

    Attributes:
        grace_ms: How long the shim may take to end by itself, if not as long as usual.
    """

    grace_ms: ClassVar[int | None] = None

    def __init__(self, place: WorkerContext, job: EndShimJob | EndWedgedJob) -> None:
        self._place = place
        self._job = job
        self._shim: Shim | None = None

    def run(self) -> Outcome:
        """Look, end it, and say what came of it."""
        place = self._place
        record = Record(place.clock, place.note, place.stop)

        def run() -> None:
            record.do("guards", lambda _: self._look())
            record.do("shim", self._end)

        outcome = conclude(place, record, self._job, run, tuple)
        if outcome.result is Result.CLEANED:
            return replace(outcome, result=Result.KILLED)
        return outcome

    def judge(self) -> Seen:
        """Judge the bundle once more.

        Raises:
            NotLeftover: It is another object by now, or not abandoned.
        """
        return look_again(self._place, self._job, Verdict.ABANDONED)

    def objection(self, member: BundleKey, look: Look) -> str:  # noqa: ARG002 -- for others to ask
        """Say why a dead bundle that shares the shim keeps it; empty if it does not."""
        is_denied = member in self._job.containerd.unrecorded
        return "" if is_denied else f"containerd was not asked about {member}, of the same shim"

    def _end(self, tally: Tally) -> str:
        """End the shim that listens at the bundle's socket."""
        shim, key = self._shim, self._job.key
        if shim is None or shim.group is None or shim.socket is None:
            raise self._blocked("which shim is its own cannot be known")
        target = find_shim(self._place, BundleKey(key.namespace, shim.group))
        if target is None:
            raise self._blocked(f"no shim of {key.namespace}/{shim.group} is running")
        socket = frozenset({unescape(shim.socket)})
        bundle = self._job.identity if shim.group == key.id else None
        its = replace(target, sockets=socket, bundle=bundle, grace_ms=self.grace_ms)
        try:
            return end_shim(self._place, its, tally, self._look)
        except FileNotFoundError as error:
            raise NotLeftover(error.strerror or "it has ended", None) from error

    def _look(self) -> str:
        seen = self.judge()
        self._shim = seen.look.shim
        self._refuse_sandbox(seen.look.shim)
        for member, look in self._members(seen.look.shim):
            why = self.objection(member, look)
            if why:
                raise self._blocked(why)
        return seen.judgement.reason

    def _refuse_sandbox(self, shim: Shim) -> None:
        """Keep a shim whose own bundle is in the tree of sandboxes: it may serve without an init.

        Raises:
            Blocked: There is one of that name, or that cannot be known.
        """
        sandbox = BundleKey(self._job.key.namespace, shim.group or self._job.key.id).sandbox
        try:
            is_there = stays(kernel.AT_FDCWD, self._place.layout.bundle(sandbox), even_going=True)
        except OSError as error:
            raise blocked_by(error, sandbox.id) from None
        if is_there:
            raise self._blocked(f"its shim may serve {sandbox}")

    def _members(self, shim: Shim) -> Iterator[tuple[BundleKey, Look]]:
        """Give the bundles that the same shim may serve, and look whether it serves them.

        Raises:
            Blocked: It may serve one of them, or that cannot be known.
        """
        for other, look in sharing(self._place, self._job.key, shim):
            if look.init.state not in INIT_GONE or look.cgroup not in CGROUP_CLEAR:
                raise self._blocked(f"its shim may serve {other}")
            yield other, look

    def _blocked(self, why: str) -> Blocked:
        return Blocked(BlockReason.SHIM, self._job.key.id, why)
