"""Hooks: have the runtime delete what it knows of a dead container, so that poststop hooks run.

Somebody asked to be called when the container is gone (a network plugin frees its addresses there),
and only the runtime that made it can do that: runc, crun or youki, which are called alike. Each
knows states of its own form alone, and says "deleted" of any other's.

Everything else it would remove is removed by our own cleaner, so it is called for this alone; a
process costs ten times as much as all of them. Hooks that did not run must not be lost silently:
the bundle stays blocked (design section 3, step 2).

The runtime is not ended with us: runc drops its state first and runs the hooks then, so cutting it
off would lose them. It ends by itself, or by the deadline here.
"""

import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from reconciler.model.evidence import CgroupState
from reconciler.model.ids import escape, unescape
from reconciler.model.outcome import BlockReason
from reconciler.worker.blocked import Blocked
from reconciler.worker.objects import ObjectId, find
from reconciler.worker.step_log import Kept, Tally

_SAID: Final = 300  # bytes of what runc said


def pick_runc(named: str, configured: str, keeper: str = "runc") -> str:
    """Choose the binary: the one the bundle names if only root can have put it there.

    A name found in a file is not run as root just because it is there; k3s and others keep runc
    where no PATH leads, so it is not ignored either. The configured binary is runc: where another
    runtime (``keeper``) wrote the state, that one is looked up by its own name.
    """
    usual = configured if keeper == "runc" else keeper
    if not named.startswith("/"):
        return usual
    try:
        is_file = stat.S_ISREG(os.stat(named).st_mode)
    except OSError:
        return usual
    return named if is_file and belongs_to(os.fsencode(named), 0) else usual


def belongs_to(path: bytes, *owners: int) -> bool:
    """Return whether nobody but these users can change what is at a path or put another there."""
    try:
        parts = os.path.realpath(path, strict=True).split(b"/")
        for number in range(1, len(parts) + 1):
            found = os.stat(b"/".join(parts[:number]) or b"/")
            others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if found.st_uid not in owners or (others and not found.st_mode & stat.S_ISVTX):
                return False
    except OSError:
        return False
    return True


def refuse_strangers(root: bytes, id_: str) -> None:
    """Raise Blocked if others than root could have written a state, and the hooks in it.

    They would run as root.
    """
    state = root + b"/" + unescape(id_)
    try:
        paths = [state, *(state + b"/" + name for name in os.listdir(state))]
    except OSError:
        paths = []
    if not (paths and all(belongs_to(path, 0, os.geteuid()) for path in paths)):
        detail = f"others than root can write {escape(root)}/{id_}; its hooks are not run"
        raise Blocked(BlockReason.HOOKS, id_, detail)


class Call(NamedTuple):
    """How a runtime is called: ``runc --root ROOT delete --force ID``.

    Attributes:
        runc: The binary's name or path.
        root: The namespace's; it holds the state directory of the id.
        state: The state directory that was shown to be the bundle's.
        seconds: How long it may take.
        refuse: Asked right before: raises Blocked if somebody lives in a cgroup of it, who would
            be killed.
    """

    runc: str
    root: bytes
    id: str
    state: ObjectId
    seconds: float
    refuse: Callable[[], None]


def refuse_populated(state: CgroupState, id_: str) -> None:
    """Raise Blocked unless nobody is in the cgroups that were looked at right now."""
    if state in {CgroupState.POPULATED, CgroupState.NONE}:
        detail = f"its cgroup: {state.value}; poststop hooks wait"
        raise Blocked(BlockReason.CGROUP, id_, detail)


def run_hooks(call: Call, tally: Tally) -> str:
    """Call ``runc --root ROOT delete --force ID`` and wait for it.

    runc takes the container by its name, and would end another one that has this name by then. So
    the state is compared right before. It is the lock of the name: runc makes no container while a
    state of its name stands. What remains is that somebody else deletes this very state and makes
    a container of the name anew, both in the milliseconds that runc takes to start and read.

    Raises:
        Kept: runc has deleted the container and complained: a hook failed. It runs no more hooks
            then, ends with 0 all the same (1.1), and cannot be asked again.
        Blocked: It is not installed, failed, or has not ended in time; the state is another one
            than was judged; or a cgroup of it is not empty.
    """
    id_, state = call.id, call.root + b"/" + unescape(call.id)
    binary = _find(call.runc)
    if binary is None:
        name = escape(os.fsencode(call.runc))
        raise Blocked(BlockReason.HOOKS, name, "not found; poststop hooks need it")
    name = escape(os.fsencode(os.path.basename(binary)))
    if find(state) != call.state:
        raise Blocked(BlockReason.CHANGED, id_, f"{name}'s state is another one than was judged")
    call.refuse()
    command = [os.fsencode(binary), b"--root", call.root, b"delete", b"--force", unescape(id_)]
    with os.fdopen(os.memfd_create("runc"), "rb") as said:
        code = _call(command, said.fileno(), call.seconds)
        words = escape(os.pread(said.fileno(), _SAID, 0).strip())
    if code is None:
        detail = f"{name} delete has not ended after {call.seconds:g} s"
        raise Blocked(BlockReason.HOOKS, id_, detail)
    if find(state) == call.state:  # a runtime that does not know the state ends well, too
        raise Blocked(BlockReason.HOOKS, id_, f"{name} delete failed: {words or _ended(code)}")
    tally.others = True
    if code != 0 or words:
        raise Kept(f"poststop hooks failed: {words or _ended(code)}")
    return f"{name} ran the poststop hooks"


def _ended(code: int) -> str:
    return f"it ended with {code} and left its state" if code == 0 else f"exit code {code}"


def _find(name: str) -> str | None:
    """Look a program up in PATH, unless its name is a path (shutil would cost 5 ms to load)."""
    places = [""] if "/" in name else os.get_exec_path()
    found = (os.path.join(place, name) for place in places)
    return next((path for path in found if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def _call(command: list[bytes], said: int, seconds: float) -> int | None:
    """Run a command to its end; None if it had to be ended."""
    import subprocess  # here: few bundles have hooks, and every worker would pay for it

    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", start_new_session=True
    ) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
