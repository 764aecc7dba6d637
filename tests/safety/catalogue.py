"""Every fault the program must survive, and what is expected of it then: the rows of a table.

A test shows a fault if it is marked with the fault's name, `@pytest.mark.fault("busy rootfs")`; a
test may show several, and a fault may need several tests. `tests.safety.table` joins the two.
"""

from typing import Final

INVARIANTS: Final = {
    "I1": ("data behind mounts, against attackers who mount, unmount and swap", "none unlinked"),
    "I2": ("every removal", "relative to a handle; no path reaches a destructive call"),
    "I3": ("a tree on another mount or filesystem than the state root's", "left alone; a guard"),
    "I4": ("foreign mount, pid and time namespaces", "enforcing refused (77), looking works"),
    "I5": ("any one witness dropped or silent", "never `leftover`"),
    "I6": ("live, stopped, starting and shared-shim tasks beside every fault", "untouched"),
    "I7": ("`unknown` for 30 days", "still `unknown`"),
    "I8": ("the judged bundle exchanged before each step", "only the judged object is removed"),
    "I9": ("SIGKILL at the n-th of every call", "the next run converges, nothing lost"),
    "I10": ("a second run over a clean tree", "no mutating call"),
    "I11": ("scan, observe, dry run, replay", "no mutating call at all"),
    "I12": (
        "stacks of mounts, symlinks in the place of one",
        "plain umount, not followed, bounded",
    ),
    "I13": ("a foreign mount in the bundle or in its rootfs", "blocked before anything, named"),
    "I14": ("cgroups: nested, populated, named by somebody else", "rmdir alone, only its own"),
    "I15": ("signals", "through a verified pidfd alone, where configured"),
    "I16": ("another watcher; events lost, repeated, reordered", "the same end"),
    "I17": ("20,000 changes while stopped; overflow; root replaced", "one relist, nothing lost"),
    "I18": ("file work that hangs", "loop lag < 250 ms, health answers, SIGTERM ends in time"),
    "I19": ("100 rounds of bundles that come and go", "handles, memory, series do not grow"),
    "I20": ("a second instance; a killed first one", "refused (77); no lock is left"),
    "I21": ("bad configuration, dangerous roots", "refused with file, key, reason"),
    "I22": ("what was changed, counted three ways", "strace = records = metrics"),
    "I23": ("names that are bytes", "removed or reported, never misread"),
    "I24": ("bundles of other runtimes", "only looked at"),
    "I25": ("FIFOs, devices and sockets in a bundle", "never opened"),
}
"""By number: what happens, and what must hold."""

MOUNTS: Final = {
    "idle overlay": "cleaned",
    "busy rootfs": "blocked, holder named, nothing detached; cleaned once free",
    "stacked mounts": "all taken off, to a bound",
    "foreign mount": "blocked, named, data kept",
    "same-filesystem bind": "seen as a mount, data kept",
    "file bind over config.json": "blocked, file kept",
    "symlink inside": "unlinked, target kept",
    "id or namespace replaced by a symlink": "not followed, target kept",
    "mount or symlink appearing mid-walk": "not entered",
    "odd names": "bytes all the way",
    "dead FUSE on rootfs": "taken off without a wait; others go on",
    "frozen filesystem under work": "others go on; an end is an end; cleaned once thawed",
    "slow filesystem": "later, nothing else",
    "read-only filesystem": "blocked: read-only",
    "immutable file": "blocked, file named; cleaned once it may",
    "state filesystem full (bytes, inodes)": "cleaned all the same",
    "depth 3,000": "cleaned with few handles",
    "100,000 entries": "cleaned",
    "FIFO, socket, device": "unlinked, never opened",
    "hidden .id": "reported; only our own is finished",
    ".id existing when we rename": "does not matter, and stays",
    "id created again between look and action": "the new task keeps its name and data",
    "EIO on one entry": "blocked: i/o error; cleaned by the next attempt",
    "EBUSY twice, then success": "blocked, blocked, cleaned",
    "openat2 ENOSYS, EAGAIN": "guard refuses; blocked and tried again",
    "cgroup populated": "orphaned, left alone",
    "cgroup frozen": "its processes live: left alone",
    "cgroup read-only": "a warning; the bundle goes",
}

LIVENESS: Final = {
    "live container": "untouched",
    "stopped task": "untouched, however long",
    "shared pod shim with a dead member": "untouched",
    "shim killed, init alive": "orphaned: reported, untouched",
    "containerd stopped, containers live": "untouched",
    "containerd SIGSTOPped": "no answer: nothing removed",
    "containerd in its start-up sweep": "no answer: nothing removed",
    "bundle being created slowly": "untouched",
    "init.pid of a reused PID": "a stranger is nobody's init, and is left alone",
    "init.pid empty, text, negative, 10 MB, symlink, FIFO": "names nobody; the rest decides",
    "torn state.json": "init.pid speaks; a living init is seen",
    "host-pid container whose init is gone": "its cgroup is populated: untouched",
    "sandbox without task": "containerd's, untouched while its shim lives",
    "alien shim": "unknown: observed only",
    "wedged shim": "alive: untouched",
    "hidepid /proc": "no answer: nothing removed",
    "missing CAP_SYS_PTRACE": "a guard names it",
}

WATCHING: Final = {
    "overflow": "one relist, nothing lost",
    "no inotify instance left": "steps down to polling, says so",
    "no watch left": "steps down, says so",
    "root absent, created later": "noticed",
    "root deleted": "noticed when it is back",
    "root renamed": "noticed",
    "root unmounted": "noticed",
    "root over-mounted": "noticed, and when it is bared",
    "mkdir race": "no directory is missed",
    "1,000 creations and deletions a second": "nothing lost",
}

HOSTILE: Final = {
    "argv of gigabytes": "not read",
    "a process whose cmdline cannot be read at all": "not asked",
    "a pretended shim in its own user and mount namespace": "never the guards' reference",
    "argv that says shim, with any namespace and id": "nobody's shim: what is dead is cleaned",
    "flock on all files it may read, beside a pile": "holds nothing up",
    "very many processes": "cost their reading",
    "a million open descriptors": "the search for a holder has a budget",
    "mounts in namespaces of anybody's own": "likewise",
    "megabytes of cgroup paths": "cost bundles whose id is in one, and those of no known cgroup",
    "300,000 POSIX locks": "containerd found by its descriptors; the list has a budget",
}
"""By an unprivileged user, beside a pile that is being cleaned."""

SICK: Final = {
    "one process in D state": "named; only what it could serve is unknown",
    "a file names a place on a dead filesystem": "no answer, by name; the loop turns, others go on",
    "a shared directory on a dead filesystem": "no answer; the loop turns, an end is an end",
    "wedged shims beside dead bundles": "named; the dead are cleaned, the wedged left alone",
    "containerd hung, slow, restarting in a loop": "no answer: nothing removed; goes on after it",
    "a wrong root with a stale database": "proves nothing: nothing removed",
}

DAEMON: Final = {
    "SIGKILL anywhere": "the next run converges",
    "SIGTERM mid-removal": "stops at an entry in < 5 s; the next run goes on",
    "SIGTERM with a stuck worker": "ends in < 5 s",
    "OOM kill": "the worker's job fails with its signal, and is done by the next",
    "pids.max": "no worker can be made: failed, nothing lost, done later",
    "RLIMIT_NOFILE 32": "lives and looks; ends in order",
    "second instance": "refused (77), with the first one's pid",
    "bad configuration at start": "refused (78) with file, key, reason",
    "bad configuration on reload": "the old one stays; log, metric, status say so",
    "NOTIFY_SOCKET missing, stale, full": "holds nothing up",
    "1,000 slow connections, a 1 MB header": "no cleanup is delayed",
    "stale unix socket": "taken over",
    "port in use": "told; cleaning goes on; taken once it is free",
    "log pipe nobody reads": "lines are dropped and counted",
    "wall clock jumps": "make nothing older",
    "mtime in the future": "is young, and no longer than that",
    "journal truncated": "the whole lines replay",
    "journal of a newer version": "refused (65), with what to do",
    "journal of 1 GB": "replays in constant memory (at 1 GB: `make soak`)",
    "disk full under the journal": "records are dropped and counted, cleaning goes on",
    "everything at once": "one process from begin to end, nobody is hurt",
}

OWNERSHIP: Final = {
    "a container in or below another's cgroup": "lives; whose it is, is said",
    "a reused pid whose cgroup path contains the id": "lives, whatever the names say",
    "the same name in another containerd": "nothing of it is ended",
    "residue replaced between look and removal": "the new object lives, whichever kind it is",
    "an id started by another containerd while hooks run": "its state and container live",
    "runc's state of another tree's bundle": "kept, named; its hooks are not run",
    "FIFOs of a client that comes later": "kept until nobody waits so long",
    "two removed at once that share a thing": "it goes with the later one",
    "a poststop hook that fails": "a warning in table, JSON, log and metric",
    "a cgroup made by another driver than config.json asks": "lives, though nobody sees that one",
    "an id that is a word of somebody's cgroup path": "delays only where nothing names its cgroup",
    "an id that lives in another namespace": "is told from this one by its own shim and cgroup",
    "the crash matrix beside another containerd": "nothing of its living changes, our dead go",
    "an id started anew between any two steps": "nothing of the new task changes",
}

CLIENTS: Final = {
    "flock on every file it may read": "it may read none of ours",
    "200 slow and 200 fast connections": "health is answered in time, in bounded memory",
    "HTTP garbage": "each gets its answer; nothing fails, no handle is lost",
}

POLICY: Final = {
    "every listener raising at every kind of value": "all else goes on; counted, said once",
}

CONTROLS: Final = {
    "control: shutil.rmtree": "the race reports a loss",
    "control: lazy detach first": "the race reports a loss",
    "control: st_dev only": "the race reports a loss",
    "control: any object of that name": "the race reports a loss",
    "control: look for a mount, then open": "the race reports a loss",
    "control: no second look": "the harness reports a loss",
    "control: no second look, in histories": "the histories report a loss",
    "control: ownership by place alone": "the histories report a loss",
    "control: a loop that is held up": "the lag is measured",
}
"""The same harness with what must not be done: each has to report a loss."""

ROWS: Final = {
    **{number: f"{what}: {then}" for number, (what, then) in INVARIANTS.items()},
    **MOUNTS,
    **LIVENESS,
    **WATCHING,
    **HOSTILE,
    **SICK,
    **DAEMON,
    **OWNERSHIP,
    **CLIENTS,
    **POLICY,
    **CONTROLS,
}
"""Every fault by the name a test is marked with, and what is expected."""
