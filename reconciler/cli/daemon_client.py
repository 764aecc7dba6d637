"""Asking the running daemon over its unix socket, which root alone may open.

A request flows out, a status or an answer flows in. One connection for each request, so that a
daemon that was restarted in between is no problem.
"""

import socket
from collections.abc import Iterable, Iterator, Sequence
from errno import ECONNREFUSED, ENOENT
from http.client import HTTPConnection, HTTPException
from typing import Final, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace
from typing_extensions import override

from reconciler.errors import NoDaemonError, ReconcilerError
from reconciler.model.debris import PlaceKey, RequestedPlace
from reconciler.model.ids import BundleKey
from reconciler.present.beliefs import Beliefs, Progress, Reply
from reconciler.present.status import Status

_SECONDS: Final = 5.0
_RELOAD_SECONDS: Final = 60.0
"""A reload may look at every bundle anew."""

T = TypeVar("T")

_AT_ONCE: Final = 30
"""Bundles in one request: their names fit into its first line, however long they are."""

_LINE: Final = 8 * 1024
"""Bytes of a query: half of what the daemon reads of a request."""

_OK: Final = 200
_REFUSED: Final = 422
_MOST: Final = 64 * 1024 * 1024


class Answer(msgspec.Struct, frozen=True):
    """What the daemon answered."""

    code: int
    body: bytes

    @property
    def text(self) -> str:
        """The body for people."""
        return self.body.decode("utf-8", "replace").strip()


def _queries(keys: Sequence[BundleKey]) -> Iterator[str]:
    """Name the bundles, some at a time."""
    for n in range(0, len(keys), _AT_ONCE):
        yield urlencode([("key", str(key)) for key in keys[n : n + _AT_ONCE]])


def _objects(places: Sequence[RequestedPlace]) -> Iterator[str]:
    """Name debris by its objects, as much at a time as fits: paths may be long."""
    pairs = [("object", f"{one.dev}:{one.ino}:{one.key}") for one in places]
    queries = [urlencode([pair], errors="surrogateescape") for pair in pairs]
    while queries:
        length, count = 0, 0
        for query in queries:
            length += len(query) + 1
            if count and length > _LINE:
                break
            count += 1
        yield "&".join(queries[:count])
        del queries[:count]


def _decoded(answer: Answer, what: type[T]) -> T:
    if answer.code != _OK:
        raise ReconcilerError(f"the daemon answered {answer.code}: {answer.text}")
    try:
        return msgspec.json.decode(answer.body, type=what)
    except msgspec.MsgspecError as error:
        raise ReconcilerError(
            f"the daemon's answer cannot be read: {error}", "is it of the same version?"
        ) from None


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
        return _decoded(answer, Status), answer.body

    def reload(self) -> tuple[str, list[str]]:
        """Order it to load its configuration anew, and wait.

        Returns:
            Why it refused, empty if it did not; and what has changed, a line each.

        Raises:
            NoDaemonError: Nobody answers.
            ReconcilerError: It answered something else.
        """
        answer = self._ask("POST", "/-/reload?verbose", _RELOAD_SECONDS)
        if answer.code not in {_OK, _REFUSED}:
            raise ReconcilerError(f"the daemon answered {answer.code}: {answer.text}")
        if answer.code == _REFUSED:
            return answer.text, []
        return "", answer.text.splitlines()[:-1]  # the last one is "ok"

    def beliefs(self, keys: Iterable[BundleKey] = ()) -> Beliefs:
        """Ask what it believes of these bundles, some at a time, or of all that have a phase.

        What is not of single bundles (pid, hold, recent) is as the last answer has it.

        Raises:
            NoDaemonError: Nobody answers.
            ReconcilerError: It answered something else.
        """
        paths = [f"/bundles?{query}" for query in _queries(list(keys))] or ["/bundles"]
        answers = [_decoded(self._ask("GET", path, _SECONDS), Beliefs) for path in paths]
        bundles = [one for told in answers for one in told.bundles]
        return replace(answers[-1], bundles=bundles, socket=self._path)

    def beliefs_of(self, place: PlaceKey) -> Beliefs:
        """Ask what it believes of a place outside of bundles.

        Raises:
            NoDaemonError: Nobody answers.
            ReconcilerError: It answered something else.
        """
        path = f"/bundles?{urlencode({'place': str(place)}, errors='surrogateescape')}"
        return replace(_decoded(self._ask("GET", path, _SECONDS), Beliefs), socket=self._path)

    def requested(self) -> Progress:
        """Ask how far the debris is that was asked for.

        Raises:
            NoDaemonError: Nobody answers.
            ReconcilerError: It answered something else.
        """
        return _decoded(self._ask("GET", "/requested", _SECONDS), Progress)

    def clean(self, keys: Sequence[BundleKey], places: Sequence[RequestedPlace] = ()) -> Reply:
        """Ask for these bundles, and this debris, to be cleaned now, some at a time.

        The reply is of the daemon that was asked first: one that came after it knows less.

        Raises:
            NoDaemonError: Nobody answers.
            ReconcilerError: It answered something else.
        """
        replies = [
            _decoded(self._ask("POST", f"/-/clean?{query}", _SECONDS), Reply)
            for query in (*_queries(keys), *_objects(places))
        ]
        bundles = [one for reply in replies for one in reply.bundles]
        debris = [one for reply in replies for one in reply.debris]
        return Reply(replies[0].pid, replies[-1].hold, bundles, debris=debris)

    def release(self) -> Reply:
        """Ask for the brakes to be released.

        Raises:
            NoDaemonError: Nobody answers.
            ReconcilerError: It answered something else.
        """
        return _decoded(self._ask("POST", "/-/release", _SECONDS), Reply)

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
