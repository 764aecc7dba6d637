"""Worker context: what one worker keeps between jobs, so that many bundles cost less than each.

What it keeps is a moment old at most, and only things of which an older answer can do no harm: a
dead bundle does not come back to life, and its own containerd cannot use its id again while it
stands. Others can, so whoever asks about them is shown everybody who runs by then.
"""

from collections.abc import Callable
from typing import Final

from reconciler.clock import SystemClock
from reconciler.model.evidence import ProcessScan
from reconciler.model.ids import unescape
from reconciler.model.layout import Layout
from reconciler.probe.bundle import look_at_each
from reconciler.probe.commands import CommandLines
from reconciler.probe.context import NodeContext
from reconciler.probe.elsewhere import Elsewhere, mounted_elsewhere
from reconciler.probe.pids import Moment, given_out, moment
from reconciler.probe.points import BundleMounts, MountPoints
from reconciler.probe.processes import scan, scan_since, users_of
from reconciler.probe.ttl_cache import TTLCache
from reconciler.worker.fifos import FifoDirs
from reconciler.worker.instances import Instances
from reconciler.worker.messages import LookJob, Looks, WorkerScope
from reconciler.worker.sockets import SocketUsers
from reconciler.worker.step_log import Note

FRESH_SECONDS: Final = 1.0
FEW_PIDS: Final = 64
"""So many are looked at one by one; a pass over all processes costs less than more of them."""
CGROUPS_SECONDS, CGROUPS_COST = 5.0, 20
"""How old an answer about who is in which cgroup may be at most, and how many times as long as it
took to get; see `WorkerContext.scan`."""
ELSEWHERE_SECONDS: Final = 5.0
"""How old an answer about other mount namespaces may be: nobody mounts on a dead bundle often."""


class WorkerContext:
    """One worker's clock, its ways to speak to the parent, and what it remembers.

    ``ask_delete`` has the parent ask containerd to delete the task of the bundle at hand, and gives
    what went wrong, empty if nothing did, None if there was no answer.
    """

    def __init__(
        self,
        scope: WorkerScope,
        clock: SystemClock,
        note: Note,
        ask_delete: Callable[[], str | None],
        stop: Callable[[], bool],
    ) -> None:
        self.scope = scope
        self.layout = scope.layout
        self.clock = clock
        self.note = note
        self.ask_delete = ask_delete
        self.stop = stop
        self.users = SocketUsers(clock)
        self.fifo_dirs = FifoDirs(clock)
        self.instances = Instances(scope.layout, self.scan_for_shims)
        self.points = MountPoints(clock)
        self._commands = CommandLines()
        self._shown_until = Moment(None, 0.0, 0.0)
        self._whole = ProcessScan()
        self._cgroups_at = 0.0
        self._cgroups_until = 0.0
        self._scan = TTLCache(clock, self._pass, FRESH_SECONDS)
        self._everybody = TTLCache(clock, self._pass_for_shims, FRESH_SECONDS)
        self._node = _Node(scope.layout, clock, self.points)
        self._nearby = _Node(scope.layout, clock, self.points, near=True)
        self._afar: dict[bool, NodeContext] = {}
        self._elsewhere: dict[bytes, TTLCache[bytes, tuple[Elsewhere, ...]]] = {}

    def scan(self, *, anew: bool = False, whole: bool = False) -> ProcessScan:
        """Give a pass over /proc, a second old at most.

        What it says of cgroups may be older where very many make that expensive, so that it is not
        all that a worker does: nobody moves into the cgroup of a dead bundle. That is enough where
        it is known which one that is; ``whole`` has it as fresh as the rest. ``anew`` passes now.
        """
        if whole and self.clock.monotonic() - self._cgroups_at > FRESH_SECONDS:
            anew = True
        if anew:
            self._cgroups_until = 0.0
        return self._scan.get(None, anew=anew)

    def _pass(self, _: None) -> ProcessScan:
        shown, users = moment(self.clock), users_of(self.layout.state)
        begun = shown.earliest
        if begun < self._cgroups_until:
            found = scan(users=users, commands=self._commands, cgroups=False)
            self._show(found, shown)
            return found.with_cgroups_of(self._whole) if found.answered else found
        self._whole = scan(users=users, commands=self._commands, tree=self.layout.tasks)
        self._show(self._whole, shown)
        kept = min((self.clock.monotonic() - begun) * CGROUPS_COST, CGROUPS_SECONDS)
        self._cgroups_at = begun
        self._cgroups_until = begun + kept if self._whole.answered else 0.0
        return self._whole

    def _show(self, found: ProcessScan, shown: Moment) -> None:
        """Let a pass that asked for more show all shims, too, until one is made for them alone."""
        if found.answered:
            self._everybody.keep(None, found, shown.earliest)
            self._shown_until = shown

    def _pass_for_shims(self, _: None) -> ProcessScan:
        self._shown_until = moment(self.clock)  # before: whoever comes meanwhile counts as later
        return scan(users=users_of(self.layout.state), commands=self._commands, cgroups=False)

    def scan_for_shims(self, anew: bool) -> ProcessScan:  # noqa: FBT001 -- as `Instances` asks
        """Give a pass that shows everybody who runs by now, but not in which cgroups.

        Another containerd may have started an id since a pass that is a moment old. If no pid was
        given out since it began, nobody came, and it still shows all; if few were, only theirs are
        looked at. Who was there then and only executes a shim's program since has no thread of it
        yet, each of which takes a pid: such a one has opened nothing so far, and what is removed is
        removed as the object that was judged.
        """
        then = self._shown_until
        known = self._everybody.get(None, anew=anew)
        if self._shown_until is not then or not known.answered:
            return known  # it was made just now, or is none
        now = moment(self.clock)
        came = given_out(then, now)
        if came is None or len(came) > FEW_PIDS:
            return self._everybody.get(None, anew=True)
        if came:
            users = users_of(self.layout.state)
            known = scan_since(known, came, users=users, commands=self._commands)
            if not known.answered:
                return self._everybody.get(None, anew=True)
        self._shown_until = now
        self._everybody.amend(known)
        return known

    def around(self, scanned: ProcessScan) -> NodeContext:
        """Give the node as a look before an act needs it: with the mounts as they are now."""
        return self._with_mounts(self._node.get(scanned))

    def nearby(self, scanned: ProcessScan) -> NodeContext:
        """Give the same to look at other bundles with: what their files name must not hang us."""
        return self._with_mounts(self._nearby.get(scanned))

    def _with_mounts(self, around: NodeContext) -> NodeContext:
        try:
            around.mounts = BundleMounts(self.points.now(), around.tree) if around.tree else None
        except OSError:
            around.mounts = None
        return around

    def elsewhere(self, tree: bytes) -> tuple[Elsewhere, ...]:
        """Tell what other mount namespaces have mounted in the tree and would lose.

        Raises:
            OSError: It cannot be known.
        """
        if tree not in self._elsewhere:
            self._elsewhere[tree] = TTLCache(self.clock, mounted_elsewhere, ELSEWHERE_SECONDS)
        return self._elsewhere[tree].get(tree)

    def look(self, job: LookJob) -> Looks:
        """Look at bundles as the parent's inspector would, now, in its own node context."""
        around = self._afar.get(job.near)
        if around is None:
            around = self._afar[job.near] = NodeContext(self.layout, (), self.points, near=job.near)
        around.refresh()
        with around.handles:
            return Looks(tuple(look_at_each(around, job.keys, job.annotation_keys)))


class _Node:
    """The node context, a second old at most, with every address a shim was started with.

    Where they could not be read they are read again the next time: no answer is not kept.
    """

    def __init__(
        self, layout: Layout, clock: SystemClock, points: MountPoints, *, near: bool = False
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._points = points
        self._near = near
        self._around: NodeContext | None = None
        self._until = 0.0

    def get(self, scanned: ProcessScan) -> NodeContext:
        addresses = tuple(
            sorted({unescape(shim.address) for shim in scanned.shims if shim.address})
        )
        now = self._clock.monotonic()
        around = self._around
        if around is None or around.addresses != addresses:
            if around is not None:
                around.close()
            around = NodeContext(self._layout, addresses, self._points, near=self._near)
            self._around = around
        elif now >= self._until:
            around.refresh()
        else:
            return around
        self._until = now + FRESH_SECONDS if around.is_whole else now
        return around
