"""Hiding: the id is free, the object is the one that was judged, and its name says whose it is."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler import kernel
from reconciler.model.hidden import hidden_name, parse_hidden
from reconciler.model.outcome import BlockReason
from reconciler.worker.blocked import Blocked
from reconciler.worker.removal import hide, remove_tree
from reconciler.worker.step_log import Tally
from tests.worker.removing import identity


def test_hiding_frees_the_name_and_keeps_the_object(tmp_path: Path, parent: int) -> None:
    (tmp_path / "victim").mkdir()
    expected = identity(parent, b"victim")
    hidden = hide(parent, b"victim", expected, Tally())
    assert hidden is not None
    assert os.listdir(parent) == [os.fsdecode(hidden)]
    assert hidden != b".victim"
    assert identity(parent, hidden) == expected
    assert parse_hidden(os.fsdecode(hidden)) == expected.ino
    assert hide(parent, b"victim", expected, Tally()) is None
    remove_tree(parent, hidden, expected, Tally())
    assert os.listdir(parent) == []


def test_hiding_does_not_rename_another_object(tmp_path: Path, parent: int) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "other").mkdir()
    before = identity(parent, b"victim")
    with pytest.raises(Blocked) as caught:
        hide(parent, b"victim", identity(parent, b"other"), tally := Tally())
    assert caught.value.reason is BlockReason.CHANGED
    assert tally.mutations == 0
    assert identity(parent, b"victim") == before


def racing_rename(
    monkeypatch: pytest.MonkeyPatch,
    before: Callable[[], object],
    after: Callable[[], object] = lambda: None,
) -> None:
    """Do something in the instant before, and another thing after, the first rename."""
    real, first = kernel.renameat2, True

    def rename(old_dir_fd: int, old: bytes, new_dir_fd: int, new: bytes) -> None:
        nonlocal first
        racing, first = first, False
        if racing:
            before()
        real(old_dir_fd, old, new_dir_fd, new)
        if racing:
            after()

    monkeypatch.setattr(kernel, "renameat2", rename)


@pytest.mark.fault("id created again between look and action")
def test_an_id_created_again_at_the_last_instant_gets_its_name_back(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    expected = identity(parent, b"victim")

    def recreate() -> None:
        victim.rename(tmp_path / "old")  # keeps the inode, so that the new one differs
        victim.mkdir()
        (victim / "config.json").touch()

    racing_rename(monkeypatch, recreate)
    with pytest.raises(Blocked) as caught:
        hide(parent, b"victim", expected, tally := Tally())
    assert caught.value.reason is BlockReason.CHANGED
    assert tally.mutations == 2
    assert (victim / "config.json").exists()
    assert sorted(os.listdir(parent)) == ["old", "victim"]


@pytest.mark.fault(".id existing when we rename")
def test_where_the_name_cannot_be_given_back_nothing_is_overwritten_and_it_is_said(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    expected = identity(parent, b"victim")

    def recreate() -> None:
        victim.rename(tmp_path / "old")
        victim.mkdir()
        (victim / "second").touch()

    def and_again() -> None:
        victim.mkdir()
        (victim / "third").touch()

    racing_rename(monkeypatch, recreate, and_again)
    with pytest.raises(Blocked, match=re.escape("it is now .reconciler-")):
        hide(parent, b"victim", expected, tally := Tally())
    assert tally.mutations == 1
    assert os.listdir(victim) == ["third"]
    (hidden,) = tmp_path.glob(".reconciler-*")
    assert os.listdir(hidden) == ["second"]
    assert parse_hidden(hidden.name) != hidden.stat().st_ino  # nobody's leftover


@pytest.mark.fault("hidden .id")
@pytest.mark.parametrize(
    ("name", "ino"),
    [
        (hidden_name(0x2A, b"\0" * 8), 0x2A),
        (hidden_name(2**64 - 1, b"\xff" * 8), 2**64 - 1),
        (".reconciler-2a-0000000000000000\n", None),
        (".reconciler-2a-000000000000000", None),
        (".reconciler-02a-0000000000000000", None),
        (".reconciler--0000000000000000", None),
        (".reconciler-2A-0000000000000000", None),
        ("x.reconciler-2a-0000000000000000", None),
        (".reconciler-" + "f" * 17 + "-0000000000000000", None),
        (".victim", None),
        ("", None),
    ],
    ids=str,
)
def test_only_our_own_hidden_names_are_known(name: str, ino: int | None) -> None:
    assert parse_hidden(name) == ino
