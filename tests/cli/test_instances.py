"""`--instance`: which containerd is meant, and what is said where the usual one is not there."""

import json
import os
from pathlib import Path

import pytest

from reconciler.cli import checks
from reconciler.cli.checks import check_state
from reconciler.cli.output import Output
from reconciler.errors import NoContainerdError
from reconciler.model.layout import Layout
from tests.cli.program import program


def shown(*words: str) -> dict[str, object]:
    done = program(None, "config", "show", *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    keys: dict[str, object] = json.loads(done.stdout)
    return keys


def test_an_instance_is_meant_by_every_command(tmp_path: Path) -> None:
    text = json.dumps(shown("--instance", "k0s"))
    assert "/run/k0s/containerd.sock" in text
    assert "/run/containerd-reconciler/k0s/http.sock" in text
    done = program(None, "scan", "--instance", "k0s", "--without-containerd")
    assert done.returncode == 69
    assert "/run/k0s/containerd" in done.stderr
    done = program(None, "status", "--instance", "second")
    assert done.returncode == 3
    assert "/run/containerd-reconciler/second/http.sock" in done.stderr


def test_a_name_that_is_a_path_is_refused() -> None:
    done = program(None, "scan", "--instance", "../etc")
    assert done.returncode == 2
    assert "'../etc'" in done.stderr


def test_who_has_its_containerd_elsewhere_is_told_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Layout(state=os.fsencode(tmp_path / "run" / "containerd"))
    with pytest.raises(NoContainerdError) as told:
        check_state(absent)
    assert "--state" in told.value.hint
    monkeypatch.setattr(checks, "instances_here", lambda: ("k3s", "docker"))
    with pytest.raises(NoContainerdError) as told:
        check_state(absent)
    assert told.value.hint == (
        "there is that of k3s, docker: say --instance k3s or --instance docker"
    )
    check_state(absent, Output(), may_be_missing=True)  # the daemon waits for it
    assert "say --instance k3s or --instance docker" in capsys.readouterr().err
