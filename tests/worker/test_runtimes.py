"""States of runtimes other than runc: known by their form, proven by content, removed like runc's.

The layouts are those of crun 1.8 (seen in `tests/e2e/test_runtimes.py`) and of youki 0.5, by its
source: `state.json` of the OCI's form and `youki_config.json`.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from reconciler.model.outcome import BlockReason, Result, StepResult
from reconciler.worker.hooks import pick_runc
from reconciler.worker.messages import WorkerScope
from tests.support.bundles import CGROUPS, LONG_AGO, Bundle, Site
from tests.support.cgroups import join
from tests.support.inline import (
    InlineWorker,
    assert_blocked,
    assert_cleaned,
    assert_untouched,
    inline_worker,
    step,
)
from tests.support.mountns import private_mounts

HOOKS = {"poststop": [{"path": "/bin/true"}]}


def crun(bundle: Bundle, named: Path, hooks: object) -> dict[str, object]:
    status = {
        "pid": 1 << 21,
        "process-start-time": 12345,
        "bundle": str(named),
        "rootfs": "rootfs",
        "cgroup-path": "",
    }
    spec = {"ociVersion": "1.0.2", "hooks": hooks}
    return {"status": status, "config.json": spec, "seccomp.bpf": "the filter of system calls"}


def youki(bundle: Bundle, named: Path, hooks: object) -> dict[str, object]:
    state = {
        "ociVersion": "v1.0.2",
        "id": bundle.path.name,
        "status": "running",
        "pid": 1 << 21,
        "bundle": str(named),
    }
    return {"state.json": state, "youki_config.json": {"hooks": hooks, "cgroup_path": ""}}


RUNTIMES = {"crun": crun, "youki": youki}
every_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


def made_by(
    made: Site, runtime: str, *, hooks: object = None, elsewhere: bool = False, own: bool = True
) -> Bundle:
    """Make a dead bundle that a runtime made, in a root of its own or in the usual one."""
    bundle = made.bundle()
    named = Path("/run/other/tree/default") / bundle.path.name if elsewhere else bundle.path
    files = RUNTIMES[runtime](bundle, named, hooks)
    (bundle.runc_state / "state.json").unlink()
    if own:
        root = made.run / f"own-{runtime}"
        (root / bundle.path.parent.name).mkdir(parents=True)
        bundle.runc_state.rename(root / bundle.path.parent.name / bundle.path.name)
        (bundle.path / "options.json").write_text(json.dumps({"root": str(root)}))
    place = state_of(made, runtime, bundle, own=own)
    for name, content in files.items():
        (place / name).write_text(json.dumps(content))
    for path in (place, bundle.path / "options.json", bundle.path):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return bundle


def state_of(made: Site, runtime: str, bundle: Bundle, *, own: bool = True) -> Path:
    if not own:
        return bundle.runc_state
    return made.run / f"own-{runtime}" / bundle.path.parent.name / bundle.path.name


@every_runtime
@pytest.mark.parametrize("own", [True, False], ids=["own root", "usual root"])
@private_mounts
def test_a_state_of_its_own_form_goes_with_its_bundle(
    tmp_path: Path, runtime: str, own: bool
) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, runtime, own=own)
        assert_cleaned(inline.clean(bundle), bundle)
        assert not state_of(made, runtime, bundle, own=own).exists()


@every_runtime
@private_mounts
def test_a_state_of_another_bundle_stays(tmp_path: Path, runtime: str) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, runtime, elsewhere=True, hooks=HOOKS)
        outcome = inline.clean(bundle)
        assert step(outcome, "runc-state").result is StepResult.WARNING
        assert state_of(made, runtime, bundle).exists()


@every_runtime
@pytest.mark.parametrize("strange", ["notes", "data/"])
@private_mounts
def test_what_no_runtime_has_written_keeps_a_state(
    tmp_path: Path, runtime: str, strange: str
) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, runtime)
        place = state_of(made, runtime, bundle)
        if strange.endswith("/"):
            (place / strange).mkdir()
        else:
            (place / strange).touch()
        outcome = inline.clean(bundle)
        assert "is kept" in step(outcome, "runc-state").detail
        assert (place / strange.rstrip("/")).exists()


def binary(inline: InlineWorker, made: Site, directory: Path, name: str, script: str) -> None:
    """Put a runtime into PATH, and let the configured one be runc."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    inline.bind(WorkerScope(made.layout, runc="/bin/false"))


@every_runtime
@private_mounts
def test_its_hooks_are_left_to_it_and_not_to_runc(
    tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, runtime, hooks=HOOKS)
        place, said = state_of(made, runtime, bundle), tmp_path / "said"
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        binary(inline, made, tmp_path / "bin", runtime, f'echo "$@" >{said}; rm -r {place}')
        outcome = inline.clean(bundle)
        assert_cleaned(outcome, bundle)
        assert said.read_text() == f"--root {place.parent} delete --force {bundle.path.name}\n"
        assert step(outcome, "hooks").detail == f"{runtime} ran the poststop hooks"


@every_runtime
@private_mounts
def test_a_runtime_that_does_not_know_the_state_has_run_no_hook(
    tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`delete --force` of what is not there ends well."""
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, runtime, hooks=HOOKS)
        left = bundle.left()
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        binary(inline, made, tmp_path / "bin", runtime, "exit 0")
        outcome = inline.clean(bundle)
        assert_blocked(outcome, BlockReason.HOOKS)
        assert_untouched(outcome, bundle, left)
        assert state_of(made, runtime, bundle).exists()


@private_mounts
def test_hooks_that_cannot_be_read_are_a_warning(tmp_path: Path) -> None:
    """What keeps the hooks is gone or torn: nobody can tell whether there were any."""
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, "crun")
        (state_of(made, "crun", bundle) / "config.json").write_text('{"hooks": {"pos')
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome.detail
        assert "torn" in step(outcome, "hooks").detail


CALLED = "echo called >{}; exit 0"


@contextmanager
def sleeper_in(group: Path) -> Iterator[int]:
    """Have somebody in a cgroup; gives the pid, and says that nobody has ended it."""
    group.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            join(process.pid, [group])
            yield process.pid
            assert process.poll() is None, "somebody in the cgroup was killed"
        finally:
            process.kill()
    group.rmdir()


def tell(path: Path, **fields: object) -> None:
    """Change what a file of the runtime's says, as long ago."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    os.utime(path.parent, (LONG_AGO, LONG_AGO))


def shared_group(made: Site) -> tuple[str, Path]:
    """Give a cgroup that no name leads to, as a path within a hierarchy and as a directory."""
    hierarchy = next(one for one in sorted(CGROUPS.iterdir()) if one.name != "cpuset")
    return f"/{made.cgroup}/shared", hierarchy / made.cgroup / "shared"


@every_runtime
@private_mounts
def test_who_is_in_a_cgroup_that_only_its_own_state_names_lives(
    tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`delete --force` would kill everybody in there."""
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, runtime, hooks=HOOKS)
        subprocess.run(["umount", str(bundle.rootfs)], check=True)
        (bundle.path / "config.json").unlink()
        path, group = shared_group(made)
        state = state_of(made, runtime, bundle)
        if runtime == "youki":
            tell(state / "youki_config.json", cgroup_path=path)
        else:
            tell(state / "status", **{"cgroup-path": path})
        os.utime(bundle.path, (LONG_AGO, LONG_AGO))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        binary(inline, made, tmp_path / "bin", runtime, CALLED.format(tmp_path / "called"))
        with sleeper_in(group):
            outcome = inline.clean(bundle)
            assert outcome.result is Result.SKIPPED
            assert outcome.detail.startswith("orphaned")
            assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("damage", ["gone", "torn", "a relative path", "state torn"])
@private_mounts
def test_youkis_cgroup_that_cannot_be_read_is_no_answer(tmp_path: Path, damage: str) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, "youki", hooks=HOOKS)
        left = bundle.left()
        state = state_of(made, "youki", bundle)
        config = state / "youki_config.json"
        match damage:
            case "gone":
                config.unlink()
            case "torn":
                config.write_text('{"hooks": {"pos')
            case "state torn":
                (state / "state.json").write_text('{"ociVersion": "v1.0.2", "id"')
            case _:
                tell(config, cgroup_path="somewhere/else")
        outcome = inline.clean(bundle)
        assert outcome.result is Result.SKIPPED
        assert outcome.detail.startswith("unknown")
        assert_untouched(outcome, bundle, left)


@private_mounts
def test_a_process_with_the_pid_that_youki_names_may_be_its_init(tmp_path: Path) -> None:
    """Its state names no start time: neither cgroup nor times say that the pid is another's."""
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, "youki", hooks=HOOKS)
        state = state_of(made, "youki", bundle)
        tell(state / "youki_config.json", cgroup_path=f"/{made.cgroup}/of-its-own")
        tell(state / "state.json", pid=os.getpid())
        os.utime(bundle.path, (LONG_AGO, LONG_AGO))
        outcome = inline.clean(bundle)
        assert outcome.result is Result.SKIPPED
        assert outcome.detail.startswith("unknown")


@private_mounts
def test_a_cgroup_that_is_entered_before_the_hooks_run_holds_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, "crun", hooks=HOOKS)
        path, group = shared_group(made)
        tell(state_of(made, "crun", bundle) / "status", **{"cgroup-path": path})
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        binary(inline, made, tmp_path / "bin", "crun", CALLED.format(tmp_path / "called"))
        with ExitStack() as handles:

            def enter_and_choose(*words: str) -> str:
                handles.enter_context(sleeper_in(group))
                return pick_runc(*words)

            monkeypatch.setattr("reconciler.worker.steps.pick_runc", enter_and_choose)
            outcome = inline.clean(bundle)
            assert_blocked(outcome, BlockReason.CGROUP)
            assert not (tmp_path / "called").exists()
            assert state_of(made, "crun", bundle).exists()


@pytest.mark.parametrize("lost", ["", "{", None])
@private_mounts
def test_a_cleanup_says_that_a_state_in_a_root_that_is_lost_may_stay(
    tmp_path: Path, lost: str | None
) -> None:
    """The shape of moby #50040, whose `docker start` fails as long as the state stands."""
    with inline_worker(tmp_path) as (made, inline):
        own = made.run / "own-runc"

        def end(root: Path, neighbour: str | None) -> tuple[StepResult, str]:
            for one in made.tree.glob("default/*/options.json"):
                one.unlink()
            number = len(list(made.tree.glob("default/*")))
            other, bundle = made.bundle(f"n{number}"), made.bundle(f"c{number}")
            shutil.rmtree(bundle.runc_state)
            (state := root / "default" / bundle.key.id).mkdir(parents=True)
            for path, text in ((bundle.path, lost), (other.path, neighbour)):
                (path / "options.json").unlink()
                if text is not None:
                    (path / "options.json").write_text(text)
            for path in (bundle.path, *bundle.path.iterdir()):
                os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
            outcome = inline.clean(bundle)
            assert outcome.result is Result.CLEANED, outcome.detail
            assert not bundle.path.exists()
            assert state.exists()
            done = step(outcome, "runc-state")
            return done.result, done.detail

        far, default = json.dumps({"root": str(own)}), json.dumps({"root": ""})
        nowhere = made.run / "nobody-names-it"
        assert end(own, far)[0] is StepResult.WARNING
        assert str(own) in end(own, far)[1]
        assert end(nowhere, far)[0] is StepResult.NOTHING
        assert end(nowhere, default)[0] is StepResult.NOTHING
        assert "a state may stay" in end(nowhere, None)[1]
        own.chmod(0o777)
        assert end(own, far)[0] is StepResult.NOTHING, "anybody can write there"
