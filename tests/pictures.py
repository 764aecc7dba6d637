"""Draw the pictures of the README from a real run: `make pictures`, or `python -m tests.pictures`.

`run --enforce` works on the tree of the demo, on a terminal of its own. One of its screens becomes
`run.svg`; the journal it writes becomes a report, and what a browser shows of that `report.png`.
Nothing is drawn or typed by hand. It needs root, as `run --enforce` does, and chromium.
"""

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Final

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from reconciler.demo.fixtures import Fixture, Promise
from reconciler.demo.node import DemoNode

PICTURES: Final = Path(__file__).resolve().parents[1] / "contrib" / "pictures"
COLUMNS, LINES = 128, 40
REPORT: Final = "1280,520"
"""Width and height of the report, in pixels."""

_PROGRAM: Final = (sys.executable, "-m", "reconciler")
_PATIENCE: Final = 30.0
_PAUSE: Final = 1.5
"""Seconds between two things that happen, so that the report shows which came first."""

_BETWEEN_SCREENS: Final = re.compile(r"\r?\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
"""What rich writes to take back the screen before: each of its lines is erased, upwards."""

_SEQUENCE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_OTHER_FONTS: Final = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""Fonts that the picture would load from elsewhere."""


@dataclass
class Terminal:
    """A terminal on which the program runs.

    Attributes:
        process: The program.
        written: All that it has written so far.
    """

    process: subprocess.Popen[bytes]
    master: int
    written: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        """Read until the program has closed its side."""
        while True:
            try:
                piece = os.read(self.master, 1 << 16)
            except OSError:  # EIO: nobody has the other side open
                return
            self.written += piece

    def screens(self) -> list[str]:
        """Give every screen that was shown."""
        return screens_of(self.written.decode(errors="replace").replace("\r\n", "\n"))


def screens_of(written: str) -> list[str]:
    """Take apart what rich wrote while it showed one screen after the other."""
    return _BETWEEN_SCREENS.split(written)


@contextmanager
def on_terminal(*command: str | Path, directory: Path) -> Iterator[Terminal]:
    """Run a program on a terminal of its own, and interrupt it in the end."""
    master, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    own = {"TERM": "xterm-256color", "COLORTERM": "", "RECONCILER_LOCK_DIR": str(directory)}
    process = subprocess.Popen(
        list(map(str, command)), stdin=other, stdout=other, stderr=other, env=environment | own
    )
    os.close(other)
    terminal = Terminal(process, master)
    reader = threading.Thread(target=terminal.read)
    reader.start()
    try:
        yield terminal
        process.send_signal(signal.SIGINT)
        process.wait(_PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join()
        os.close(master)


def until(found: Callable[[], bool], what: str, terminal: Terminal) -> None:
    """Wait until something is true; the program's last words if it never is."""
    deadline = time.monotonic() + _PATIENCE
    while not found():
        if time.monotonic() > deadline or terminal.process.poll() is not None:
            sys.exit(f"not seen: {what}\n{terminal.screens()[-1]}")
        time.sleep(0.05)


def record(directory: Path) -> tuple[str, Path]:
    """Run it while a task is killed; gives the screen to show and the journal."""
    journal, config = directory / "run.jsonl", directory / "config.toml"
    with DemoNode(time.time()) as node:
        victim = next(one for one in node.fixtures if one.killed)
        if victim.key.namespace != "demo":
            sys.stderr.write("another demo is running, so the namespaces get a number\n")
        paths = {
            "state": node.layout.state, "root": node.layout.root, "address": node.layout.address
        }  # fmt: skip
        lines = [f'containerd.{name} = "{os.fsdecode(path)}"' for name, path in paths.items()]
        config.write_text("\n".join(["containerd.allow_disk = true", *lines, ""]))

        def gone(fixture: Fixture) -> bool:
            return not os.path.lexists(node.layout.bundle(fixture.key))

        command = (*_PROGRAM, "run", "--enforce", "--without-containerd", "--config", config)
        options = ("--grace", "3s", "--settle", "1h", "--record", journal)
        with on_terminal(*command, *options, directory=directory) as terminal:
            dead = [
                one for one in node.fixtures if one.promise is Promise.CLEANED and one != victim
            ]
            until(lambda: all(map(gone, dead)), "the dead are removed", terminal)
            time.sleep(_PAUSE)
            node.kill_victims()
            until(lambda: gone(victim), "the victim is removed", terminal)
            time.sleep(_PAUSE)
    return chosen(terminal.screens(), str(victim.key)), journal


def chosen(screens: list[str], victim: str) -> str:
    """Choose the first screen on which the victim waits, one is blocked, and others are cleaned."""
    for screen in screens:
        text = _SEQUENCE.sub("", screen)
        waits = re.search(rf"^{re.escape(victim)} +waiting", text, re.MULTILINE)
        if waits and "blocked" in text and "cleaned" in text:
            return screen
    raise LookupError(f"no screen shows {victim} waiting beside what is blocked and cleaned")


def draw_screen(screen: str, target: Path) -> None:
    """Draw what was on the terminal as SVG, without fonts from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text.from_ansi(screen.strip("\n")))
    text = console.export_svg(
        title="containerd-reconciler run --enforce",
        code_format=_OTHER_FONTS.sub("", CONSOLE_SVG_FORMAT),
        unique_id="run",
    )
    target.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def draw_report(journal: Path, target: Path) -> None:
    """Draw a journal's report as a browser shows it."""
    page = journal.with_suffix(".html")
    replay = [*_PROGRAM, "replay", str(journal), "--report", str(page)]
    subprocess.run(replay, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    options = [f"--user-data-dir={journal.parent / 'browser'}", f"--window-size={REPORT}"]
    options += [f"--screenshot={target}", page.as_uri()]
    subprocess.run(
        [*browser, *options],
        check=True,
        timeout=60,
        stderr=subprocess.DEVNULL,
    )


def main() -> int:
    """Draw both."""
    if shutil.which("chromium") is None:
        sys.exit("chromium is needed: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pic-") as name:
        os.environ["XDG_RUNTIME_DIR"] = name  # the place of the demo's tree; a short one
        screen, journal = record(Path(name))
        draw_screen(screen, PICTURES / "run.svg")
        draw_report(journal, PICTURES / "report.png")
    for picture in sorted(PICTURES.iterdir()):
        sys.stdout.write(f"{picture}: {picture.stat().st_size / 1000:.0f} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
