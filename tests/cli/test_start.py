"""What a command loads before it is of use: libraries are counted, for time tells nothing here.

Each takes a share of every start, and of every test that starts one. A line of this table changes
where a command needs more, or has learnt to need less.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cli.program import SECONDS, environment

HEAVY: Final = {
    *("asyncio", "google.protobuf", "grpclib", "h11", "http.server", "inotify_simple", "msgspec"),
    *("prometheus_client", "rich.console", "structlog", "tomli", "watchfiles"),
    *("reconciler.assembly", "reconciler.daemon", "reconciler.journal", "reconciler.watch"),
    *("_ssl", "http.client", "tempfile"),
}
WORDS: Final[set[str]] = set()
SETTINGS: Final = {"msgspec", "tomli"}
LOOP: Final = SETTINGS | {"asyncio", "reconciler.assembly"}
GRPC: Final = {"google.protobuf", "grpclib"}

COMMANDS: Final = {
    "--version": WORDS,
    "--help": WORDS,
    "scan --help": {"msgspec"},
    "clean --help": {"msgspec"},
    "config show": SETTINGS,
    "scan": LOOP,
    "scan --without-containerd --address OLD": LOOP,
    "scan --address OLD": LOOP | GRPC,
    "scan -o journal": LOOP | {"reconciler.journal"},
    "explain ns/id": LOOP,
    "clean --dry-run": LOOP,
    "clean --yes --grace 0s": LOOP,
    "run --once": LOOP | {"structlog"},
    "record --once FILE": LOOP | {"structlog", "reconciler.journal"},
    "status --socket NONE": {"http.client", "msgspec"},
}
"""By command: what it loads of :data:`HEAVY`. OLD is a socket on which nobody listens."""

LASTING: Final = {"run --once", "record --once FILE", "clean --yes --grace 0s"}
"""Commands that may last, or end after work that makes garbage."""

CODE: Final = """
import atexit, gc, sys
from reconciler.cli import main
atexit.register(lambda: sys.stderr.write(f"looks for garbage: {gc.isenabled()}"))
main()
"""


def start(where: Path, command: str) -> tuple[list[str], str]:
    """Run a command on an empty tree; gives the modules in the order they were loaded, and all."""
    run, old = where / "run", where / "old.sock"
    (run / "io.containerd.runtime.v2.task").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(os.fspath(old))
    names = {"OLD": old, "FILE": where / "journal", "NONE": where / "none"}
    words = [os.fspath(names.get(word, word)) for word in command.split()]
    tree = ("--state", run, "--root", where / "lib", "--address", where / "none")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", CODE, *tree, *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines], done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_loads_what_it_needs_and_no_more(tmp_path: Path, command: str) -> None:
    loaded, said = start(tmp_path, command)
    assert HEAVY.intersection(loaded) == COMMANDS[command]
    if "reconciler.assembly" in COMMANDS[command]:
        before = loaded[: loaded.index("reconciler.worker.client")]
        assert {"asyncio", "reconciler.assembly"}.isdisjoint(before), "the fork server came late"
        assert f"looks for garbage: {command in LASTING}" in said
