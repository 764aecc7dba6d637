"""A simulated node: processes, bundles, shims, cgroups and a containerd that may die or hang.

This is the world as it *is*; :mod:`reconciler.testing.sight` is what can be seen of it. It knows
the truth about every bundle (:meth:`Node.truth`), which is what the safety tests compare with.
The physics follow what was measured: a killed shim leaves its init alive, a pod's members share
one shim, a bundle directory is the lock of its id, pids come back. Nothing here judges.
"""

from reconciler.model.cgroups import usual_path
from reconciler.model.evidence import Entries, Mount
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Hint, HintKind, Observation, Resync, ResyncKind, Stamp
from reconciler.testing.parts import (
    BOOTED,
    BY_RUNC,
    BY_SHIM,
    EPOCH,
    TICK,
    Bundle,
    Daemon,
    Process,
    Role,
    Truth,
)


class Node:
    """The world. Every method is one thing that may happen to a node; time moves by a tick each.

    Attributes:
        mono: Monotonic seconds.
        wall_offset: How far the wall clock is off.
        bundles: What the state tree holds.
        hidden: Hidden directories: what containerd (or we) left half removed, and whether ours.
        shims: Those processes that are shims, by namespace and group.
        tasks: What containerd would list.
        containers: What it has a record of; that outlives the task.
        daemon_pid: Which process containerd is, or was.
        hears: Whether events reach us.
        reuses_inodes: A new directory may get the inode number of a removed one.
        hints: Events not fetched yet.
    """

    def __init__(self) -> None:
        self.mono = BOOTED
        self.wall_offset = 0.0
        self.bundles: dict[BundleKey, Bundle] = {}
        self.hidden: dict[BundleKey, tuple[Identity, float, bool]] = {}
        self.processes: dict[int, Process] = {}
        self.shims: dict[tuple[str, str], Process] = {}
        self._pids: dict[BundleKey, list[int]] = {}
        self.tasks: set[BundleKey] = set()
        self.containers: set[BundleKey] = set()
        self.daemon = Daemon.UP
        self.daemon_pid = 1
        self.events_arrive = True
        self.reuses_inodes = False
        self.hints: list[Observation] = []
        self._pid = 1000
        self._ino = 100
        self._freed: list[int] = []

    @property
    def stamp(self) -> Stamp:
        """What the clocks read."""
        return Stamp(self.mono, self.mono - BOOTED + EPOCH + self.wall_offset)

    # ------------------------------------------------------------------ the truth

    def truth(self, key: BundleKey) -> Truth:
        """Tell what a bundle really is, whatever anybody can see of it."""
        bundle = self.bundles[key]
        if bundle.creating or self.members(bundle):
            return Truth.ALIVE
        served = self.shim_of(bundle) is not None
        if served and (key in self.tasks or self.daemon is not Daemon.UP):
            return Truth.ALIVE
        return Truth.NEITHER if served or self.helpers_of(key) else Truth.DEAD

    def members(self, bundle: Bundle) -> list[Process]:
        """The living processes of a bundle's container."""
        return [p for p in self._of(bundle.key) if p.role in (Role.INIT, Role.MEMBER)]

    def in_cgroup(self, path: str) -> list[Process]:
        """Everybody in a cgroup or below it, whosever they are."""
        inside = path + "/"
        return [
            p for p in self.processes.values() if p.cgroup and (p.cgroup + "/").startswith(inside)
        ]

    def served_by(self, shim: Process) -> list[Bundle]:
        """The bundles that a shim serves, or would by their names."""
        return [one for one in self.bundles.values() if _serves(shim, one)]

    def shim_of(self, bundle: Bundle) -> Process | None:
        """The living shim that serves a bundle; one that came after its init does not have it."""
        shim = self.shims.get((bundle.key.namespace, bundle.group))
        return shim if shim is not None and _has(shim, bundle) else None

    def may_have_shim(self, key: BundleKey) -> bool:
        """Whether a shim lives that was started for its group, or for an earlier one so named."""
        group = (key.namespace, self.bundles[key].group)
        return group in self.shims or any(shim.key == key.task for shim in self.shims.values())

    def helpers_of(self, key: BundleKey) -> list[Process]:
        """The helpers at work on a bundle."""
        return [p for p in self._of(key) if p.role is Role.HELPER]

    def _of(self, key: BundleKey) -> list[Process]:
        return [self.processes[pid] for pid in self._pids.get(key, ())]

    # ------------------------------------------------------------------ tasks, in order

    def create(
        self,
        key: BundleKey,
        group: str | None = None,
        *,
        runtime: str = "runc",
        cgroup: str | None = None,
        asked: str | None = None,
    ) -> Bundle:
        """Begin a creation: containerd makes the directory and starts the helper.

        Raises:
            ValueError: The name is taken, or containerd is not there to do it.
        """
        if key in self.bundles or self.daemon is not Daemon.UP:
            raise ValueError(f"{key} cannot be created now")
        self._tick()
        if not (self.reuses_inodes and self._freed):
            self._ino += 1
            self._freed.append(self._ino)
        bundle = self.bundles[key] = Bundle(
            key,
            Identity(1, self._freed.pop(), 1),
            group or key.id,
            self.stamp.wall,
            runtime=runtime,
            cgroup_path=cgroup or usual_path(key),
            asked_path=asked or cgroup or usual_path(key),
        )
        bundle.mounts.append(Mount("rootfs", 10_000 + self._ino, "overlay"))
        self.containers.add(key)
        self._begin(Role.HELPER, key)
        self._hint(key)
        return bundle

    def proceed(self, key: BundleKey) -> None:
        """Take a creation one step on: shim, then init. Helper and shim need no containerd."""
        bundle = self.bundles[key]
        if not bundle.creating:
            return
        self._tick()
        if self.helpers_of(key):
            if self.shim_of(bundle) is None:
                self._begin(Role.SHIM, key.task, group=bundle.group)
            bundle.files |= BY_SHIM
            self._end_helpers(key)
            bundle.creating = self.daemon is not Daemon.DOWN  # nobody would ask it for a task
        else:
            bundle.creating = False
            if self.shim_of(bundle) is not None:
                self._make_init(bundle)
        bundle.mtime = self.stamp.wall
        self._hint(key)

    def start(self, key: BundleKey, group: str | None = None) -> Bundle:
        """Create a task and let it run."""
        bundle = self.create(key, group)
        self.proceed(key)
        self.proceed(key)
        return bundle

    def fork(self, key: BundleKey) -> None:
        """Let a container start another process."""
        self._tick()
        if self.members(self.bundles[key]):
            bundle = self.bundles[key]
            self._begin(Role.MEMBER, key, cgroup=bundle.cgroup_path).parent = self._parent(bundle)

    def stop(self, key: BundleKey) -> None:
        """Let every process of a container end in order; the shim stays."""
        self._tick()
        for process in self.members(self.bundles[key]):
            self._end(process)

    def delete(self, key: BundleKey) -> None:
        """Let containerd delete a stopped task: in order, the directory last."""
        bundle = self.bundles[key]
        if self.daemon is not Daemon.UP or self.members(bundle) or bundle.creating:
            return
        self._tick()
        self.tasks.discard(key)
        shim = self.shim_of(bundle)
        if shim is not None and [one.key for one in self.served_by(shim)] == [key]:
            self._end(shim)
        self.remove(key)
        self.containers.discard(key)

    # ------------------------------------------------------------------ what goes wrong

    def kill_shim(self, key: BundleKey) -> None:
        """Kill the shim that serves a bundle; its init lives on."""
        shim = self.shim_of(self.bundles[key])
        self._tick()
        if shim is not None:
            self._end(shim)

    def kill_init(self, key: BundleKey, *, alone: bool = False) -> None:
        """Kill a container's init, and with it every process unless its pids are the host's."""
        self._tick()
        for process in self.members(self.bundles[key]):
            if process.role is Role.INIT or not alone:
                self._end(process)

    def lose_records(self, key: BundleKey) -> None:
        """Let containerd lose all it knows of a bundle, but not of one that it is making now."""
        if self.daemon is Daemon.UP and not self.bundles[key].creating:
            self.tasks, self.containers = self.tasks - {key}, self.containers - {key}

    def crash(self, key: BundleKey) -> None:
        """Kill shim and container; containerd, if it lives, forgets the task."""
        self.kill_shim(key)
        self.kill_init(key)
        self.bundles[key].creating = False
        self._end_helpers(key)
        if self.daemon is Daemon.UP:
            self.tasks.discard(key)

    def react(self, key: BundleKey) -> None:
        """Let containerd begin to clean up after a lost shim (`shim delete`)."""
        bundle = self.bundles[key]
        if self.daemon is Daemon.UP and self.shim_of(bundle) is None and not bundle.creating:
            self._tick()
            self._begin(Role.HELPER, key)

    def finish_reaction(self, key: BundleKey, *, fails: bool) -> None:
        """Let the helper end: it killed what was left; the directory goes, or stays for ever."""
        bundle = self.bundles[key]
        if not self.helpers_of(key) or bundle.creating:
            return
        self._tick()
        self._end_helpers(key)
        if self.daemon is not Daemon.UP:
            return
        self.tasks.discard(key)
        if not fails:
            self.kill_init(key)
            self.remove(key)

    def kill(self, pid: int) -> None:
        """Kill one process of a container."""
        self._tick()
        self._end(self.processes[pid])

    def reuse_pid(self, key: BundleKey, cgroup: str = "/user.slice") -> None:
        """Give the pid that a dead bundle names to somebody else, who is in that cgroup."""
        bundle = self.bundles[key]
        self._tick()
        if bundle.init_pid and bundle.init_pid not in self.processes:
            stranger = BundleKey("", "stranger")
            self.processes[bundle.init_pid] = Process(
                bundle.init_pid, Role.STRANGER, stranger, self.mono, cgroup
            )

    def lose_file(self, key: BundleKey, entry: Entries) -> None:
        """Remove one of a bundle's files."""
        self._tick()
        bundle = self.bundles[key]
        bundle.files &= ~entry
        bundle.mtime = self.stamp.wall
        self._hint(key)

    def lose_runc_state(self, key: BundleKey) -> None:
        """Remove runc's state directory."""
        self._tick()
        self.bundles[key].runc_state = False

    def mount(self, key: BundleKey, path: str = "extra") -> None:
        """Mount something of somebody else's inside a bundle."""
        self._tick()
        self._ino += 1
        self.bundles[key].mounts.append(Mount(path, 10_000 + self._ino, "ext4"))
        self._hint(key, HintKind.MOUNT)

    def unmount(self, key: BundleKey) -> None:
        """Take foreign mounts away again."""
        self._tick()
        bundle = self.bundles[key]
        bundle.mounts = [mount for mount in bundle.mounts if mount.path == "rootfs"]
        self._hint(key, HintKind.MOUNT)

    def hide(self, key: BundleKey, name: str, *, ours: bool) -> None:
        """Rename a bundle to a hidden name and leave it: a removal that was cut short."""
        self._tick()
        bundle = self.bundles.pop(key)
        self.tasks.discard(key)
        hidden = key._replace(id=name)
        self.hidden[hidden] = (bundle.identity, self.stamp.wall, ours)
        self._hint(key)

    def remove(self, key: BundleKey) -> None:
        """Take a bundle away, with all that is named by its id."""
        self._tick()
        bundle = self.bundles.pop(key, None)
        if bundle is not None:
            self._freed.append(bundle.identity.ino)
            self._hint(key)

    def set_daemon(self, daemon: Daemon, *, sweeps: bool = True) -> None:
        """Start, stop, hang or wake containerd.

        At its start it takes over every task whose shim it can reach, and removes what is dead
        if it ``sweeps``.
        """
        self._tick()
        before, self.daemon = self.daemon, daemon
        self.daemon_pid += before is Daemon.DOWN and daemon is not before
        if before is Daemon.DOWN and daemon is not Daemon.DOWN:
            self._take_over(sweeps=sweeps)
        if daemon is not before and self.events_arrive:
            self.hints.append(Resync(ResyncKind.CONTAINERD))

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall_offset += seconds

    # ------------------------------------------------------------------ small things

    def _take_over(self, *, sweeps: bool) -> None:
        self.tasks.clear()
        for bundle in list(self.bundles.values()):
            shim = (bundle.key.namespace, bundle.group) in self.shims  # whoever answers, it asks
            if shim and Entries.ADDRESS in bundle.files:
                self.tasks.add(bundle.key)
            elif sweeps and self.truth(bundle.key) is Truth.DEAD:
                self.remove(bundle.key)

    def _make_init(self, bundle: Bundle) -> None:
        init = self._begin(Role.INIT, bundle.key, cgroup=bundle.cgroup_path)
        bundle.files |= BY_RUNC
        bundle.init_pid, bundle.init_started = init.pid, init.started
        init.parent = self._parent(bundle)
        bundle.runc_state = bundle.state_is_its = bundle.cgroup = True
        self.tasks.add(bundle.key)

    def _parent(self, bundle: Bundle) -> int:
        shim = self.shim_of(bundle)
        return 0 if shim is None else shim.pid

    def _begin(
        self, role: Role, key: BundleKey, cgroup: str | None = None, group: str = ""
    ) -> Process:
        self._pid += 1
        while self._pid in self.processes:
            self._pid += 1
        process = Process(self._pid, role, key, self.mono, cgroup, group)
        self.processes[process.pid] = process
        self._pids.setdefault(key, []).append(process.pid)
        if role is Role.SHIM:
            self.shims[key.namespace, group] = process
            for bundle in self.served_by(process):
                if bundle.key != key:
                    bundle.unheard = self.mono  # nothing in its own directory tells of it
        return process

    def _end(self, process: Process) -> None:
        del self.processes[process.pid]
        self._pids[process.key].remove(process.pid)
        if process.role is Role.INIT:
            self._hint(process.key, HintKind.INIT_EXIT)
        elif process.role is Role.SHIM:
            del self.shims[process.key.namespace, process.group]
            for bundle in self.served_by(process):
                if not self.helpers_of(bundle.key):
                    bundle.creating = False  # the call that was to make its task breaks
                self._hint(bundle.key, HintKind.SHIM_EXIT)

    def _end_helpers(self, key: BundleKey) -> None:
        for process in self.helpers_of(key):
            self._end(process)

    def _hint(self, key: BundleKey, kind: HintKind = HintKind.CHANGED) -> None:
        if self.events_arrive:
            self.hints.append(Hint(key, kind))
        elif key in self.bundles:
            self.bundles[key].unheard = self.mono

    def _tick(self) -> None:
        self.mono += TICK


def _has(shim: Process, bundle: Bundle) -> bool:
    has_init = bundle.init_pid and bundle.state_is_its  # another containerd's came when it came
    return not has_init or shim.started < bundle.init_started


def _serves(shim: Process, bundle: Bundle) -> bool:
    return shim.key.namespace == bundle.key.namespace and shim.group == bundle.group
