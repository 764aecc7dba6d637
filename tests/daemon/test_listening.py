"""The name of our own socket goes when we end, and nobody else's does."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.daemon.listening import Endpoint, UnixSocket
from reconciler.supervision import Supervisor


def another_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))


def a_file(path: Path) -> None:
    path.unlink()
    path.write_text("theirs")


def a_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


async def test_its_name_goes_before_it_answers_no_more(tmp_path: Path) -> None:
    path = tmp_path / "own" / "http.sock"
    unix = UnixSocket(str(path))
    endpoint = Endpoint("http.socket", str(path), unix.listen, Supervisor(), unix.withdraw)
    await endpoint.open()
    assert path.is_socket()
    endpoint.withdraw()
    assert os.listdir(path.parent) == []
    endpoint.withdraw()
    another_socket_there = path.parent / "http.sock"
    another_socket_there.touch()
    another_socket(another_socket_there)
    await endpoint.close()
    assert path.is_socket()


@pytest.mark.safety
@pytest.mark.parametrize("replace", [another_socket, a_file, a_link, Path.unlink])
async def test_what_is_not_ours_stays(tmp_path: Path, replace: Callable[[Path], None]) -> None:
    path = tmp_path / "http.sock"
    unix = UnixSocket(str(path))
    (listener,) = await unix.listen()
    replace(path)
    before = sorted(os.listdir(tmp_path))
    unix.withdraw()
    assert sorted(os.listdir(tmp_path)) == before
    await listener.aclose()
    UnixSocket(str(tmp_path / "never")).withdraw()
