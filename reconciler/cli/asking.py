"""Asking the running daemon over its unix socket, which root alone may open.

A request flows out, a status or an answer flows in. One connection for each request, so that a
daemon that was restarted in between is no problem.
"""

import socket
from dataclasses import dataclass
from errno import ECONNREFUSED, ENOENT
from http.client import HTTPConnection, HTTPException
from typing import Final

import msgspec
from typing_extensions import override

from reconciler.errors import NoDaemonError, ReconcilerError
from reconciler.present.status import Status

_SECONDS: Final = 5.0
_RELOAD_SECONDS: Final = 60.0
"""A reload may look at every bundle anew."""

_OK: Final = 200
_REFUSED: Final = 422
_MOST: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon answered."""

    code: int
    body: bytes

    @property
    def text(self) -> str:
        """The body for people."""
        return self.body.decode("utf-8", "replace").strip()


class _UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """The daemon that listens on a socket.

    Args:
        path: The socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def status(self) -> tuple[Status, bytes]:
        """Ask how it is; the value, and the JSON as it came.

        Raises:
            NoDaemonError: Nobody answers.
            ReconcilerError: It answered something else.
        """
        answer = self._ask("GET", "/status", _SECONDS)
        if answer.code != _OK:
            raise ReconcilerError(f"the daemon answered {answer.code}: {answer.text}")
        try:
            return msgspec.json.decode(answer.body, type=Status), answer.body
        except msgspec.MsgspecError as error:
            raise ReconcilerError(
                f"the daemon's answer cannot be read: {error}", "is it of the same version?"
            ) from None

    def reload(self) -> str:
        """Order it to load its configuration anew, and wait; gives why it refused, else nothing.

        Raises:
            NoDaemonError: Nobody answers.
            ReconcilerError: It answered something else.
        """
        answer = self._ask("POST", "/-/reload", _RELOAD_SECONDS)
        if answer.code not in {_OK, _REFUSED}:
            raise ReconcilerError(f"the daemon answered {answer.code}: {answer.text}")
        return answer.text if answer.code == _REFUSED else ""

    def _ask(self, method: str, path: str, seconds: float) -> Answer:
        connection = _UnixConnection(self._path, seconds)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return Answer(response.status, response.read(_MOST))
        except TimeoutError:
            raise NoDaemonError(
                f"the daemon on {self._path} does not answer", "see its log"
            ) from None
        except (HTTPException, ConnectionResetError, BrokenPipeError):
            raise NoDaemonError(f"the daemon on {self._path} hung up", "see its log") from None
        except OSError as error:
            if error.errno not in {ECONNREFUSED, ENOENT}:
                raise
            hint = "start `containerd-reconciler daemon`, or name its socket with --socket"
            raise NoDaemonError(f"no daemon listens on {self._path}", hint) from None
        finally:
            connection.close()
