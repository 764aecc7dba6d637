"""What mounts hide is said, from the mount table alone: nothing that is mounted is touched."""

import os
from pathlib import Path

import pytest

from reconciler.cli.checks import check_namespaces
from reconciler.cli.output import Output
from reconciler.model.layout import Layout
from reconciler.probe import checks


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(state=os.fsencode(tmp_path / "run"))
    os.makedirs(os.path.join(layout.tasks, b"shop"))
    return layout


def mounted(monkeypatch: pytest.MonkeyPatch, *points: bytes) -> None:
    lines = [
        b"%d 1 0:%d / %s rw - tmpfs none rw\n" % (number, number, point)
        for number, point in enumerate((b"/", *points), 10)
    ]
    monkeypatch.setattr(checks, "read_table", lambda: b"".join(lines))


def test_a_tree_on_a_mount_of_its_own_is_as_it_should_be(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, layout.state, layout.tasks + b"/shop/web/rootfs", layout.state + b"-2")
    assert checks.out_of_sight(layout) == []
    mounted(monkeypatch, layout.tasks + b"/shop")
    assert checks.out_of_sight(layout, {"other"}) == []
    assert checks.out_of_sight(layout, {"other", "shop"}) != []


def test_what_lies_below_another_filesystem_is_told_before_an_answer(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mounted(monkeypatch, layout.state, layout.state, layout.tasks + b"/shop")
    check_namespaces(layout, (), Output(quiet=True))
    two, shop = capsys.readouterr().err.splitlines()
    assert f"warning: 2 filesystems are mounted on {os.fsdecode(layout.state)}, one over" in two
    assert "warning: namespace shop is a mount of its own, and nothing in it is looked at" in shop
    os.rmdir(layout.tasks + b"/shop")
    os.rmdir(layout.tasks)
    problem = checks.check_tree(layout)
    assert problem is not None
    assert problem.what.startswith(f"2 filesystems are mounted on {os.fsdecode(layout.state)}")
    assert "unmount" in problem.hint
    mounted(monkeypatch, layout.state)
    problem = checks.check_tree(layout)
    assert problem is not None
    assert "is not a containerd state directory" in problem.what


def test_a_mount_table_that_cannot_be_read_is_no_reason_to_say_anything(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread() -> bytes:
        raise PermissionError

    monkeypatch.setattr(checks, "read_table", unread)
    assert checks.out_of_sight(layout) == []
