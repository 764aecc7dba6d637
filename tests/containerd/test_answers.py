"""A socket that is not there is known without gRPC, and exactly where connecting finds the same."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.containerd.answers import Failure, is_absent
from reconciler.containerd.client import ContainerdClient
from tests.containerd.test_client import failure_of


def _left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))


def _under_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


PLACES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "nothing": (lambda _path: None, True),
    "no directory": (lambda path: path.parent.rmdir(), True),
    "a socket left behind": (_left_behind, False),
    "a file": (Path.touch, False),
    "a file for a directory": (_under_a_file, False),
    "a symlink to nothing": (lambda path: path.symlink_to("nothing"), False),
}


@pytest.mark.parametrize("place", PLACES)
async def test_absent_is_where_asking_finds_nobody(tmp_path: Path, place: str) -> None:
    make, absent = PLACES[place]
    path = tmp_path / "run" / "containerd.sock"
    path.parent.mkdir()
    make(path)
    address = os.fsencode(path)
    assert is_absent(address) is absent
    if absent:
        assert await failure_of(ContainerdClient(address)) is Failure.NOBODY


def test_a_path_that_cannot_be_one_is_not_absent() -> None:
    assert not is_absent(b"/run/\0")
