"""What lies beneath a directory is entered by handles alone, and what cannot be entered is told."""

import os
from errno import EFBIG, ELOOP, EXDEV
from pathlib import Path

import pytest

from reconciler import kernel
from reconciler.model.layout import Layout
from reconciler.probe import beneath
from reconciler.probe.beneath import Entered, enter, names, opened, visible
from reconciler.probe.tree import TreeInspector
from tests.support.handles import open_files
from tests.support.mountns import private_mounts, tmpfs

pytestmark = pytest.mark.safety


def entered(path: Path) -> set[tuple[bytes, int]]:
    with opened(os.fsencode(path)) as top:
        found = list(enter(top, names(top)))
    assert all((one.fd < 0) == bool(one.errno) for one in found)
    return {(one.name, one.errno) for one in found}


@private_mounts
def test_a_symlink_and_a_mount_are_told_and_not_entered(tmp_path: Path) -> None:
    for name in ("k8s.io", "mounted"):
        (tmp_path / name).mkdir()
    tmpfs(tmp_path / "mounted")
    (tmp_path / "link").symlink_to(tmp_path / "k8s.io")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    links = {(b"link", ELOOP), (b"dangling", ELOOP)}
    assert entered(tmp_path) == {(b"k8s.io", 0), (b"mounted", EXDEV), *links}


def test_what_is_gone_since_it_was_named_is_left_out(tmp_path: Path) -> None:
    with opened(os.fsencode(tmp_path)) as top:
        assert list(enter(top, [b"gone"])) == []


def test_only_one_is_open_at_a_time_and_none_afterwards(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).mkdir()
    before = open_files()
    with opened(os.fsencode(tmp_path)) as top:
        walk = enter(top, names(top))
        kept: Entered | None = None
        for one in walk:
            if kept is not None:
                with pytest.raises(OSError, match="Bad file"):
                    os.fstat(kept.fd) if kept.fd != one.fd else os.fstat(-1)
            kept = one
        left = enter(top, names(top))
        next(left)
        del left
    assert open_files() <= before


def test_a_hidden_name_is_one_and_not_visible(tmp_path: Path) -> None:
    for name in ("a", ".b"):
        (tmp_path / name).mkdir()
    with opened(os.fsencode(tmp_path)) as top:
        assert (set(names(top)), list(visible(top))) == ({b"a", b".b"}, [b"a"])


def test_a_directory_that_was_removed_is_empty(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    with opened(os.fsencode(tmp_path / "gone")) as gone:
        (tmp_path / "gone").rmdir()
        assert list(names(gone)) == []


def test_more_names_than_anybody_makes_are_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beneath, "MOST_NAMES", 3)
    for number in range(4):
        (tmp_path / str(number)).mkdir()
    with (
        opened(os.fsencode(tmp_path)) as top,
        pytest.raises(OSError, match="more than 3") as raised,
    ):
        list(names(top))
    assert raised.value.errno == EFBIG


def test_a_namespace_that_goes_while_it_is_listed_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(state=os.fsencode(tmp_path))
    tree = Path(os.fsdecode(layout.tasks))
    for name in ("a/gone", "b/one", "c/two"):
        (tree / name).mkdir(parents=True)
    real = kernel.open_beneath

    def racing(parent: int, name: bytes) -> int:
        handle = real(parent, name)
        if name == b"a":
            (tree / "a" / "gone").rmdir()
            (tree / "a").rmdir()
        return handle

    monkeypatch.setattr(kernel, "open_beneath", racing)
    listed = TreeInspector(layout).list()
    assert (listed.answered, listed.present) == (True, True)
    assert {str(seen.key) for seen in listed.bundles} == {"b/one", "c/two"}
