"""The client answers whole or says what kind of silence it was, and leaves nothing open."""

import asyncio
import os
import socket
import threading
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from reconciler.containerd.answers import Failure, NoAnswerError
from reconciler.containerd.client import ContainerdClient
from reconciler.model.ids import BundleKey
from tests.support.deadfuse import dead_fuse, end_if_it_hangs
from tests.support.fake_containerd import (
    DELETE,
    NAMESPACES,
    SUBSCRIBE,
    TASKS,
    VERSION,
    FakeContainerd,
)
from tests.support.forked import in_a_child
from tests.support.handles import open_files
from tests.support.mountns import private_mounts

WEB = BundleKey("default", "web")
DNS = BundleKey("k8s.io", "dns")


def client_of(fake: FakeContainerd, seconds: float = 5.0) -> ContainerdClient:
    return ContainerdClient(fake.layout.address, seconds)


async def failure_of(client: ContainerdClient) -> Failure:
    with pytest.raises(NoAnswerError) as caught:
        await client.ask()
    return caught.value.failure


async def tasks_of(client: ContainerdClient) -> set[BundleKey]:
    """Ask for the tasks of all namespaces; there must be a list of each."""
    known = (await client.ask()).known
    assert not known.unlisted
    return known.tasks


async def test_lists_the_tasks_of_every_namespace(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks = {WEB, DNS}
        fake.namespaces = {"empty"}
        told = await client_of(fake).ask()
    assert told.known.tasks == {WEB, DNS}
    assert told.version == "1.6.20"
    assert [namespace for method, namespace in fake.calls if method == TASKS] == [
        "default",
        "empty",
        "k8s.io",
    ]


async def test_nothing_to_list_is_an_answer(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        assert await tasks_of(client_of(fake)) == frozenset()


async def test_ten_thousand_tasks_arrive(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks = {BundleKey("default", f"{number:064}") for number in range(10_000)}
        assert await tasks_of(client_of(fake, 30)) == fake.tasks


async def test_one_namespace_that_fails_is_no_answer_there(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks = {WEB, DNS}
        fake.errors = {"k8s.io": GRPCError(Status.UNKNOWN, "shim is on fire")}
        told = await client_of(fake).ask()
    assert (told.known.tasks, told.known.unlisted) == ({WEB}, {"k8s.io"})


async def test_an_impossible_namespace_is_no_answer(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.namespaces = {"gr\u00fcn\n"}
        assert await failure_of(client_of(fake)) is Failure.ERROR


@pytest.mark.parametrize("method", [VERSION, NAMESPACES, TASKS])
async def test_an_error_is_no_answer(tmp_path: Path, method: str) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks = {WEB}
        fake.errors = {method: GRPCError(Status.UNAVAILABLE, "not now")}
        assert await failure_of(client_of(fake)) is Failure.ERROR


@pytest.mark.parametrize("method", [VERSION, NAMESPACES, TASKS])
async def test_a_dropped_connection_is_no_answer(tmp_path: Path, method: str) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks = {WEB}
        fake.drops = {method}
        assert await failure_of(client_of(fake)) is Failure.BROKEN


async def test_a_slow_answer_is_waited_for_within_the_deadline(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks, fake.slow = {WEB}, 0.05
        assert await tasks_of(client_of(fake)) == {WEB}


async def test_a_hung_containerd_is_no_answer_in_time(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.slow = 3600
        assert await failure_of(client_of(fake, 0.1)) is Failure.TIMEOUT


async def test_the_deadline_counts_for_all_namespaces_together(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.namespaces = {f"n{number}" for number in range(100)}
        fake.delays = dict.fromkeys(fake.namespaces, 3600.0)
        with anyio.fail_after(3):
            assert await failure_of(client_of(fake, 0.5)) is Failure.TIMEOUT


async def test_many_namespaces_are_waited_for_at_the_same_time(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.namespaces, fake.slow = {f"n{number}" for number in range(100)}, 0.05
        with anyio.fail_after(4):  # one after the other they would take five seconds
            assert await tasks_of(client_of(fake)) == frozenset()


@pytest.mark.fault("containerd SIGSTOPped")
async def test_a_stopped_process_behind_the_socket_is_no_answer_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        path = os.fsencode(tmp_path / "s")
        listener.bind(path)
        listener.listen(100)
        assert await failure_of(ContainerdClient(path, 0.1)) is Failure.TIMEOUT


async def test_a_full_backlog_is_never_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        path = os.fsencode(tmp_path / "s")
        listener.bind(path)
        listener.listen(0)
        waiting.connect(path)
        assert await failure_of(ContainerdClient(path, 0.2)) in {Failure.TIMEOUT, Failure.BROKEN}


async def test_a_missing_and_a_refusing_socket_are_nobody(tmp_path: Path) -> None:
    fake = FakeContainerd(tmp_path)
    assert await failure_of(client_of(fake)) is Failure.NOBODY
    await fake.start()
    await fake.stop()
    os.stat(fake.layout.address)
    assert await failure_of(client_of(fake)) is Failure.NOBODY


@pytest.mark.parametrize("bad", [b"/" + b"x" * 200, b"/dev/null/containerd.sock", b"/a\0b"])
async def test_an_impossible_address_proves_nothing(bad: bytes) -> None:
    assert await failure_of(ContainerdClient(bad)) is Failure.BROKEN


async def test_an_address_that_is_not_utf8_works(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\n"
    os.mkdir(odd)
    async with FakeContainerd(Path(os.fsdecode(odd))) as fake:
        assert (await client_of(fake).ask()).version == "1.6.20"


@pytest.mark.parametrize(
    "talk", [b"", b"\0" * 64, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 9000]
)
async def test_something_that_is_not_grpc_is_no_answer(tmp_path: Path, talk: bytes) -> None:
    path = os.fsencode(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(10)

        def answer() -> None:
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(talk)

        thread = threading.Thread(target=answer)
        thread.start()
        found = await failure_of(ContainerdClient(path, 5))
        thread.join()
    assert found is Failure.BROKEN


async def test_delete_removes_a_task(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks = {WEB, DNS}
        assert await client_of(fake).delete(WEB) == ""
        assert fake.tasks == {DNS}
        assert fake.calls == [(DELETE, "default")]


async def test_deleting_an_unknown_task_is_fine(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        assert await client_of(fake).delete(WEB) == ""


async def test_a_refused_delete_gives_the_reason(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks = {WEB}
        fake.errors = {DELETE: GRPCError(Status.FAILED_PRECONDITION, "task must be stopped")}
        told = await client_of(fake).delete(WEB)
        assert "FAILED_PRECONDITION: task must be stopped" in told
        assert fake.tasks == {WEB}
    assert "nobody listens" in await client_of(fake).delete(WEB)


async def test_a_name_that_is_none_is_never_asked_for(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        assert await client_of(fake).delete(BundleKey("default", "\xff\n")) != ""
        assert await client_of(fake).delete(BundleKey("../x", "web")) != ""
        assert fake.calls == []


async def test_a_subscriber_hears_which_tasks_were_touched(tmp_path: Path) -> None:
    received: list[BundleKey] = []
    async with FakeContainerd(tmp_path) as fake, anyio.create_task_group() as tasks:
        subscribed = anyio.Event()
        tasks.start_soon(client_of(fake).subscribe, subscribed.set, received.append)
        with anyio.fail_after(5):
            await subscribed.wait()
            await fake.subscribed()
            fake.publish(WEB, "/tasks/create")
            fake.publish(BundleKey("default", "not an id"))
            fake.publish(DNS, "/containers/delete")
            while DNS not in received:
                await checkpoint()
        tasks.cancel_scope.cancel()
    assert received == [WEB, DNS]


async def test_a_subscription_that_breaks_says_so(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake, anyio.create_task_group() as tasks:

        async def drop() -> None:
            await fake.subscribed()
            fake.drop()

        tasks.start_soon(drop)
        with pytest.raises(NoAnswerError) as caught:
            await client_of(fake).subscribe(lambda: None, lambda key: None)
    assert caught.value.failure is Failure.BROKEN


async def test_nothing_stays_open(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.tasks = {WEB}
        before = open_files()
        await client_of(fake).ask()
        fake.slow = 3600
        await failure_of(client_of(fake, 0.1))  # a deadline in the middle of a call
        with anyio.move_on_after(0.05):
            await client_of(fake).ask()  # cancelled in the middle of a call
        fake.slow = 0
        with anyio.move_on_after(0.05):  # cancelled while it waits
            await client_of(fake).subscribe(lambda: None, lambda key: None)
        fake.drops = {VERSION}
        await failure_of(client_of(fake))
        with anyio.fail_after(5):
            while not open_files() <= before:  # the server's ends close in the loop's next turns
                await checkpoint()


async def test_a_broken_connection_leaves_no_task_half_cancelled(tmp_path: Path) -> None:
    async with FakeContainerd(tmp_path) as fake:
        fake.drops = {VERSION, SUBSCRIBE}
        await failure_of(client_of(fake))
        with pytest.raises(NoAnswerError):
            await client_of(fake).subscribe(lambda: None, lambda key: None)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@pytest.mark.fault("I18", "a shared directory on a dead filesystem")
@private_mounts
def test_a_socket_on_a_dead_filesystem_is_not_connected_to(tmp_path: Path) -> None:
    def ask() -> Failure:
        end_if_it_hangs()
        return anyio.run(failure_of, ContainerdClient(os.fsencode(tmp_path / "containerd.sock")))

    server = dead_fuse(tmp_path)
    try:
        assert in_a_child(ask) is Failure.BROKEN
    finally:
        os.close(server)
