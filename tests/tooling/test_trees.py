"""Children of tests: what they leave behind is ended and told, and nobody mounts where it stays."""

import subprocess
from pathlib import Path

import pytest

from tests.support.children import has_ended
from tests.support.forked import in_a_child
from tests.support.mountns import private_mounts, tmpfs


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_child_leaves_behind_is_ended(tmp_path: Path, fails: bool) -> None:
    note = tmp_path / "pid"

    def body() -> None:
        # In a session of its own, and its parent ends before it: nobody's child below us.
        script = f"setsid sleep 600 & echo $! >{note}"
        subprocess.run(["sh", "-c", script], check=True)
        assert not fails, "for a reason of its own"

    why = "for a reason of its own" if fails else "left processes behind: .*sleep 600"
    with pytest.raises(pytest.fail.Exception, match=why):
        in_a_child(body)
    assert has_ended(int(note.read_text()))


def test_nothing_is_mounted_in_the_namespace_of_the_tests(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="private_mounts"):
        tmpfs(tmp_path)


@private_mounts
def test_in_one_of_its_own_a_test_may_mount(tmp_path: Path) -> None:
    tmpfs(tmp_path)
    assert tmp_path.is_mount()
