"""The page in a real browser: what a person sees; no script is in it, and it renews itself."""

import http.client
import os
import re
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from typing_extensions import override

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
        daemon.wait_for("bundle.blocked", id="has-data")
        daemon.wait_for("bundle.cleaned", id="gone2")
        daemon.wait_for("bundle.judged", id="waiting", phase="waiting")
        dom = browse(site, "one", "--dump-dom")
        picture = Path(SCREENSHOT) if SCREENSHOT else site.base / "page.png"
        browse(site, "two", f"--screenshot={picture}")
    assert '<meta http-equiv="refresh" content="5">' in dom
    text = re.sub(r"<[^>]+>", " ", dom)
    assert "shop/has-data" in text
    assert "rootfs not empty" in text
    assert re.search(r"shop/waiting\s+leftover\s+waiting", text)
    assert re.search(r"due in 4\dm", text), "a countdown"
    assert "retry in" in text
    assert text.count("shop/gone") == 3, "what was cleaned"
    assert hostile.exists()
    assert "<script" not in dom
    assert "&lt;script&gt;x" in dom
    # Styled by its own style alone, which the policy allows: a refused one would leave it plain.
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    assert (width, height) == (1200, 900)


class Between(ThreadingHTTPServer):
    """Stands between browser and daemon: counts what is asked for, and may change the policy."""

    def __init__(self, port: int, policy: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.daemon_port = port
        self.policy = policy
        self.asked: list[str] = []
        self.again = threading.Event()


class _Relay(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Between)
        server.asked.append(self.path)
        connection = http.client.HTTPConnection("127.0.0.1", server.daemon_port, timeout=20)
        try:
            connection.request("GET", self.path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            is_policy = name == "content-security-policy"
            self.send_header(name, (is_policy and server.policy) or value)
        self.end_headers()
        self.wfile.write(body)
        if server.asked.count("/") >= 2:
            server.again.set()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def between(site: Site, policy: str | None = None) -> Iterator[Between]:
    with Between(site.port, policy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def console(site: Site, policy: str | None = None) -> tuple[str, list[str]]:
    """Look at the page without scripts until it has renewed itself; give console and requests."""
    profile = site.base / ("strange" if policy else "plain")
    with (
        between(site, policy) as server,
        (site.base / "console").open("w+b") as told,
        # Ended by a signal it leaves a socket there, whose path must be short.
        TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as temporary,
    ):
        words = [needs("chromium"), *FLAGS, f"--user-data-dir={profile}"]
        more = ("--enable-logging=stderr", "--blink-settings=scriptEnabled=false")
        browser = subprocess.Popen(
            [*words, *more, f"http://127.0.0.1:{server.server_port}/"],
            stdout=subprocess.DEVNULL,
            stderr=told,
            env={**os.environ, "TMPDIR": temporary},
            process_group=0,
        )
        try:
            assert server.again.wait(50), server.asked
        finally:
            browser.terminate()
            try:
                browser.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(browser.pid, signal.SIGKILL)  # not reaped yet, so the group is its own
                browser.wait()
                raise
        told.seek(0)
        return told.read().decode(errors="replace"), server.asked


def test_it_renews_itself_without_script_and_breaks_no_policy(
    site: Site, answering: FakeContainerd
) -> None:
    site.make("a")
    with running(site):
        said, asked = console(site)
        assert "Content Security Policy" not in said, "its own policy allows its own style"
        assert set(asked) <= {"/", "/favicon.ico"}, "nothing else is loaded"
        # The same look at a page whose style is not allowed would have told.
        said, _ = console(site, "default-src 'none'")
        assert "Content Security Policy" in said
