"""Addresses of shims, and what a knock tells."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.evidence import ShimState
from reconciler.probe.handles import Handles
from reconciler.probe.sockets import Address, ShimNames, SocketProbe, ask_sockets, parse_address
from tests.probe.world import World, nobody


def probe(path: Path | bytes) -> ShimState:
    sockets = SocketProbe()
    state, _ = sockets.probe(Address(os.fsencode(path)))
    sockets.close()
    return state


def test_a_listener_is_alive_and_sees_a_hang_up(world: World) -> None:
    listener = world.listen(world.base / "s")
    assert probe(world.base / "s") is ShimState.ALIVE
    accepted, _ = listener.accept()
    with accepted:
        assert accepted.recv(1) == b""


@pytest.mark.fault("wedged shim")
def test_a_full_backlog_is_alive(world: World) -> None:
    path = world.base / "s"
    world.listen(path, backlog=0)
    waiting = []
    try:
        for _ in range(8):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            waiting.append(one)
            if one.connect_ex(os.fsencode(path)) == 11:
                break
        else:
            pytest.fail("the backlog never filled")
        sockets = SocketProbe()
        assert sockets.probe(Address(os.fsencode(path))) == (ShimState.ALIVE, "its backlog is full")
        sockets.close()
    finally:
        for one in waiting:
            one.close()


def test_a_refusal_is_death(world: World) -> None:
    world.refuse(world.base / "s")
    assert probe(world.base / "s") is ShimState.DEAD


def test_a_missing_name_is_death(world: World) -> None:
    assert probe(world.base / "s") is ShimState.DEAD
    assert probe(world.base / "no" / "s") is ShimState.DEAD


def test_what_is_no_socket_is_not_opened_and_refuses(world: World) -> None:
    os.mkfifo(world.base / "fifo")
    (world.base / "file").touch()
    assert probe(world.base / "fifo") is ShimState.DEAD
    assert probe(world.base / "file") is ShimState.DEAD


@pytest.mark.parametrize("length", [100, 107, 108, 180])
def test_paths_longer_than_an_address_are_reached(world: World, length: int) -> None:
    directory = world.base / ("d" * max(1, length - len(str(world.base)) - 5))
    directory.mkdir()
    path = directory / "sock"
    assert probe(path) is ShimState.DEAD
    world.listen(path)
    assert probe(path) is ShimState.ALIVE


def test_a_name_longer_than_an_address_is_no_answer(world: World) -> None:
    assert probe(world.base / ("n" * 200)) is ShimState.NONE


def test_a_path_through_a_file_is_no_answer(world: World) -> None:
    (world.base / "file").touch()
    assert probe(world.base / "file" / "sock") is ShimState.NONE


def test_no_permission_is_no_answer(open_world: World) -> None:
    listener = open_world.listen(open_world.base / "s")
    (open_world.base / "s").chmod(0o600)
    with nobody():
        assert probe(open_world.base / "s") is ShimState.NONE
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_abstract_sockets_are_alive_or_no_answer() -> None:
    name = b"\0reconciler-test-%d" % os.getpid()
    assert probe(name) is ShimState.NONE
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(name)
        one.listen()
        assert probe(name) is ShimState.ALIVE


def test_one_door_serves_dead_and_living_in_any_order(world: World) -> None:
    world.listen(world.base / "alive")
    world.refuse(world.base / "dead")
    sockets = SocketProbe()
    paths = ["dead", "alive", "gone", "alive", "dead", "dead", "alive"]
    states = [sockets.probe(Address(os.fsencode(world.base / path)))[0] for path in paths]
    sockets.close()
    assert [state is ShimState.ALIVE for state in states] == [path == "alive" for path in paths]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"unix:///run/containerd/s/abc", b"/run/containerd/s/abc"),
        (b" unix:///run//s/./abc\n", b"/run/s/abc"),
        (b"unix://@abc", b"\0abc"),
        (b"@abc", b"\0abc"),
        (b"\0abc", b"\0abc"),
        (b"/containerd-shim/abc.sock", b"\0/containerd-shim/abc.sock"),
        (b"vsock://3:1024", b""),
        (b"hvsock:///x/y:10", b""),
    ],
)
def test_addresses_are_read(text: bytes, path: bytes) -> None:
    address = parse_address(text)
    assert address is not None
    assert address.path == path


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"unix://",
        b"unix:///",
        b"unix://relative/path",
        b"unix:///a/../../etc",
        b"unix:///a\0b",
        b"unix://" + b"/x" * 3000,
        b"garbage",
        b"://x",
        b"@",
        b"@" + b"x" * 200,
    ],
)
def test_malformed_addresses_are_none(text: bytes) -> None:
    assert parse_address(text) is None


@given(st.binary(max_size=300))
def test_any_address_is_read_or_none(text: bytes) -> None:
    address = parse_address(text)
    assert address is None or address.path == b"" or address.path[:1] in {b"/", b"\0"}


# ---------------------------------------------------------------------- which socket is asked


def ask(world: World, named: tuple[Address, ...], group: str | None = "c1") -> ShimState:
    sockets = SocketProbe()
    with Handles() as handles:
        found = ask_sockets(
            ShimNames("default", group, "c1", named), world.layout, sockets, handles
        )
    sockets.close()
    return found.state


def test_other_transports_are_no_answer(world: World) -> None:
    assert ask(world, (Address(b""),)) is ShimState.NONE


def test_the_most_alive_answer_wins(world: World) -> None:
    sockets = world.socket_of().parent
    world.listen(sockets / "alive")
    alive = Address(os.fsencode(sockets / "alive"))
    dead = Address(os.fsencode(sockets / "dead"))
    silent = Address(b"")
    assert ask(world, (dead, silent, alive)) is ShimState.ALIVE
    assert ask(world, (dead, silent)) is ShimState.NONE
    assert ask(world, (dead,)) is ShimState.DEAD
    assert ask(world, ()) is ShimState.UNNAMED


def test_the_derived_socket_of_group_or_id_is_asked(world: World) -> None:
    world.listen(world.socket_of("pod1"))
    assert ask(world, (), "pod1") is ShimState.ALIVE
    assert ask(world, (), None) is ShimState.UNNAMED
    world.listen(world.socket_of("c1"))
    assert ask(world, (), "pod2") is ShimState.ALIVE


def test_other_containerd_addresses_derive_other_sockets(world: World) -> None:
    elsewhere = b"/elsewhere/containerd.sock"
    world.listen(world.layout.shim_socket("default", "c1", elsewhere))
    sockets = SocketProbe()
    names = ShimNames("default", "c1", "c1")
    with Handles() as handles:
        found = ask_sockets(names, world.layout, sockets, handles)
        assert found.state is ShimState.UNNAMED
        found = ask_sockets(names, world.layout, sockets, handles, (elsewhere,))
        assert found.state is ShimState.ALIVE
    sockets.close()
