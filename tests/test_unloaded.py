"""What no process of ours loads: megabytes of a daemon, and milliseconds of each start."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reconciler import unloaded
from reconciler.model.layout import Layout
from tests.daemon.running import PROGRAM, Site, environment

DRAWN_IN: Final = {
    *("_ssl", "ssl"),  # by asyncio, anyio, grpclib and prometheus_client
    *("http.client", "http.server", "email", "mimetypes", "socketserver", "urllib.request"),
    *("wsgiref.simple_server", "rich.console"),
    *("ctypes.util", "tempfile", "shutil", "bz2", "lzma", "random"),  # by inotify_simple, to look
    *("html.entities",),  # for its name of each character
    *("difflib", "encodings.idna", "pickle"),
}
SECONDS: Final = 30


def said(process: "subprocess.Popen[str]") -> Iterator[str]:
    """Give what it writes on standard error, line by line."""
    assert process.stderr is not None
    yield from process.stderr


def loaded(lines: list[str]) -> set[str]:
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_a_daemon_loads_neither_openssl_nor_a_second_http_server(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.make("dead")
    command = [PROGRAM[0], "-X", "importtime", *PROGRAM[1:], "daemon", "--config", str(site.config)]
    lines: list[str] = []
    with subprocess.Popen(
        command,
        env=environment(site),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as daemon:
        for line in said(daemon):
            lines.append(line)
            if '"readiness.reached"' in line:
                assert mapped(daemon.pid) == set()
                daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(SECONDS) == 0
    names = loaded(lines)
    assert {"anyio", "h11", "inotify_simple", "prometheus_client", "structlog"} <= names
    assert names & DRAWN_IN == set()


def test_a_fork_server_loads_no_parser_of_python() -> None:
    """Workers share what it has in memory; it ends when its socket does."""
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "reconciler.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    names = loaded(done.stderr.splitlines())
    assert {"msgspec", "reconciler.worker.steps"} <= names
    assert names & {"ast", "dataclasses", "inspect", "tokenize", "typing_extensions"} == set()


def mapped(pid: int) -> set[str]:
    """Name what of OpenSSL a process and its children, the fork server, have in memory."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children, "it has no fork server"
    maps = "".join(Path(f"/proc/{one}/maps").read_text() for one in (pid, *children))
    return {path for path in maps.split() if "/libssl" in path or "/libcrypto" in path}


def test_who_called_what_is_left_out_would_be_told() -> None:
    code = """
import sys
from reconciler import unloaded
import html.entities
unloaded.leave_out()
import hashlib, ssl, html
assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442") and html.unescape("&lt;") == "<"
class Derived(ssl.SSLError): pass
try: raise OSError("other")
except (ssl.SSLError, Derived, OSError) as error: assert str(error) == "other"
assert ssl.SSLContext is ssl.SSLContext and not isinstance(0, ssl.SSLContext)
try: ssl.SSLContext()
except ImportError as error: print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stderr == ""
    assert done.stdout == "ssl.SSLContext is not loaded in this program\n"
    assert "ssl" in unloaded.NAMES


def test_a_python_without_hashes_of_its_own_keeps_those_of_openssl() -> None:
    """As distributions build it that must have every hash from OpenSSL: RHEL, Fedora."""
    code = """
import sys
from reconciler import unloaded
sys.modules |= dict.fromkeys(("_md5", "_sha1", "_sha2", "_sha256", "_sha512", "_sha3"))
unloaded.leave_out()
from reconciler.model.layout import Layout
print(Layout().shim_socket("default", "web").decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stderr == ""
    assert done.stdout == f"{Layout().shim_socket('default', 'web').decode()}\n"
