"""A containerd that does as it is told: its API on a unix socket, its lock held by a real process.

    async with FakeContainerd(tmp_path) as fake:
        fake.tasks.add(BundleKey("default", "web"))
        with fake.lock():
            ...

The server runs in the test's own event loop; the lock is taken by a child, as containerd's is by
another process than ours.
"""

import math
import os
import socket
import subprocess
import sys
from asyncio import BaseTransport, Transport
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self, TypeVar

import anyio
from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream
from typing_extensions import override

from reconciler.containerd import wire_pb2 as wire
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout

_HOLDER: Final = """
import fcntl, signal, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
signal.pause()
"""

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)

_SERVICES: Final = "/containerd.services."
VERSION: Final = "version.v1.Version/Version"
NAMESPACES: Final = "namespaces.v1.Namespaces/List"
TASKS: Final = "tasks.v1.Tasks/List"
GET: Final = "tasks.v1.Tasks/Get"
DELETE: Final = "tasks.v1.Tasks/Delete"
CONTAINER: Final = "containers.v1.Containers/Get"
SANDBOX: Final = "sandbox.v1.Store/Get"
SUBSCRIBE: Final = "events.v1.Events/Subscribe"


class FakeContainerd:
    """Answers Version, Namespaces.List, Tasks.List, Get and Delete, and Events.Subscribe.

    Attributes:
        layout: Where it is; only its socket and its lock are ever there.
        version: What it calls itself.
        namespaces: Namespaces it lists, beside those of its tasks.
        tasks: Its tasks.
        running: Those of them that it will not delete.
        containers: Those it has a record of, beside its tasks.
        sandboxes: The sandboxes in its store; None if it has none, as before 1.7.
        slow: Seconds before each answer; infinite: it hangs.
        delays: Methods, or namespaces of `TASKS`, with seconds before their answers.
        wedged: Tasks whose shim does not answer it.
        patience: Seconds it waits for each of them, one after the other in a list.
        drops: Methods at which every connection breaks off.
        errors: Methods, or namespaces of `TASKS`, with what they answer instead.
        calls: Methods called, in order, with the namespace.
        asked: Tasks asked for alone, in order.
    """

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(
            state=os.fsencode(directory / "state"),
            root=os.fsencode(directory / "root"),
            address=os.fsencode(directory / "containerd.sock"),
            runtime_dir=os.fsencode(directory / "state"),
        )
        self.version = "1.6.20"
        self.namespaces: set[str] = set()
        self.tasks: set[BundleKey] = set()
        self.running: set[BundleKey] = set()
        self.containers: set[BundleKey] = set()
        self.sandboxes: set[BundleKey] | None = None
        self.slow = 0.0
        self.delays: dict[str, float] = {}
        self.wedged: set[BundleKey] = set()
        self.patience = 0.2
        self.drops: set[str] = set()
        self.errors: dict[str, GRPCError] = {}
        self.calls: list[tuple[str, str]] = []
        self.asked: list[BundleKey] = []
        self._subscribers: list[Callable[[wire.Envelope], None]] = []
        self._changed = anyio.Event()
        self._server: _Server | None = None

    # ---------------------------------------------------------------- as a test drives it

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, where a dead one may have listened before."""
        with suppress(FileNotFoundError):
            os.unlink(self.layout.address)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.layout.address)
        self._server = _Server([self])
        await self._server.start(sock=listener)

    async def stop(self) -> None:
        """End as if killed: connections break off, the socket stays and refuses."""
        server, self._server = self._server, None
        if server is not None:
            server.drop()
            server.close()
            await server.wait_closed()

    def drop(self) -> None:
        """Break every connection off."""
        if self._server is not None:
            self._server.drop()

    @contextmanager
    def lock(self) -> Generator[int]:
        """Let a child hold the metadata lock, as a living containerd does; gives its pid."""
        with held(self.leave_lock()) as pid:
            yield pid

    def leave_lock(self) -> Path:
        """Make the metadata file, held by nobody, as a dead containerd leaves it."""
        path = Path(os.fsdecode(self.layout.metadata_lock))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    async def subscribed(self, count: int = 1) -> None:
        """Wait for subscribers."""
        while len(self._subscribers) < count:
            await self._changed.wait()

    async def listening(self) -> None:
        """Wait until a subscription will be served."""
        await self.subscribed()

    def publish(self, key: BundleKey, topic: str = "/tasks/exit", process: str = "") -> None:
        """Tell the subscribers about a task, or about one of its processes."""
        value = wire.Process(container_id=key.id, id=process).SerializeToString()
        envelope = wire.Envelope(
            namespace=key.namespace, topic=topic, event=wire.Payload(value=value)
        )
        for send in self._subscribers:
            send(envelope)

    async def run(self, key: BundleKey) -> None:
        """Run a container."""
        self.tasks.add(key)
        self.running.add(key)
        self.publish(key, "/tasks/start")

    async def end(self, key: BundleKey) -> None:
        """Let a container's process end; the task stays."""
        self.running.remove(key)
        self.publish(key, "/tasks/exit")

    # ---------------------------------------------------------------- as a client sees it

    def __mapping__(self) -> dict[str, Handler]:
        unary, stream = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        store = Handler(self._get_sandbox, unary, wire.GetSandbox, wire.Recorded)
        return {
            **({} if self.sandboxes is None else {_SERVICES + SANDBOX: store}),
            _SERVICES + CONTAINER: Handler(
                self._get_container, unary, wire.GetContainer, wire.Recorded
            ),
            _SERVICES + VERSION: Handler(self._version, unary, wire.Empty, wire.Version),
            _SERVICES + NAMESPACES: Handler(
                self._list_namespaces, unary, wire.ListNamespaces, wire.Namespaces
            ),
            _SERVICES + TASKS: Handler(self._list_tasks, unary, wire.ListTasks, wire.Tasks),
            _SERVICES + GET: Handler(self._get, unary, wire.GetTask, wire.Got),
            _SERVICES + DELETE: Handler(self._delete, unary, wire.DeleteTask, wire.Deleted),
            _SERVICES + SUBSCRIBE: Handler(self._subscribe, stream, wire.Subscribe, wire.Envelope),
        }

    async def _version(self, stream: Stream[wire.Empty, wire.Version]) -> None:
        await self._begin(VERSION, stream)
        await stream.send_message(wire.Version(version=self.version))

    async def _list_namespaces(self, stream: Stream[wire.ListNamespaces, wire.Namespaces]) -> None:
        await self._begin(NAMESPACES, stream)
        names = sorted(self.namespaces | {key.namespace for key in self.tasks})
        listed = [wire.Namespace(name=name) for name in names]
        await stream.send_message(wire.Namespaces(namespaces=listed))

    async def _list_tasks(self, stream: Stream[wire.ListTasks, wire.Tasks]) -> None:
        _, namespace = await self._begin(TASKS, stream)
        keys = [key for key in sorted(self.tasks) if key.namespace == namespace]
        listed = [await self._process(key) for key in keys]
        await stream.send_message(wire.Tasks(tasks=listed))

    async def _get(self, stream: Stream[wire.GetTask, wire.Got]) -> None:
        request, namespace = await self._begin(GET, stream)
        key = BundleKey(namespace, request.container_id)
        self.asked.append(key)
        if key not in self.tasks:
            raise GRPCError(Status.NOT_FOUND, f"task {key.id} not found")
        await stream.send_message(wire.Got(process=await self._process(key)))

    async def _get_container(self, stream: Stream[wire.GetContainer, wire.Recorded]) -> None:
        request, namespace = await self._begin(CONTAINER, stream)
        if BundleKey(namespace, request.id) not in self.containers | self.tasks:
            raise GRPCError(Status.NOT_FOUND, f"container {request.id} not found")
        await stream.send_message(wire.Recorded())

    async def _get_sandbox(self, stream: Stream[wire.GetSandbox, wire.Recorded]) -> None:
        request, namespace = await self._begin(SANDBOX, stream)
        if BundleKey(namespace, request.sandbox_id) not in (self.sandboxes or ()):
            raise GRPCError(Status.NOT_FOUND, f"sandbox {request.sandbox_id} not found")
        await stream.send_message(wire.Recorded())

    async def _process(self, key: BundleKey) -> wire.Process:
        """Tell of a task; a wedged shim is waited for and then its state is not known."""
        if key not in self.wedged:
            return wire.Process(id=key.id, status=2)
        await anyio.sleep(self.patience)
        return wire.Process(id=key.id)

    async def _delete(self, stream: Stream[wire.DeleteTask, wire.Deleted]) -> None:
        request, namespace = await self._begin(DELETE, stream)
        key = BundleKey(namespace, request.container_id)
        if key not in self.tasks:
            raise GRPCError(Status.NOT_FOUND, f"task {key.id} not found")
        if key in self.running:
            raise GRPCError(Status.UNKNOWN, "cannot delete a running process")
        self.tasks.remove(key)
        self.publish(key, "/tasks/delete")
        await stream.send_message(wire.Deleted(exit_status=137))

    async def _subscribe(self, stream: Stream[wire.Subscribe, wire.Envelope]) -> None:
        await self._begin(SUBSCRIBE, stream)
        sender, receiver = anyio.create_memory_object_stream[wire.Envelope](math.inf)
        with sender, receiver:
            self._subscribers.append(sender.send_nowait)
            self._changed.set()
            self._changed = anyio.Event()
            try:
                async for envelope in receiver:
                    await stream.send_message(envelope)
            finally:
                self._subscribers.remove(sender.send_nowait)

    async def _begin(self, method: str, stream: Stream[Request, Reply]) -> tuple[Request, str]:
        """Note the call and misbehave as told, before there is an answer."""
        request = await stream.recv_message()
        assert request is not None
        assert stream.metadata is not None
        namespace = stream.metadata.get("containerd-namespace", "")
        assert isinstance(namespace, str)
        self.calls.append((method, namespace))
        delay = self.slow or self.delays.get(method, 0.0)
        if method == TASKS:
            delay = delay or self.delays.get(namespace, 0.0)
        if delay:
            await anyio.sleep(delay)
        if method in self.drops:
            self.drop()
        error = self.errors.get(method) or self.errors.get(namespace)
        if error is not None:
            raise error
        return request, namespace


class _Server(Server):
    """A server whose connections can be broken off."""

    def __init__(self, handlers: list[FakeContainerd]) -> None:
        super().__init__(handlers)
        self._protocols: list[_Protocol] = []

    @override
    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        mine = _Protocol(protocol.handler, self._config, self._h2_config)
        self._protocols.append(mine)
        return mine

    def drop(self) -> None:
        for protocol in self._protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        self._protocols.clear()


class _Protocol(H2Protocol):
    """A connection that remembers its transport."""

    transport: Transport | None = None

    @override
    def connection_made(self, transport: BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self.transport = transport
        super().connection_made(transport)


@contextmanager
def held(path: Path) -> Generator[int]:
    """Let a child process hold a flock on a file; gives its pid."""
    command = [sys.executable, "-I", "-c", _HOLDER, os.fspath(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            yield child.pid
        finally:
            child.kill()
