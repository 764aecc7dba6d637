"""What a dead bundle left elsewhere is removed only if it is the object that was judged.

Runc's root, the socket directory, the FIFO directory and the names of cgroups are shared between
the containerds of a node: another one may begin to use a name at any moment.
"""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.model.layout import TASKS
from reconciler.model.outcome import Result, StepResult
from reconciler.worker.objects import find
from tests.support.bundles import Bundle
from tests.support.inline import InlineWorker, assert_cleaned, inline_worker, step
from tests.support.mountns import private_mounts

POINTS = (
    "hooks",
    "unmount",
    "rootfs",
    "cgroup",
    "runc-state",
    "shim-socket",
    "fifo",
    "work-dir",
    "bundle",
)
"""Every step after the look that judged."""


def replace_directory(path: Path) -> Path:
    """Put another directory with the same files in the place of one."""
    old = path.with_name("going")
    if path.exists():
        path.rename(old)
    shutil.copytree(old, path) if old.exists() else path.mkdir()
    shutil.rmtree(old, ignore_errors=True)
    return path


def another_state(bundle: Bundle) -> list[Path]:
    """Another state with the very content of the first: only the object tells."""
    path = bundle.runc_state
    if path.exists():
        content = (path / "state.json").read_bytes()
        (path / "state.json").unlink()
        path.rmdir()
    else:
        content = b"{}"
    path.mkdir()
    (path / "state.json").write_bytes(content)
    return [path / "state.json"]


def state_in_creation(bundle: Bundle) -> list[Path]:
    """What runc makes first: a directory with nothing in it."""
    path = bundle.runc_state
    (path / "state.json").unlink(missing_ok=True)
    if path.exists():
        path.rmdir()
    path.mkdir()
    return [path]


def another_cgroup(bundle: Bundle) -> list[Path]:
    """Runc is about to join it."""
    for group in bundle.cgroups:
        if group.exists():
            group.rmdir()
        group.mkdir()
    return list(bundle.cgroups)


def another_socket(bundle: Bundle) -> list[Path]:
    """A shim has bound it and does not listen yet."""
    bundle.socket.unlink(missing_ok=True)
    directory = os.open(bundle.socket.parent, os.O_PATH)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(f"/proc/self/fd/{directory}/{bundle.socket.name}")
    bound.close()
    os.close(directory)
    return [bundle.socket]


def another_work(bundle: Bundle) -> list[Path]:
    if bundle.work.exists():
        bundle.work.rmdir()
    bundle.work.mkdir()
    (bundle.work / "precious").write_text("precious")
    return [bundle.work / "precious"]


def another_fifos(bundle: Bundle) -> list[Path]:
    shutil.rmtree(bundle.fifos, ignore_errors=True)
    bundle.fifos.mkdir()
    made = [bundle.fifos / f"{bundle.path.name}-{end}" for end in ("stdin", "stdout", "stderr")]
    for path in made:
        os.mkfifo(path)
    return made


KINDS: list[Callable[[Bundle], list[Path]]] = [
    another_state,
    state_in_creation,
    another_cgroup,
    another_socket,
    another_work,
    another_fifos,
]


def at(inline: InlineWorker, point: str, do: Callable[[], None]) -> None:
    """Do something once, when a step begins."""
    todo = [do]

    def begun(name: str) -> None:
        if name == point and todo:
            todo.pop()()

    inline.place.note = lambda progress: begun(progress.began)


@pytest.mark.fault("residue replaced between look and removal")
@pytest.mark.safety
@pytest.mark.parametrize("replace", KINDS)
@private_mounts
def test_what_replaced_the_judged_object_lives(
    tmp_path: Path, replace: Callable[[Bundle], list[Path]]
) -> None:
    with inline_worker(tmp_path) as (made, inline):
        for number, point in enumerate(POINTS):
            bundle = made.bundle(f"c{number}", fifos=True)
            new: dict[Path, int] = {}

            def act(bundle: Bundle = bundle, new: dict[Path, int] = new) -> None:
                new |= {path: path.stat().st_ino for path in replace(bundle)}

            at(inline, point, act)
            outcome = inline.clean(bundle)
            assert new, point
            left = {path: path.stat().st_ino for path in new if path.exists()}
            assert left == new, (point, outcome)
            assert outcome.result is Result.CLEANED, (point, outcome)


def test_a_number_that_a_disk_gave_away_again_is_another_object(tmp_path: Path) -> None:
    path = tmp_path / "place"
    path.mkdir()
    before = find(os.fsencode(path))
    assert before is not None
    for _ in range(100):
        path.rmdir()
        path.mkdir()
        after = find(os.fsencode(path))
        assert after is not None
        assert after != before
        if after.identity == before.identity:
            return
    pytest.skip("this filesystem gives no number twice so soon")


def own_by(bundle: Bundle, path: Path, **more: object) -> None:
    """Say in runc's state that it is that of a bundle elsewhere."""
    state = json.loads((bundle.runc_state / "state.json").read_text())
    state["config"]["labels"] = [f"bundle={path}"]
    (bundle.runc_state / "state.json").write_text(json.dumps(state | more))


HOOK: list[dict[str, object]] = [{"path": "/bin/true"}]


@pytest.mark.fault("runc's state of another tree's bundle")
@pytest.mark.safety
@pytest.mark.parametrize("root", ["default", "named"])
@pytest.mark.parametrize("how", ["label", "id", "no label"])
@private_mounts
def test_a_state_that_is_not_shown_to_be_its_own_is_kept(
    tmp_path: Path, root: str, how: str
) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle(hooks=HOOK)
        other = tmp_path / "other" / TASKS.decode() / "default" / bundle.path.name
        other.mkdir(parents=True)
        if how == "label":
            own_by(bundle, other)
        elif how == "id":
            own_by(bundle, bundle.path, id="other")
        else:
            state = json.loads((bundle.runc_state / "state.json").read_text())
            del state["config"]["labels"], state["config"]["rootfs"]
            (bundle.runc_state / "state.json").write_text(json.dumps(state))
        place = bundle.runc_state
        if root == "named":
            place = tmp_path / "named" / "default" / bundle.path.name
            place.parent.mkdir(parents=True)
            shutil.copytree(bundle.runc_state, place)
            shutil.rmtree(bundle.runc_state)
            (bundle.path / "options.json").write_text(f'{{"root": "{tmp_path / "named"}"}}')
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome
        assert step(outcome, "runc-state").result is StepResult.WARNING
        assert step(outcome, "hooks").result is StepResult.WARNING
        if how == "label":
            assert str(other) in step(outcome, "runc-state").detail
        assert (place / "state.json").exists()


@private_mounts
def test_a_state_in_a_named_root_that_names_the_bundle_goes(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        place = tmp_path / "named" / "default" / bundle.path.name
        place.parent.mkdir(parents=True)
        bundle.runc_state.rename(made.run / "runc" / "moved")
        shutil.copytree(made.run / "runc" / "moved", place)
        alias = tmp_path / "alias"
        alias.symlink_to(made.run)
        state = json.loads((place / "state.json").read_text())
        state["config"]["labels"] = [f"bundle={alias}/{TASKS.decode()}/default/{bundle.path.name}"]
        (place / "state.json").write_text(json.dumps(state))
        (bundle.path / "options.json").write_text(f'{{"root": "{tmp_path / "named"}"}}')
        assert_cleaned(inline.clean(bundle), bundle)
        assert not place.exists()


@pytest.mark.parametrize("gone", [False, True], ids=["whole", "partly removed"])
@private_mounts
def test_a_removal_of_a_state_that_was_cut_short_is_finished(tmp_path: Path, gone: bool) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        hidden = bundle.runc_state.with_name(f".reconciler-{bundle.path.name}")
        bundle.runc_state.rename(hidden)
        if gone:
            (hidden / "state.json").unlink()
        assert_cleaned(inline.clean(bundle), bundle)
        assert not hidden.exists()


@private_mounts
def test_a_hidden_state_that_is_anothers_gets_its_name_back(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        own_by(bundle, tmp_path)
        bundle.runc_state.rename(bundle.runc_state.with_name(f".reconciler-{bundle.path.name}"))
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome
        assert [path.name for path in bundle.runc_state.parent.iterdir()] == [bundle.path.name]


@private_mounts
def test_a_state_that_says_nothing_is_its_own_if_the_bundle_lived_with_it(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        for lived in (True, False):
            bundle = made.bundle(f"lived-{lived}".lower())
            (bundle.runc_state / "state.json").unlink()
            if lived:
                (bundle.path / "log.json").write_text("the last word")
            outcome = inline.clean(bundle)
            assert outcome.result is Result.CLEANED, outcome
            assert bundle.runc_state.exists() is not lived
