"""Client: the few calls of containerd's gRPC services that are needed, each with an end.

Every call opens a connection of its own and closes it: a connect costs 0.2 ms, a kept one would
have to be doubted anyway. It never says "no tasks" when it means "no answer": whatever goes wrong
is a :class:`NoAnswerError` that names its kind. Field-notes section 7 names services and metadata.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from errno import EINVAL
from typing import Final, TypeVar

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint
from google.protobuf.message import DecodeError, Message
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from reconciler.containerd import wire_pb2 as wire
from reconciler.model.ids import BundleKey, is_identifier, show

Answer = TypeVar("Answer")
Reply = TypeVar("Reply", bound=Message)

_VERSION: Final = "/containerd.services.version.v1.Version/Version"
_NAMESPACES: Final = "/containerd.services.namespaces.v1.Namespaces/List"
_TASKS: Final = "/containerd.services.tasks.v1.Tasks/List"
_DELETE: Final = "/containerd.services.tasks.v1.Tasks/Delete"
_SUBSCRIBE: Final = "/containerd.services.events.v1.Events/Subscribe"

_TOPICS: Final = ('topic~="^/tasks/"', 'topic=="/containers/delete"')
"""Filters of Subscribe: what can change a bundle. Each names the container in its first field."""


class Failure(Enum):
    """What kind of silence it was."""

    NOBODY = "nobody listens"  # no socket, or one that refuses
    TIMEOUT = "no answer in time"
    FORBIDDEN = "no permission"
    BROKEN = "broken connection"  # dropped, or not gRPC
    ERROR = "an error for an answer"


class NoAnswerError(Exception):
    """containerd did not answer; never a statement about its tasks."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Told:
    """One whole answer: the version, and the tasks of all namespaces."""

    version: str
    tasks: frozenset[BundleKey]


class ContainerdClient:
    """Asks one containerd.

    Args:
        address: Path of its gRPC socket.
        seconds: How long a call may take, and a subscription to be set up.
    """

    def __init__(self, address: bytes, seconds: float = 5.0) -> None:
        self._address = address
        self._seconds = seconds

    async def version(self) -> str:
        """Ask for the version.

        Raises:
            NoAnswerError: It did not answer.
        """
        return await self._bounded(_version)

    async def tasks(self) -> frozenset[BundleKey]:
        """List the tasks of all namespaces; all or an error, never some.

        Raises:
            NoAnswerError: It did not answer, or not for every namespace.
        """
        return await self._bounded(_tasks)

    async def tell(self) -> Told:
        """Ask for version and tasks over one connection, within one deadline.

        Raises:
            NoAnswerError: It did not answer all of it.
        """

        async def both(channel: Channel) -> Told:
            return Told(await _version(channel), await _tasks(channel))

        return await self._bounded(both)

    async def delete(self, key: BundleKey) -> str:
        """Ask it to delete a task; a task it does not know is fine.

        Returns:
            What went wrong, empty if nothing did. containerd refuses to delete a running task.
        """
        if not (is_identifier(key.namespace) and is_identifier(key.id)):
            return "containerd could not have created this name"

        async def ask(channel: Channel) -> None:
            request = wire.DeleteTask(container_id=key.id.decode())
            await _unary(channel, _DELETE, request, wire.Deleted, key.namespace)

        try:
            await self._bounded(ask)
        except NoAnswerError as error:
            cause = error.__cause__
            if isinstance(cause, GRPCError) and cause.status is Status.NOT_FOUND:
                return ""
            return str(error)
        return ""

    async def subscribe(
        self, subscribed: Callable[[], None], touched: Callable[[BundleKey], None]
    ) -> None:
        """Hear which tasks are touched, until containerd ends the stream.

        A subscription says nothing while nothing happens, so its silence proves nothing.

        Args:
            subscribed: Called once, when the request is sent.
            touched: Called with each task of which there is an event.

        Raises:
            NoAnswerError: It cannot be set up, or broke.
        """

        async def listen() -> None:
            async with _channel(self._address) as channel:
                method = UnaryStreamMethod(channel, _SUBSCRIBE, wire.Subscribe, wire.Envelope)
                async with method.open() as stream:
                    with anyio.fail_after(self._seconds):
                        await stream.send_message(wire.Subscribe(filters=_TOPICS), end=True)
                    subscribed()
                    async for envelope in stream:
                        key = _touched(envelope)
                        if is_identifier(key.namespace) and is_identifier(key.id):
                            touched(key)

        await self._apart(listen)

    async def _bounded(self, ask: Callable[[Channel], Awaitable[Answer]]) -> Answer:
        async def within() -> Answer:
            with anyio.fail_after(self._seconds):
                async with _channel(self._address) as channel:
                    return await ask(channel)

        return await self._apart(within)

    async def _apart(self, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run something in a task of its own.

        grpclib cancels the task that waits when its connection breaks, and takes only the exception
        back, not the count of ``Task.cancelling``: whoever trusts that later would give up at once.
        """
        answers: list[Answer] = []
        errors: list[NoAnswerError] = []

        async def run() -> None:
            try:
                with self._translated():
                    answers.append(await work())
            except NoAnswerError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
        for error in errors:
            raise error
        return answers[0]

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Name the kind of silence, whatever it was raised as."""
        where = show(self._address)
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError) as error:
            text = f"nobody listens at {where}"
            raise NoAnswerError(Failure.NOBODY, text) from error
        except PermissionError as error:
            raise NoAnswerError(Failure.FORBIDDEN, f"no permission to ask {where}") from error
        except TimeoutError as error:
            text = f"no answer from {where} within {self._seconds:g} s"
            raise NoAnswerError(Failure.TIMEOUT, text) from error
        except GRPCError as error:
            text = f"{where} answers {error.status.name}: {error.message}"
            raise NoAnswerError(Failure.ERROR, text) from error
        except (OSError, StreamTerminatedError, ProtocolError, H2Error, DecodeError) as error:
            text = f"{where} broke off: {error}"
            raise NoAnswerError(Failure.BROKEN, text) from error
        except AttributeError as error:
            if error.name != "_transport":
                raise
            # grpclib 0.4.9 stumbles so over a connection that broke before its first use
            raise NoAnswerError(Failure.BROKEN, f"{where} broke off at once") from error


async def _version(channel: Channel) -> str:
    return (await _unary(channel, _VERSION, wire.Empty(), wire.Version)).version


async def _tasks(channel: Channel) -> frozenset[BundleKey]:
    listed = await _unary(channel, _NAMESPACES, wire.ListNamespaces(), wire.Namespaces)
    keys: list[BundleKey] = []
    for name in (namespace.name.encode() for namespace in listed.namespaces):
        if not is_identifier(name):
            raise NoAnswerError(Failure.ERROR, f"it lists an impossible namespace: {show(name)}")
        tasks = await _unary(channel, _TASKS, wire.ListTasks(), wire.Tasks, name)
        keys += [BundleKey(name, (task.id or task.container_id).encode()) for task in tasks.tasks]
    return frozenset(keys)


async def _unary(
    channel: Channel, path: str, request: Message, reply: type[Reply], namespace: bytes = b""
) -> Reply:
    metadata = {"containerd-namespace": namespace.decode()} if namespace else None
    return await UnaryUnaryMethod(channel, path, type(request), reply)(request, metadata=metadata)


def _touched(envelope: wire.Envelope) -> BundleKey:
    touched = wire.Touched.FromString(envelope.event.value)
    return BundleKey(envelope.namespace.encode(), touched.id.encode())


@asynccontextmanager
async def _channel(address: bytes) -> AsyncGenerator[Channel]:
    if b"\0" in address:
        raise OSError(EINVAL, "a NUL in the path")
    channel = Channel(path=os.fsdecode(address))
    try:
        yield channel
    finally:
        channel.close()
        await cancel_shielded_checkpoint()  # the transport closes in the loop's next turn
