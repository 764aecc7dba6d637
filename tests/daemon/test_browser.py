"""The page in a real browser: what a person sees; no script is in it, and it renews itself."""

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest

from tests.daemon.running import Site, enforces, needs, running
from tests.support.fake_containerd import FakeContainerd

pytestmark = pytest.mark.kernel

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)
SCREENSHOT = os.environ.get("RECONCILER_SCREENSHOT")


def browse(site: Site, profile: str, *args: str) -> str:
    chromium = needs("chromium")
    command = [chromium, *FLAGS, f"--user-data-dir={site.base / profile}", *args]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{site.port}/"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@enforces
def test_a_person_sees_what_goes_on(site: Site, answering: FakeContainerd) -> None:
    for number in range(3):
        site.make(f"gone{number}")
    kept = site.make("has-data")
    (kept / "rootfs" / "data").write_text("precious")
    hostile = site.make("a_<script>x")
    site.tail = '[[rule]]\nname = "later"\nmatch = { id = "wait*" }\ngrace = "45m"\n'
    site.write(mode="enforce", cleanup__grace="0s")
    site.make("waiting")
    with running(site) as daemon:
        daemon.wait_for("blocked", id="has-data")
        daemon.wait_for("cleaned", id="gone2")
        daemon.wait_for("verdict", id="waiting", phase="waiting")
        dom = browse(site, "one", "--dump-dom")
        picture = Path(SCREENSHOT) if SCREENSHOT else site.base / "page.png"
        browse(site, "two", f"--screenshot={picture}")
    assert '<meta http-equiv="refresh" content="5">' in dom
    text = re.sub(r"<[^>]+>", " ", dom)
    assert "shop/has-data" in text
    assert "rootfs not empty" in text
    assert re.search(r"shop/waiting\s+leftover\s+waiting", text)
    assert re.search(r"in 4\dm", text), "a countdown"
    assert text.count("shop/gone") == 3, "what was cleaned"
    assert hostile.exists()
    assert "<script" not in dom
    assert "&lt;script&gt;x" in dom
    # Styled by its own style alone, which the policy allows: a refused one would leave it plain.
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert (width, height) == (1200, 900)
