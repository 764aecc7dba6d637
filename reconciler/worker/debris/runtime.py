"""Runtime: removes what runc left of a container (its state, cgroups), and ends lone shims.

A state is runc's lock of the name: no container of it is made while that stands. So what a state
names goes first and the state last, and a cgroup whose name has a state waits for that. A state
that says it is of a bundle elsewhere is another containerd's, whether that one lives or not. A
cgroup cannot be renamed, on version 2; but the kernel removes none that somebody is in, and a
bundle, a shim or a helper of its name is there long before anybody makes or enters one.

A living shim without a bundle is ended where it serves nobody. What there is to prove is the same
as of one with a bundle (`reconciler.worker.shims`); but it must have worked in one that was removed
from our tree, and no other bundle there may be of its pod: those keep the shim, whoever of them
lives.
"""

from typing import TYPE_CHECKING

from reconciler.model.debris import Place
from reconciler.model.evidence import CgroupState, Shim, ShimState
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.outcome import BlockReason
from reconciler.probe.beneath import beneath, opened
from reconciler.probe.runc import Runc, look_at
from reconciler.worker.blocked import Blocked
from reconciler.worker.debris.attempt import PlaceAttempt
from reconciler.worker.debris.second_look import Judged
from reconciler.worker.hooks import Call, pick_runc, refuse_populated, refuse_strangers, run_hooks
from reconciler.worker.inventory.liveness import groups_of, has_groups_below
from reconciler.worker.objects import HIDDEN, ObjectId, find
from reconciler.worker.pods import sharing
from reconciler.worker.residue import finish_state, remove_groups, remove_state
from reconciler.worker.runtime_states import Owner, State, read_state
from reconciler.worker.shims import ShimTarget, end_shim
from reconciler.worker.step_log import Kept, Tally

if TYPE_CHECKING:
    from reconciler.probe.cgroups import CgroupDir


def remove_runc_state(attempt: PlaceAttempt, judged: Judged) -> None:
    """Remove a state and the cgroups that it names; with hooks pending, runc does."""
    _State(attempt, judged).run()


class _State:
    """One state directory."""

    def __init__(self, attempt: PlaceAttempt, judged: Judged) -> None:
        self._attempt = attempt
        self._context = context = attempt.context
        self._judged = judged
        self._key = key = judged.key
        self._root = judged.path.rpartition(b"/")[0]
        self._owner = Owner(context.layout, key, judged.place.identity)
        self._state: State | None = None
        self._said = Runc(self._root)
        self._groups: dict[CgroupDir, ObjectId | None] = {}

    def run(self) -> None:
        """Go through the steps."""
        attempt = self._attempt
        attempt.guard(self._guard)
        if self._judged.name.startswith(HIDDEN):
            attempt.do("runc-state", self._finish)
            return
        if self._said.has_poststop_hooks:
            # What runc leaves then is for the next inventory: the name was free in between.
            attempt.record.do("hooks", self._run_hooks)
            return
        attempt.record.do("cgroup", self._remove_groups, core=False)
        attempt.do("runc-state", self._remove)

    def _guard(self) -> None:
        """Read what it says, of the very object that was judged, and what that means now."""
        hidden = self._judged.name if self._judged.name.startswith(HIDDEN) else b""
        state = read_state(self._root, self._owner, hidden)
        if state is None:
            raise FileNotFoundError
        if state.id != self._judged.object:
            raise Kept("it is another one than was judged")
        if state.doubt:
            raise Kept(state.doubt)
        self._state = state
        if not hidden:
            if find(self._root + b"/" + HIDDEN + unescape(self._key.id)) is not None:
                raise Kept("one that was taken out of use under its name goes first")
            self._read()
        self._attempt.refuse_bundle(self._key)

    def _read(self) -> None:
        with opened(self._root) as root, beneath(root, self._judged.name) as directory:
            self._said = said = look_at(directory, self._root)
        around = self._context.nearby(self._context.scan())
        if not said.whole or around.cgroups is None:
            raise Blocked(BlockReason.IO, self._key.id, "what it names cannot be read")
        dirs = groups_of(self._key, said, around.cgroups).dirs
        self._groups = {one: find(one.path) for one in dirs}

    def _run_hooks(self, tally: Tally) -> str:
        scope, id_ = self._context.scope, self._key.id
        refuse_strangers(self._root, id_)
        runc = pick_runc("", scope.runc, self._said.keeper)
        this, refuse = self._judged.object, self._refuse_populated
        return run_hooks(Call(runc, self._root, id_, this, scope.hook_seconds, refuse), tally)

    def _refuse_populated(self) -> None:
        around = self._context.nearby(self._context.scan())
        groups = around.cgroups and groups_of(self._key, self._said, around.cgroups)
        refuse_populated(groups.state if groups else CgroupState.NONE, self._key.id)

    def _remove_groups(self, tally: Tally) -> str:
        return remove_groups(
            self._context, self._key, self._groups, tally, refuse=self._refuse_bundle
        )

    def _refuse_bundle(self) -> None:
        self._attempt.refuse_bundle(self._key)

    def _remove(self, tally: Tally) -> str:
        self._attempt.refuse_bundle(self._key)
        remove_state(self._root, self._owner, self._state, tally)
        return ""

    def _finish(self, tally: Tally) -> str:
        finish_state(self._root, self._owner, self._judged.object, tally)
        return ""


def remove_cgroup(attempt: PlaceAttempt, judged: Judged) -> None:
    """Remove one group, in one hierarchy, that has none below it."""
    context, key = attempt.context, judged.key
    state = context.layout.runc_root + b"/" + unescape(key.namespace) + b"/"

    def remove(tally: Tally) -> str:
        around = context.nearby(context.scan())
        group = None if around.cgroups is None else around.cgroups.dir_at(judged.path)
        if group is None:
            raise Kept(f"{escape(judged.path)} is in no cgroup hierarchy")
        for name in (unescape(key.id), HIDDEN + unescape(key.id)):
            if find(state + name) is not None:
                raise Kept("runc's state of its name goes first")

        def refuse() -> None:
            attempt.refuse_bundle(key)
            if has_groups_below(judged.path):
                raise Kept("somebody has made groups below it")

        return remove_groups(context, key, {group: judged.object}, tally, refuse=refuse)

    attempt.do("cgroup", remove)


def end_shim_of(attempt: PlaceAttempt, judged: Judged) -> None:
    """End the shim that was judged, if nobody may be served by it.

    Raises:
        StaysError: It stays, on purpose.
        Blocked: It is not shown to be the one that is meant, or does not end.
    """
    context, shim = attempt.context, target(judged.place)

    def look_again() -> None:
        path = context.layout.shim_socket(shim.key.namespace, shim.key.id)
        seen = Shim(ShimState.ALIVE, escape(path), shim.key.id)
        for other, _ in sharing(context, shim.key, seen):
            raise Blocked(BlockReason.SHIM, shim.key.id, f"it may serve {other}")

    attempt.do("shim", lambda tally: end_shim(context, shim, tally, look_again))


def target(place: Place) -> ShimTarget:
    """Read from a place which process it is: its path is the pid, its inode the start time."""
    key = BundleKey(place.namespace, place.id)
    return ShimTarget(key, int(place.key.path), place.identity.ino, has_bundle=False)
