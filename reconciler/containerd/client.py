"""Client: the few calls of containerd's gRPC services that are needed, each with an end.

Every call opens a connection of its own and closes it: a connect costs 0.2 ms, a kept one would
have to be doubted anyway. It never says "no tasks" when it means "no answer": whatever goes wrong
is a :class:`~reconciler.containerd.answers.NoAnswerError` that names its kind. Field-notes section
7 names services and metadata.

Of containerd's own notices, a task's change becomes a hint, and its coming and going a doubt. They
only save time: all of them may be lost (principle 3). They come from a subscription that is renewed
for as long as its source runs.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio
from grpclib.client import Channel, UnaryStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from reconciler.containerd.answers import NOBODY, Failure, Known, NoAnswerError, Singles
from reconciler.containerd.calls import opened, translated, unary
from reconciler.containerd.protobuf import wire
from reconciler.containerd.records import RecordQuestions
from reconciler.containerd.tasks import TaskQuestions
from reconciler.model.containerd import ShimGroup
from reconciler.model.ids import BundleKey, escape, is_identifier
from reconciler.model.observations import Hint, HintKind, Resync, ResyncKind
from reconciler.ports import Clock, Emit
from reconciler.supervision import RESTARTS

Answer = TypeVar("Answer")

_VERSION: Final = "/containerd.services.version.v1.Version/Version"
_NAMESPACES: Final = "/containerd.services.namespaces.v1.Namespaces/List"
_DELETE: Final = "/containerd.services.tasks.v1.Tasks/Delete"
_SUBSCRIBE: Final = "/containerd.services.events.v1.Events/Subscribe"

_EXIT: Final = "/tasks/exit"
_TOPICS: Final = ('topic~="^/tasks/[^e]"', f'topic=="{_EXIT}"', 'topic=="/containers/delete"')
"""Filters of Subscribe: what can change a bundle. Each names the container in its first field.
An exec is added and started without them, and its exit is passed over: it leaves a pid file and
changes nothing else, and probes run several a second."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer: the version, and what is known of the tasks of all namespaces."""

    version: str
    known: Known


class ContainerdClient:
    """Asks one containerd.

    Args:
        address: Path of its gRPC socket.
        seconds: How long a call may take, and a subscription to be set up.
    """

    def __init__(self, address: bytes, seconds: float = 5.0) -> None:
        self._address = address
        self._seconds = seconds

    async def ask(self, singles: Singles = NOBODY) -> Answers:
        """Ask for version and tasks over one connection.

        Args:
            singles: Whom to ask for one by one in a namespace whose list does not come soon.

        Raises:
            NoAnswerError: It did not answer, so nothing is known.
        """

        async def ask() -> Answers:
            async with opened(self._address) as channel:
                with anyio.fail_after(self._seconds):
                    version = await _version(channel)
                    namespaces = await _namespaces(channel)
                # Each of these calls has an end of its own.
                questions = TaskQuestions(channel, self._address, self._seconds)
                known = await questions.all(namespaces, singles)
                records = RecordQuestions(channel, self._address, version)
                await records.ask(singles.shims(), known)
                return Answers(version, known)

        return await self._apart(ask)

    async def find(self, key: BundleKey, shim: ShimGroup = ()) -> Known:
        """Ask for a single task, and whether it knows a shim at all.

        Args:
            key: The task.
            shim: The names that its shim may serve, if that is to be known.

        Raises:
            NoAnswerError: It did not answer.
        """

        async def ask(channel: Channel) -> Known:
            known = await TaskQuestions(channel, self._address, self._seconds).one(key)
            if shim:
                version = await _version(channel)
                await RecordQuestions(channel, self._address, version).ask((shim,), known)
            return known

        return await self._bounded(ask)

    async def delete(self, key: BundleKey) -> str:
        """Ask it to delete a task; a task it does not know is fine.

        Returns:
            What went wrong, empty if nothing did. containerd refuses to delete a running task.
        """
        if not (is_identifier(key.namespace) and is_identifier(key.id)):
            return "containerd could not have created this name"

        async def ask(channel: Channel) -> None:
            request = wire.DeleteTask(container_id=key.id)
            await unary(channel, _DELETE, request, wire.Deleted, key.namespace)

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
        """Receive which tasks are touched, until containerd ends the stream.

        A subscription says nothing while nothing happens, so its silence proves nothing.

        Args:
            subscribed: Called once, when the request is sent.
            touched: Called with each task of which there is an event.

        Raises:
            NoAnswerError: It cannot be set up, or broke.
        """

        async def listen() -> None:
            async with opened(self._address) as channel:
                method = UnaryStreamMethod(channel, _SUBSCRIBE, wire.Subscribe, wire.Envelope)
                async with method.open() as stream:
                    with anyio.fail_after(self._seconds):
                        await stream.send_message(wire.Subscribe(filters=_TOPICS), end=True)
                    subscribed()
                    async for envelope in stream:
                        key = _touched(envelope)
                        if _is_of_an_exec(envelope):
                            continue
                        if is_identifier(key.namespace) and is_identifier(key.id):
                            touched(key)

        await self._apart(listen)

    async def _bounded(self, ask: Callable[[Channel], Awaitable[Answer]]) -> Answer:
        async def within() -> Answer:
            with anyio.fail_after(self._seconds):
                async with opened(self._address) as channel:
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
                with translated(self._address, self._seconds):
                    answers.append(await work())
            except NoAnswerError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
        for error in errors:
            raise error
        return answers[0]


async def _version(channel: Channel) -> str:
    return (await unary(channel, _VERSION, wire.Empty(), wire.Version)).version


async def _namespaces(channel: Channel) -> list[str]:
    listed = await unary(channel, _NAMESPACES, wire.ListNamespaces(), wire.Namespaces)
    names = [escape(namespace.name.encode()) for namespace in listed.namespaces]
    for name in names:
        if not is_identifier(name):
            raise NoAnswerError(Failure.ERROR, f"it lists an impossible namespace: {name}")
    return names


def _is_of_an_exec(envelope: wire.Envelope) -> bool:
    """Recognize the exit of an exec: it names another process beside the container (TaskExit)."""
    if envelope.topic != _EXIT:
        return False
    exited = wire.Process.FromString(envelope.event.value)
    return exited.id not in {"", exited.container_id}


def _touched(envelope: wire.Envelope) -> BundleKey:
    touched = wire.Touched.FromString(envelope.event.value)
    return BundleKey(escape(envelope.namespace.encode()), escape(touched.id.encode()))


class Events:
    """Implements `ports.Source`.

    Args:
        client: Whom to subscribe to.
        clock: Times the attempts.
    """

    def __init__(self, client: ContainerdClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def run(self, emit: Emit) -> None:
        """Emit until cancelled; containerd may come and go meanwhile."""
        received = _Subscriber(emit)
        while True:
            with suppress(NoAnswerError):
                await self._client.subscribe(received.subscribed, received.touched)
            delay = received.ended()
            await self._clock.wait(anyio.Event(), self._clock.monotonic() + delay)


class _Subscriber:
    """What becomes of one subscription after the other."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._first = True
        self._listening = False
        self._failures = 0

    def subscribed(self) -> None:
        self._listening = True
        if not self._first:  # it came; what it swept was not reported
            self._emit(Resync(ResyncKind.CONTAINERD))

    def touched(self, key: BundleKey) -> None:
        self._failures = 0
        self._emit(Hint(key, HintKind.CONTAINERD))

    def ended(self) -> float:
        """Note that it went, and give the seconds until the next attempt."""
        if self._listening:
            self._emit(Resync(ResyncKind.CONTAINERD))
        self._first = self._listening = False
        self._failures += 1
        return RESTARTS.after(self._failures)
