"""Steps: the order of a cleanup (design section 3), from the second look to the last rmdir.

A job goes in, an Outcome comes out; the world's trouble is a value in it and never an exception.
Everything named by the id goes while the bundle directory still stands, because that is the lock of
the id; the directory goes last. Each step may find its work done already: an attempt that was
killed anywhere is finished by the next one. What a failure means for the steps after it is not
decided here but in `reconciler.worker.step_log`.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from msgspec.structs import replace

from reconciler import kernel
from reconciler.decide.foreign_mounts import ROOTFS
from reconciler.model.evidence import CgroupState
from reconciler.model.hidden import parse_hidden
from reconciler.model.ids import BundleKey, Identity, unescape
from reconciler.model.layout import Layout
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result
from reconciler.probe.beneath import beneath, identity_of, opened
from reconciler.probe.bundle import examine
from reconciler.worker.blocked import Blocked, blocked_by
from reconciler.worker.context import WorkerContext
from reconciler.worker.fifos import birth_of
from reconciler.worker.holders import holders
from reconciler.worker.hooks import Call, pick_runc, refuse_populated, refuse_strangers, run_hooks
from reconciler.worker.messages import CleanJob, FinishJob, JudgedJob
from reconciler.worker.pinned import Judged, pin
from reconciler.worker.removal import hide, remove_mount_point, remove_tree
from reconciler.worker.residue import Residue, refuse_unanswered
from reconciler.worker.second_look import (
    NotLeftover,
    Seen,
    look_again,
    refuse_elsewhere,
    refuse_mounts,
    refuse_other_mount,
)
from reconciler.worker.step_log import Kept, Record, Tally
from reconciler.worker.under_removal import announce
from reconciler.worker.unmount import unmount_stack
from reconciler.worker.walk import check_identity

_ROOTFS: Final = unescape(ROOTFS)
_OF_SANDBOXES: Final = frozenset({"shim-socket", "work-dir"})


def clean(place: WorkerContext, job: CleanJob) -> Outcome:
    """Judge the bundle once more and remove it if it is still the same and still leftover."""
    with ExitStack() as handles:
        attempt = _Cleanup(place, job, handles)
        return conclude(place, attempt.record, job, attempt.run, lambda: attempt.holders)


def finish(place: WorkerContext, job: FinishJob) -> Outcome:
    """Finish a removal of ours that was cut short; the key's id is the hidden name."""
    record = Record(place.clock, place.note, place.stop)

    def remove(tally: Tally) -> str:
        if parse_hidden(job.key.id) != job.identity.ino:
            raise Blocked(BlockReason.CHANGED, job.key.id, "it was not hidden by us")
        refuse_elsewhere(place, place.around(place.scan()), job.key)
        with ExitStack() as handles:
            namespace = _open_namespace(handles, place.layout, job.key)
            return _remove(namespace, unescape(job.key.id), job.identity, tally)

    return conclude(place, record, job, lambda: record.do("bundle", remove), tuple)


def _open_namespace(handles: ExitStack, layout: Layout, key: BundleKey) -> int:
    """Open the directory that holds the bundle, on the state tree's own mount.

    Raises:
        Blocked: It is a mount point or a symlink, or cannot be opened.
        FileNotFoundError: It is gone.
    """
    try:
        tree = handles.enter_context(opened(layout.tree_of(key), os.O_PATH | os.O_NOFOLLOW))
        if key.tree:
            refuse_other_mount(layout, tree)
        return handles.enter_context(beneath(tree, unescape(key.namespace)))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise blocked_by(error, key.namespace) from None


def conclude(
    place: WorkerContext,
    record: Record,
    job: JudgedJob | FinishJob,
    work: Callable[[], None],
    who: Callable[[], tuple[Holder, ...]],
) -> Outcome:
    """Do the work and say what came of it."""
    begin = place.clock.monotonic()
    outcome = Outcome(job.key, job.identity, Result.CLEANED)
    try:
        work()
    except NotLeftover as other:
        outcome = replace(outcome, result=Result.SKIPPED, detail=str(other), look=other.look)
    except Blocked as blocked:
        outcome = replace(
            outcome,
            result=Result.BLOCKED,
            reason=blocked.reason,
            detail=str(blocked),
            holders=who(),
        )
    seconds = place.clock.monotonic() - begin
    return replace(outcome, steps=tuple(record.steps), seconds=seconds)


class _Cleanup:
    """One attempt on one bundle."""

    def __init__(self, place: WorkerContext, job: CleanJob, handles: ExitStack) -> None:
        self._place = place
        self._job = job
        self._handles = handles
        self._bundle = -1
        self._namespace = -1
        self._seen: Seen | None = None
        self._judged = Judged()
        self._born: float | None = None
        self._hooks_ran = False
        self.record = Record(place.clock, place.note, place.stop)
        self.holders: tuple[Holder, ...] = ()

    def run(self) -> None:
        """Go through the steps, in this order."""
        record = self.record
        record.do("guards", self._first_look)
        if self._now.judgement.claimed:
            record.do("containerd", self._ask_containerd, core=False)
            self._place.scan(anew=True)  # its own `shim delete` may run by now, also if it failed
            try:
                record.do("guards", self._look)
            except NotLeftover as other:
                if other.look is None:
                    return  # it removed everything itself
                raise
        self._keep_lock()
        if not self._job.key.tree:  # what is named by an id is a task's, if there is any
            record.do("hooks", self._run_hooks)
        if self._hooks_ran:
            # They may have taken long, and runc frees the id before it runs them: it may be
            # another's by now. So nothing counts that was seen before.
            self._place.scan(anew=True)
            record.do("guards", self._look)
            self._keep_lock()
        record.do("unmount", self._unmount)
        record.do("rootfs", self._remove_rootfs)
        announce(self._bundle)
        residue = Residue(self._place, self._job, self._now, self._judged, self._born)
        for name, remove in (
            ("cgroup", residue.remove_cgroups),
            ("runc-state", residue.remove_runc_state),
            ("shim-socket", residue.remove_socket),
            ("fifo", residue.remove_fifos),
            ("work-dir", residue.remove_work_dir),
        ):
            if self._job.key.tree and name not in _OF_SANDBOXES:
                continue
            self._keep_lock()
            record.do(name, remove, core=False)
        record.do("bundle", self._remove_bundle)

    @property
    def _now(self) -> Seen:
        if self._seen is None:
            raise RuntimeError("nothing was judged")
        return self._seen

    def _first_look(self, tally: Tally) -> str:
        reason, key = self._look(tally), self._job.key
        if self._job.patient and not key.tree:
            refuse_unanswered(self._place, key, self._now.resources)
        return reason

    def _look(self, _: Tally) -> str:
        """Judge again, and hold on to the very object that was judged."""
        job = self._job
        self._handles.close()
        seen = self._seen = look_again(self._place, job)
        try:
            self._namespace = _open_namespace(self._handles, self._place.layout, job.key)
            bundle = beneath(self._namespace, unescape(job.key.id))
            self._bundle = self._handles.enter_context(bundle)
        except FileNotFoundError:
            raise NotLeftover("it is gone", None) from None
        except OSError as error:
            raise blocked_by(error, job.key.id) from None
        found = kernel.statx_handle(self._bundle)
        if identity_of(found) != job.identity:
            raise NotLeftover("it was replaced while we looked", seen.look)
        self._born = birth_of(self._bundle)
        old = self._place.clock.wall() - job.options.settle
        self._judged = pin(self._place.layout, job, seen, old, self._judged.state)
        return seen.judgement.reason

    def _keep_lock(self) -> None:
        """Make sure that the id is still locked: its name must mean the bundle that was judged.

        Somebody else may have removed it meanwhile, and the id may be a new task's by now.

        Raises:
            NotLeftover: It is gone.
            Blocked: It is another object, or that cannot be known.
        """
        key = self._job.key
        try:
            found = kernel.statx(self._namespace, unescape(key.id))
            check_identity(found, self._job.identity, key.id)
        except FileNotFoundError:
            raise NotLeftover("it went away while it was cleaned", None) from None
        except OSError as error:
            raise blocked_by(error, key.id) from None

    def _ask_containerd(self, tally: Tally) -> str:
        trouble = self._place.ask_delete()
        if trouble is None:
            raise Blocked(BlockReason.CONTAINERD, self._job.key.id, "asked to delete the task")
        if trouble:
            raise Kept(f"containerd did not delete the task: {trouble}")
        tally.others = True
        return "containerd deleted the task"

    def _run_hooks(self, tally: Tally) -> str:
        scope, resources, state = self._place.scope, self._now.resources, self._judged.state
        if not resources.has_poststop_hooks:
            if state is not None and state.torn:
                raise Kept("runc's state is torn: poststop hooks, if it had any, do not run")
            return ""
        root, id_ = resources.runc_root, self._job.key.id
        refuse_strangers(root, id_)
        if state is None or state.doubt:
            why = state.doubt if state else "it is gone"
            raise Kept(f"poststop hooks in runc's state do not run: {why}")
        runc = pick_runc(resources.runc, scope.runc, resources.keeper)
        self._hooks_ran = True
        call = Call(runc, root, id_, state.id, scope.hook_seconds, self._refuse_populated)
        return run_hooks(call, tally)

    def _refuse_populated(self) -> None:
        """Look once more: ``delete --force`` kills whoever is in the cgroups that the state names.

        Raises:
            Blocked: Somebody is, or that cannot be known.
        """
        found = examine(self._place.around(self._place.scan()), self._job.key)
        refuse_populated(found.look.cgroup if found else CgroupState.NONE, self._job.key.id)

    def _unmount(self, tally: Tally) -> str:
        judged = frozenset(mount.mount_id for mount in self._now.look.mounts)
        lazy = self._job.options.lazy_unmount
        try:
            detached = unmount_stack(self._bundle, _ROOTFS, judged, tally, lazy=lazy)
        except Blocked as blocked:
            if blocked.reason is BlockReason.MOUNT_BUSY:
                self.holders = holders(self._bundle, _ROOTFS)
            raise
        return f"{detached} detached while busy" if detached else ""

    def _remove_rootfs(self, tally: Tally) -> str:
        """Look at the mount table itself once more: what is left below must not be ours to lose."""
        refuse_mounts(self._place.points, self._bundle, self._job.key)
        remove_mount_point(self._bundle, _ROOTFS, tally)
        return ""

    def _remove_bundle(self, tally: Tally) -> str:
        job = self._job
        hidden = hide(self._namespace, unescape(job.key.id), job.identity, tally)
        if hidden is None:
            return ""
        return _remove(self._namespace, hidden, job.identity, tally)


def _remove(namespace: int, name: bytes, identity: Identity, tally: Tally) -> str:
    """Remove what has been hidden; a rootfs that has come back goes by rmdir alone."""
    before = tally.mutations
    freed = remove_tree(namespace, name, identity, tally, frozenset({_ROOTFS}))
    return f"{freed} bytes freed" if tally.mutations > before else ""
