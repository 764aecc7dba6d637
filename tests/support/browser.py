"""A real browser: what a page becomes in it, how it looks, and where things stand."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Self

import msgspec
import pytest

CHROMIUM = shutil.which("chromium")
browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--virtual-time-budget=8000"),
)
HEIGHT = 800

# A window is never narrower than 500 pixels: a page for a phone stands in a frame.
_FRAME = """<!doctype html><body style="margin:0"><iframe id="frame" src="%s" style="border:0;
width:%dpx;height:%dpx"></iframe><pre id="boxes"></pre><script>
setTimeout(() => {
  const inside = document.getElementById("frame").contentDocument;
  const found = [...inside.querySelectorAll(%s)].map((one) => one.getBoundingClientRect().toJSON());
  const boxes = { found, page: inside.documentElement.scrollWidth, height: %d };
  document.getElementById("boxes").textContent = JSON.stringify(boxes);
}, 3000);
</script>"""

# To start it takes longer than a page does, so that one shows a page at several places.
_FRAMES = """<!doctype html><body>%s<pre id="doms"></pre><script>
setTimeout(() => {
  const inside = [...document.querySelectorAll("iframe")].map((one) => one.contentDocument);
  const doms = inside.map((one) => one.documentElement.outerHTML);
  document.getElementById("doms").textContent = JSON.stringify(doms);
}, 3000);
</script>"""
_ONE_OF_THEM = '<iframe src="%s" style="width:1280px;height:800px"></iframe>'
_ACROSS_FILES = "--allow-file-access-from-files"


class Box(msgspec.Struct):
    """Where something stands, in pixels of the window."""

    left: float
    right: float
    top: float
    bottom: float


class Boxes(msgspec.Struct):
    """Where all of a kind stand, and how wide and high the page is."""

    found: list[Box]
    page: int
    height: int


@dataclass
class Browser:
    """A chromium with a profile of its own for each page it opens."""

    directory: Path
    opened: int = 0

    @classmethod
    def within(cls, directory: Path) -> Self:
        """Make one that keeps what it writes below a directory."""
        (directory / "browser").mkdir()
        return cls(directory / "browser")

    def _run(self, page: str, *options: str) -> bytes:
        assert CHROMIUM is not None
        self.opened += 1
        profile = self.directory / f"profile-{self.opened}"
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *options, page],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "HOME": os.fspath(self.directory)},
            process_group=0,
        )
        try:
            out, err = process.communicate(timeout=50)
        except BaseException:  # also pytest's timeout
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the group is its own
            process.communicate()
            raise
        assert process.returncode == 0, err.decode()
        return out

    def dom(self, page: Path, place: str = "") -> str:
        """Give the page as it is once its script has run; ``place`` is the end of its address."""
        return self._run(f"file://{page}{place}", "--dump-dom").decode()

    def doms(self, page: Path, places: Sequence[str]) -> dict[str, str]:
        """Give the same of several places of a page, each in a frame of its own."""
        frames = self.directory / "frames.html"
        addresses = [escape(f"file://{page}{place}") for place in places]
        frames.write_text(_FRAMES % "".join(_ONE_OF_THEM % address for address in addresses))
        dom = self._run(f"file://{frames}", "--dump-dom", _ACROSS_FILES).decode()
        found = re.search(r'<pre id="doms">(.*?)</pre>', dom, re.DOTALL)
        assert found, dom[:2000]
        doms = msgspec.json.decode(unescape(found[1]), type=list[str])
        return dict(zip(places, doms, strict=True))

    def picture(self, page: Path, place: str = "", *options: str) -> bytes:
        """Give the page as a PNG."""
        target = self.directory / "picture.png"
        self._run(f"file://{page}{place}", f"--screenshot={target}", *options)
        return target.read_bytes()

    def boxes(self, page: Path, width: int, selector: str, place: str = "") -> Boxes:
        """Tell where everything that fits a selector stands, on a screen of this width."""
        frame = self.directory / "frame.html"
        address = f"file://{page}{place}".replace("&", "&amp;")
        frame.write_text(_FRAME % (address, width, HEIGHT, json.dumps(selector), HEIGHT))
        size = f"--window-size={max(width, 500)},{HEIGHT + 100}"
        dom = self._run(f"file://{frame}", "--dump-dom", _ACROSS_FILES, size)
        found = re.search(r'<pre id="boxes">(.*?)</pre>', dom.decode(), re.DOTALL)
        assert found, dom.decode()[:2000]
        return msgspec.json.decode(unescape(found[1]), type=Boxes)
