"""The program as its users have it: a command line, JSON on standard output, log lines, a code.

It runs in the node's mount namespace, where containerd runs, for its guards ask for that. Nothing
of the program is imported here.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, NotRequired, Self, TypedDict

from tests.e2e.apart import REPOSITORY, Word
from tests.e2e.node import Node
from tests.e2e.processes import PATIENCE, until
from tests.e2e.task import Task

NOW: Final = ("--grace", "0s", "--threshold", "0s", "--yes")
"""Options of a `clean` that waits for nothing."""

Line = dict[str, object]


class Shim(TypedDict):
    """The shim of a bundle of `scan -o json`."""

    state: str
    pid: int | None
    wedged: bool


class Row(TypedDict):
    """A bundle of `scan -o json`, as far as it is looked at here."""

    namespace: str
    id: str
    tree: NotRequired[str]
    verdict: str
    phase: str | None
    reason: str
    shim: Shim
    unlisted: bool


class Debris(TypedDict):
    """A piece of debris of `scan -o json`."""

    kind: str
    path: str
    namespace: NotRequired[str]
    id: NotRequired[str]


class Scan(TypedDict):
    """What `scan -o json` prints."""

    bundles: list[Row]
    debris: list[Debris]


class Holder(TypedDict):
    """Who keeps a bundle busy."""

    pid: int
    name: str


class Result(TypedDict):
    """One result of `clean -o json`."""

    kind: str
    namespace: str
    id: str
    tree: NotRequired[str]
    result: str
    reason: str
    detail: str
    holders: list[Holder]


class Clean(TypedDict):
    """What `clean -o json` prints."""

    results: list[Result]
    summary: dict[str, object]


class Summary(TypedDict):
    """The numbers of `status -o json`."""

    blocked: dict[str, int]


class Status(TypedDict):
    """What `status -o json` prints, as far as it is looked at here."""

    mode: str
    ready: bool
    refused: list[dict[str, str]]
    summary: Summary


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended.

    Attributes:
        code: Its exit code.
        out, err: What it printed.
    """

    code: int
    out: str
    err: str

    def complaint(self) -> str:
        """The one line a refused command may print, log lines of a `run` aside."""
        lines = [line for line in self.err.splitlines() if not line.startswith('{"timestamp"')]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("containerd-reconciler: "), self.err
        return lines[0]


def words(
    node: Node, *said: Word, state: Word | None = None, root: Word | None = None
) -> list[Word]:
    """Make a command line for this node; what is said last wins."""
    where = ["--state", state or node.state, "--root", root or node.root, "--address", node.address]
    return [sys.executable, "-m", "reconciler", *where, *said]


def environment() -> dict[str, str]:
    """The environment of every run: this checkout, no traces of the interpreter's own."""
    kept = {name: value for name, value in os.environ.items() if name != "CONTAINERD_ADDRESS"}
    extra = {"PYTHONPATH": os.fspath(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **extra, "PYTHONWARNINGS": "error"}


def run(node: Node, *said: Word, before: Sequence[Word] = ()) -> Ran:
    """Run a command line to its end, behind another command such as `unshare` if one is named."""
    done = node.apart.run(*before, *said, env=environment(), check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def scan(node: Node, *options: Word) -> Scan:
    """Look once."""
    ran = run(node, *words(node, "scan", "-o", "json", *options))
    assert ran.code == 0, ran
    told: Scan = json.loads(ran.out)
    return told


def clean(node: Node, *options: Word, code: int = 0) -> Clean:
    """Remove what is due."""
    ran = run(node, *words(node, "clean", "-o", "json", *NOW, *options))
    assert ran.code == code, f"exit {ran.code}, not {code}\n{ran.out}\n{ran.err}"
    told: Clean = json.loads(ran.out)
    return told


def status(node: Node) -> Status:
    """Ask a daemon that has its socket at the usual place."""
    ran = run(node, *words(node, "status", "-o", "json"))
    assert ran.code == 0, ran
    told: Status = json.loads(ran.out)
    return told


def verdicts(told: Scan, namespace: str) -> dict[str, str]:
    """Give the verdict on each bundle of a namespace."""
    return {row["id"]: row["verdict"] for row in told["bundles"] if row["namespace"] == namespace}


def results(told: Clean) -> dict[str, str]:
    """Give the result for each bundle."""
    return {one["id"]: one["result"] for one in told["results"] if one["kind"] == "bundle"}


@dataclass
class Watching:
    """A `run` in the background, and the log lines it has written so far."""

    process: subprocess.Popen[str]
    lines: list[Line] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _strange: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self._reader.join()
        self.process.communicate()
        if error is not None:
            error.add_note("\n".join(json.dumps(line) for line in self.lines[-40:]))

    def wait_for(self, event: str, task: Task, seconds: float = PATIENCE, **fields: object) -> Line:
        """Wait for a line about a task; it may have been written before."""
        wanted: Line = {"event": event, "namespace": task.namespace, "id": task.id, **fields}
        return self.wait_since(0.0, wanted, seconds)

    def wait_since(self, since: float, wanted: Line, seconds: float = PATIENCE) -> Line:
        """Wait for the first line that says all this and was written at or after a moment."""

        def found() -> Line | None:
            return next((line for line in self.lines if _says(line, wanted, since)), None)

        with self._changed:
            line = self._changed.wait_for(found, seconds)
        assert line is not None, f"not said in {seconds} s: {wanted}"
        return line

    def wait_ready(self, containerd: str) -> None:
        """Wait until it knows where it stands, and how containerd is: then start-up is over."""
        self.wait_since(0.0, {"event": "guards.checked", "ok": True})
        self.wait_since(0.0, {"event": "containerd.asked", "state": containerd})

    def wait_quiet(self, seconds: float) -> None:
        """Wait until nothing was written for so long: then whatever was going on has ended."""

        def quiet() -> bool:
            return bool(self.lines) and time.monotonic() - mono(self.lines[-1]) >= seconds

        until(quiet, f"{seconds} s of silence")

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Press Ctrl-C, or send another signal, and give the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._reader.join()
        assert not self._strange, "".join(self._strange)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            with self._changed:
                try:
                    self.lines.append(json.loads(text))
                except ValueError:
                    self._strange.append(text)
                self._changed.notify_all()


def mono(line: Line) -> float:
    """When a line was written, on the clock of `time.monotonic`; 0 if it does not say."""
    when = line.get("mono", 0.0)
    assert isinstance(when, float | int)
    return when


def _says(line: Line, wanted: Line, since: float) -> bool:
    return mono(line) >= since and all(line.get(name) == value for name, value in wanted.items())


@contextlib.contextmanager
def watching(
    node: Node, *options: Word, command: Sequence[Word] = ("run", "-v")
) -> Iterator[Watching]:
    """Keep a `run` going in the background; it is killed in the end if it was not stopped."""
    process = subprocess.Popen(
        node.apart.command(words(node, *command, *options)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with Watching(process) as made:
        yield made
