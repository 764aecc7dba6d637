"""The daemon as a process on a tree of its own, with a containerd that answers as it is told.

    with running(site) as daemon:
        daemon.wait_for("readiness.reached")
        daemon.get("/metrics")

A tree holds dead bundles of plain files, so no mounts and no root are needed to make it. Whatever
was started is ended by its pid, whatever happens.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest
from anyio.from_thread import start_blocking_portal

from reconciler.demo.fixtures import Task, contents, runc_state
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from tests.support.bundles import dead_pid
from tests.support.fake_containerd import FakeContainerd

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PROGRAM: Final = (sys.executable, "-m", "reconciler")
PATIENCE: Final = 30.0
NAMESPACE: Final = "shop"
LONG_AGO: Final = 3 * 3600

enforces = pytest.mark.skipif(os.geteuid() != 0, reason="a guard refuses to act without privileges")


def _is_tmpfs(path: str) -> bool:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    above = [line for line in lines if f"{path}/".startswith(line.split(" ")[4].rstrip("/") + "/")]
    return " - tmpfs " in max(above, key=lambda line: len(line.split(" ")[4]))


on_disk = pytest.mark.skipif(
    _is_tmpfs(tempfile.gettempdir()), reason="temporary directories are on a tmpfs, as containerd's"
)

Line = dict[str, object]


def until(found: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Site:
    """One containerd's directories, our own, and the daemon's configuration."""

    base: Path
    options: dict[str, object] = field(default_factory=dict)
    tail: str = ""
    port: int = field(default_factory=free_port)
    dead: int = field(default_factory=dead_pid)

    def __post_init__(self) -> None:
        for path in (self.tree, self.work, self.base / "own"):
            path.mkdir(parents=True)
        self.write()

    @cached_property
    def layout(self) -> Layout:
        base = os.fsencode(self.base)
        state = base + b"/state"  # shims may listen below it, too
        return Layout(state, base + b"/root", base + b"/containerd.sock", state)

    @property
    def tree(self) -> Path:
        return Path(os.fsdecode(self.layout.tasks))

    @property
    def work(self) -> Path:
        return Path(os.fsdecode(self.layout.work))

    @property
    def config(self) -> Path:
        return self.base / "config.toml"

    @property
    def socket(self) -> Path:
        return self.base / "own" / "http.sock"

    def write(self, **options: object) -> None:
        """Write the configuration anew, over the old one; options are dotted keys with ``__``."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(self.text(**options))
        fresh.rename(self.config)

    def text(self, **options: object) -> str:
        self.options |= {name.replace("__", "."): value for name, value in options.items()}
        said = {
            "mode": "observe",
            "containerd.state": str(self.base / "state"),
            "containerd.root": str(self.base / "root"),
            "containerd.address": str(self.base / "containerd.sock"),
            "containerd.allow_disk": True,
            "cleanup.grace": "1h",
            "cleanup.settle": "1s",
            "http.listen": f"127.0.0.1:{self.port}",
            "http.socket": str(self.socket),
            "log.level": "debug",
            **self.options,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in said.items()]
        return "\n".join([*lines, self.tail, ""])

    def make(self, id_: str, annotations: dict[str, str] | None = None) -> Path:
        """Make a dead bundle; complete at once for who watches, because it is moved into place."""
        key = BundleKey(NAMESPACE, id_)
        shim = self.layout.shim_socket(key.namespace, key.id)
        task = Task(key, self.dead, 1, shim, None, self.layout.runc_root)
        fresh = self.base / "making" / id_
        (fresh / "rootfs").mkdir(parents=True)
        for name, content in contents(task).items():
            (fresh / name).write_bytes(content)
        if annotations is not None:
            spec = json.loads((fresh / "config.json").read_bytes())
            (fresh / "config.json").write_text(json.dumps(spec | {"annotations": annotations}))
        state = Path(os.fsdecode(self.layout.runc_root)) / NAMESPACE / id_
        work = self.work / NAMESPACE / id_
        for directory in (state, work):
            directory.mkdir(parents=True)
        (state / "state.json").write_bytes(
            runc_state(task, os.fsencode(self.tree / NAMESPACE / id_))
        )
        (fresh / "work").symlink_to(work)
        then = time.time() - LONG_AGO
        for path in (*fresh.iterdir(), fresh):
            os.utime(path, (then, then), follow_symlinks=False)
        (self.tree / NAMESPACE).mkdir(exist_ok=True)
        return fresh.rename(self.tree / NAMESPACE / id_)

    def left(self) -> set[str]:
        """Which bundles are still there."""
        return {path.name for path in self.tree.glob("*/*")}


@contextmanager
def containerd(site: Site) -> Iterator[FakeContainerd]:
    """Let a containerd answer; it runs in a thread of the test, and so in its namespaces."""
    fake = FakeContainerd(site.base)
    fake.layout = site.layout
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(fake),
        fake.lock(),
    ):
        yield fake


@dataclass
class Daemon:
    """A daemon that runs, and the log lines it has written so far."""

    site: Site
    process: subprocess.Popen[str]
    lines: list[Line] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(
        self, event: str, seconds: float = PATIENCE, *, after: int = 0, **said: object
    ) -> Line:
        """Wait for a log line that says all this; ``after`` so many lines."""

        def found() -> Line | None:
            wanted = {"event": event, **said}
            return next(
                (
                    line
                    for line in self.lines[after:]
                    if all(line.get(name) == value for name, value in wanted.items())
                ),
                None,
            )

        with self._changed:
            self._changed.wait_for(lambda: found() or self.process.poll() is not None, seconds)
            line = found()
        assert line is not None, f"not said: {event} {said}\n{self.tail()}"
        return line

    def events(self, event: str) -> list[Line]:
        """Every line of an event so far."""
        return [line for line in self.lines if line.get("event") == event]

    def tail(self) -> str:
        return "\n".join([*(json.dumps(line)[:300] for line in self.lines[-30:]), *self.strange])

    def ask(self, path: str, method: str = "GET", *, order: bool = False) -> tuple[int, str]:
        """Ask over TCP, or over the unix socket."""
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=20)
        try:
            if order:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(20)
                connection.sock.connect(str(self.site.socket))
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def reload(self) -> tuple[int, str]:
        """Order a reload and wait for its end."""
        return self.ask("/-/reload", "POST", order=True)

    @property
    def _fresh(self) -> bool:
        """Whether root can ask: over TCP an answer may be a second old."""
        return bool(self.site.options.get("http.socket", True))

    def metrics(self) -> dict[str, float]:
        """Scrape, as of now."""
        text = self.ask("/metrics", order=self._fresh)[1]
        found = re.findall(r"^containerd_reconciler_(\S+) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def status(self) -> dict[str, object]:
        told: dict[str, object] = json.loads(self.ask("/status", order=self._fresh)[1])
        return told

    def bundles(self) -> int:
        """How many it has looked at; -1 while it does not answer."""
        try:
            summary = self.status()["summary"]
        except OSError:
            return -1
        assert isinstance(summary, dict)
        return int(summary["bundles"])

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """End it in order; gives the exit code and how many seconds it took."""
        begun = time.monotonic()
        self.send(number)
        code = self.process.wait(PATIENCE)
        took = time.monotonic() - begun
        self._reader.join()
        assert not self.strange, "".join(self.strange)
        assert not self.events("part.failed"), self.events("part.failed")
        return code, took

    def _read(self) -> None:
        for text in self.process.stderr or ():
            with self._changed:
                try:
                    self.lines.append(json.loads(text))
                except ValueError:
                    self.strange.append(text)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def environment(site: Site, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    own = str(site.base / "own")
    return {
        **kept,
        "RUNTIME_DIRECTORY": own,
        "RECONCILER_LOCK_DIR": own,
        "PYTHONPATH": str(REPOSITORY),
        "LC_ALL": "C.UTF-8",
        **more,
    }


@contextmanager
def running(
    site: Site,
    *args: str,
    before: tuple[str, ...] = (),
    ready: bool = True,
    stderr: int = subprocess.PIPE,
    **variables: str,
) -> Iterator[Daemon]:
    """Run the daemon; ``before``: a command that runs it, such as strace."""
    process = subprocess.Popen(
        [*before, *PROGRAM, "daemon", "--config", str(site.config), *args],
        env=environment(site, **variables),
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    daemon = Daemon(site, process)
    try:
        if ready:
            daemon.wait_for("readiness.reached")
        yield daemon
    except BaseException as error:
        error.add_note(daemon.tail())
        raise
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        daemon._reader.join()
        if process.stderr is not None:
            process.stderr.close()


def program(site: Site, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run another command to its end."""
    return subprocess.run(
        [*PROGRAM, *args],
        env=environment(site, **variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def needs(name: str) -> str:
    """Find a program, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"not installed: {name}")
    return found
