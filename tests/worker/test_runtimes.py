"""States of runtimes other than runc: known by their form, proven by content, removed like runc's.

The layouts are those of crun 1.8 (seen in `tests/e2e/test_runtimes.py`) and of youki 0.5, by its
source: `state.json` of the OCI's form and `youki_config.json`.
"""

import json
import os
from pathlib import Path

import pytest

from reconciler.model.outcome import BlockReason, Result, StepResult
from reconciler.worker.messages import WorkerScope
from tests.support.bundles import LONG_AGO, Bundle, Site
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
    return {"status": status, "config.json": {"ociVersion": "1.0.2", "hooks": hooks}}


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


@every_runtime
@private_mounts
def test_hooks_that_cannot_be_read_are_a_warning(tmp_path: Path, runtime: str) -> None:
    """What keeps the hooks is gone or torn: nobody can tell whether there were any."""
    with inline_worker(tmp_path) as (made, inline):
        bundle = made_by(made, runtime)
        spec = {"crun": "config.json", "youki": "youki_config.json"}[runtime]
        (state_of(made, runtime, bundle) / spec).write_text('{"hooks": {"pos')
        outcome = inline.clean(bundle)
        assert outcome.result is Result.CLEANED, outcome.detail
        assert "torn" in step(outcome, "hooks").detail
