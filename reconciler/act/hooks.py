"""Hooks: have runc delete what it knows of a dead container, so that its poststop hooks run.

Somebody asked to be called when the container is gone (a network plugin frees its addresses there),
and only runc can do that. Everything else runc would remove is removed by our own hands, so it is
called for this alone; a process costs ten times as much as all of them. Hooks that did not run must
not be lost silently: the bundle stays blocked (design section 3, step 2).

runc is not ended with us: it drops its state first and runs the hooks then, so cutting it off would
lose them. It ends by itself, or by the deadline here.
"""

import os
import stat
from typing import Final

from reconciler import kernel
from reconciler.act.blocked import Blocked
from reconciler.act.record import Tally
from reconciler.model.ids import show
from reconciler.model.outcome import BlockReason
from reconciler.probe.documents import parse_state

_STATE_LIMIT: Final = 8 << 20
_SAID: Final = 300  # characters of what runc said


def pick_runc(named: str, configured: str) -> str:
    """Choose the binary: the one the bundle names if only root can have put it there.

    A name found in a file is not run as root just because it is there; k3s and others keep runc
    where no PATH leads, so it is not ignored either.
    """
    if not named.startswith("/"):
        return configured
    try:
        is_file = stat.S_ISREG(os.stat(named).st_mode)
    except OSError:
        return configured
    return named if is_file and belongs_to(os.fsencode(named), 0) else configured


def belongs_to(path: bytes, *owners: int) -> bool:
    """Tell whether nobody but these users can change what is at a path or put another there."""
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


def is_torn(runc_state: bytes) -> bool:
    """Tell whether runc's state of the container is there and cannot be read.

    Then nobody knows whether it had hooks, and runc could not run them either.
    """
    try:
        directory = os.open(runc_state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        data = kernel.read_beneath(directory, b"state.json", _STATE_LIMIT)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    finally:
        os.close(directory)
    return parse_state(data) is None


def run_hooks(runc: str, root: bytes, id_: bytes, seconds: float, tally: Tally) -> str:
    """Call ``runc --root ROOT delete --force ID`` and wait for it.

    Args:
        runc: The binary's name or path.
        root: runc's root for the namespace, which holds the state directory of the id.
        id_: The container.
        seconds: How long it may take.
        tally: Told that something was done.

    Raises:
        Blocked: It is not installed, failed, or has not ended in time; or others than root could
            have written the state, and with it the hooks that would run as root.
    """
    if not belongs_to(b"/".join((root, id_, b"state.json")), 0, os.geteuid()):
        detail = f"others than root can write {show(root)}/{show(id_)}; its hooks are not run"
        raise Blocked(BlockReason.HOOKS, id_, detail)
    binary = _find(runc)
    if binary is None:
        raise Blocked(BlockReason.HOOKS, os.fsencode(runc), "not found; poststop hooks need it")
    said = os.memfd_create("runc")
    try:
        code = _call(
            [os.fsencode(binary), b"--root", root, b"delete", b"--force", id_], said, seconds
        )
        words = os.pread(said, _SAID, 0)
    finally:
        os.close(said)
    if code is None:
        raise Blocked(BlockReason.HOOKS, id_, f"runc delete has not ended after {seconds:g} s")
    if code != 0:
        reason = show(words.strip()) or f"exit code {code}"
        raise Blocked(BlockReason.HOOKS, id_, f"runc delete failed: {reason}")
    tally.others = True
    return "runc ran the poststop hooks"


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
