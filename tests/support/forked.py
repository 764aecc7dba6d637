"""Run something in a forked child that may give up what it cannot have back.

    assert in_a_child(body) == expected

Unlike `tests.support.mountns` it stays in the machine's namespaces. The result must be picklable; a
failure or a skip in the child is one here. All that the child has started ends with it.
"""

import errno
import gc
import os
import pickle
import select
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.support.trees import Tree

T = TypeVar("T")

SECONDS: Final = 50.0  # less than pytest's own timeout, so that the reason is told
REFUSED = {errno.EACCES, errno.EPERM}


def in_a_child(body: Callable[[], T], timeout: float = SECONDS) -> T:
    """Run ``body`` in a forked child and give its result; it must leave no process behind."""
    readable, writable = os.pipe()

    def child() -> None:
        os.close(readable)
        _child(body, writable)

    tree = Tree(child)
    os.close(writable)
    try:
        answer = _read_all(readable, tree.pidfd, time.monotonic() + timeout)
    finally:
        end = tree.end()
        os.close(readable)
    if answer is None:
        pytest.fail(f"still running after {timeout} s")
    if not answer:
        pytest.fail(f"the child died without a word: {end.status}")
    verdict, value = pickle.loads(answer)  # noqa: S301 -- written by our own child
    if verdict == "skip":
        pytest.skip(value)
    if verdict == "fail":
        pytest.fail(f"in the child:\n{value}", pytrace=False)
    if end.killed:
        pytest.fail(f"the child left processes behind: {end.killed}")
    result: T = value
    return result


def outcome(call: Callable[[], object]) -> int:
    """Make a call; give 0, or the number of its error."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def status_of(pid: int | str = "self") -> dict[str, int]:
    """Give the capability sets (as bit masks) and NoNewPrivs of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    sets = {
        name: int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    }
    return sets | {"NoNewPrivs": int(fields["NoNewPrivs"])}


def mask(numbers: Iterable[int]) -> int:
    """Make a bit mask of numbers."""
    return sum(1 << number for number in numbers)


def _child(body: Callable[[], object], writable: int) -> None:
    # What thousands of tests before have left is not looked through again while time is measured.
    gc.freeze()
    try:
        answer: tuple[str, object] = ("ok", body())
    except pytest.skip.Exception as skipped:
        answer = ("skip", str(skipped))
    except BaseException:  # noqa: BLE001 -- whatever it was, the parent reports it
        answer = ("fail", traceback.format_exc())
    with os.fdopen(writable, "wb") as pipe:
        pipe.write(pickle.dumps(answer))


def _read_all(readable: int, pidfd: int, deadline: float) -> bytes | None:
    """Read until the child has said all, or is gone; None if neither came in time.

    Waiting for the end of the pipe alone would wait for a grandchild that inherited it.
    """
    pieces: list[bytes] = []
    while True:
        wait = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([readable, pidfd], [], [], wait)
        if not ready:
            return None
        piece = os.read(readable, 1 << 16) if readable in ready else b""
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
