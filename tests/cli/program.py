"""The program as a process, for tests: how it is called, and what ends it whatever happens."""

import os
import pty
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reconciler.demo.node import DemoNode

PROGRAM = [sys.executable, "-m", "reconciler"]
SECONDS = 50
_NOWHERE = tempfile.TemporaryDirectory(prefix="locks")

acts = pytest.mark.skipif(os.geteuid() != 0, reason="a guard refuses to act without privileges")


def environment(node: DemoNode | None = None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    top = _NOWHERE.name if node is None else os.fsdecode(node.top)
    disk = {"CONTAINERD_RECONCILER_CONTAINERD_ALLOW_DISK": "true"}  # where /tmp is one
    return {**kept, **disk, "RECONCILER_LOCK_DIR": f"{top}/locks", "LC_ALL": "C.UTF-8"}


def tree(node: DemoNode) -> list[str]:
    """Name the demo's tree, in which no containerd is asked."""
    layout = node.layout
    return [
        *("--state", os.fsdecode(layout.state), "--root", os.fsdecode(layout.root)),
        "--without-containerd",
    ]


def program(
    node: DemoNode | None, *args: str, command: Sequence[str] = PROGRAM
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *args],
        env=environment(node),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def timed(*args: str) -> float:
    """Seconds of a processor that it takes: others may have it meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert program(None, *args).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class running:  # noqa: N801 - reads like a function
    """A run of the program that is ended, whatever happens."""

    def __init__(self, node: DemoNode, *args: str) -> None:
        self._child = subprocess.Popen(
            [*PROGRAM, *args],
            env=environment(node),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self._child

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        if self._child.stderr is not None:
            self._child.stderr.close()


def wait_for(child: subprocess.Popen[str], text: str) -> None:
    assert child.stderr is not None
    seen: list[str] = []
    for line in child.stderr:  # pytest's timeout is the deadline
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"ended without {text!r}:\n{''.join(seen)}")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def wait_until_it_catches(child: subprocess.Popen[str], number: signal.Signals) -> None:
    """Wait until a program has a handler for a signal, as the kernel tells."""
    deadline = time.monotonic() + SECONDS
    status = Path(f"/proc/{child.pid}/status")
    while True:
        caught = status.read_text().partition("SigCgt:")[2].split()[0]
        if int(caught, 16) >> (number - 1) & 1:
            return
        assert child.poll() is None, "it has ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def on_terminal(
    node: DemoNode | None, args: list[str], typed: bytes, **variables: str
) -> tuple[int, bytes]:
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal to be had: {error}")
    os.set_inheritable(theirs, True)
    child = subprocess.Popen(
        [*PROGRAM, *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(node), "TERM": "xterm", "COLUMNS": "200", **variables},
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, typed)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # the other end is closed: EIO
        pass
    finally:
        os.close(ours)
    return child.wait(timeout=SECONDS), said
