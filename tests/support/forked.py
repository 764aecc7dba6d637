"""Run something in a forked child that may give up what it cannot have back.

    assert in_a_child(body) == expected

Unlike `tests.support.mountns` it stays in the machine's namespaces. The result must be picklable; a
failure or a skip in the child is one here.
"""

import errno
import os
import pickle
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

REFUSED = {errno.EACCES, errno.EPERM}


def in_a_child(body: Callable[[], T]) -> T:
    """Run ``body`` in a forked child and give its result."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        _child(body, writable)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not answer:
        pytest.fail(f"the child died without a word: {os.waitstatus_to_exitcode(status)}")
    verdict, value = pickle.loads(answer)  # noqa: S301 -- written by our own child
    if verdict == "skip":
        pytest.skip(value)
    if verdict == "fail":
        pytest.fail(f"in the child:\n{value}", pytrace=False)
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
    try:
        try:
            answer: tuple[str, object] = ("ok", body())
        except pytest.skip.Exception as skipped:
            answer = ("skip", str(skipped))
        except BaseException:  # noqa: BLE001 -- whatever it was, the parent reports it
            answer = ("fail", traceback.format_exc())
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
    finally:
        os._exit(0)
