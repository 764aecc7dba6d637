"""Beside a daemon debris has the phases that it gives it, where both mean the same object."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from reconciler.cli import checks, daemon_client, explaining, scanning, session
from reconciler.cli import setup as making
from reconciler.cli.app import app, run
from reconciler.cli.daemon_beliefs import believed_debris
from reconciler.cli.output import Output
from reconciler.cli.passes import Found, look_once
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.model.debris import DebrisKind, Place, PlaceKey
from reconciler.model.decisions import Phase
from reconciler.model.evidence import Answer
from reconciler.model.ids import BundleKey, Identity
from reconciler.present.beliefs import Beliefs, DebrisBelief
from reconciler.setup import Setup
from tests.cli.conftest import FakeNode
from tests.decide.debris_world import place

GROUP = place()
UNSURE = place(path="/ns/y", owned=Answer.NONE)


def belief(of: Place = GROUP) -> DebrisBelief:
    return DebrisBelief(
        of.key,
        of.identity,
        DebrisVerdict.DEBRIS,
        Phase.WAITING,
        policy="of the daemon",
        due_in_seconds=42.0,
        attempts=3,
        debris_for=558.0,
    )


@dataclass
class FakeDaemon:
    """One that believes this of debris."""

    state: Path
    debris: list[DebrisBelief] = field(default_factory=list)

    def beliefs(self, _keys: list[BundleKey]) -> Beliefs:
        return Beliefs("1", "enforce", 17, str(self.state), "", [], [], self.debris)

    def beliefs_of(self, asked: PlaceKey) -> Beliefs:
        told = self.beliefs([])
        return replace(told, debris=[one for one in told.debris if one.key == asked])


@pytest.fixture
def daemon(node: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDaemon:
    """A daemon beside commands that look at a node of doubles."""
    made = FakeDaemon(tmp_path)

    def look(setup: Setup, _output: Output, _server: object) -> Found:
        return anyio.run(look_once, node.stages, setup.policies)

    for user in (session, scanning, explaining):
        monkeypatch.setattr(user, "look", look)
    monkeypatch.setattr(making, "start_fork_server", lambda _setup: None)
    for check in ("check_state", "check_namespaces"):
        monkeypatch.setattr(checks, check, lambda *_args, **_more: None)
    monkeypatch.setattr(daemon_client, "Daemon", lambda _path: made)
    (tmp_path / "socket").touch()
    (tmp_path / "config.toml").write_text(f"[http]\nsocket = '{tmp_path}/socket'\n")
    node.cleaner.debris += [GROUP, UNSURE]
    return made


def call(daemon: FakeDaemon, *words: str) -> int:
    where = ("--config", str(daemon.state / "config.toml"), "--state", str(daemon.state))
    return run(app, [*where, *words], "containerd-reconciler")


def test_scan_and_explain_show_when_the_daemon_removes_it(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.debris = [belief()]
    assert call(daemon, "-o", "json", "scan") == 0
    said = capsys.readouterr()
    assert "phases and due times as the daemon (pid 17, enforce) sees them" in said.err
    shown = {one["path"]: one for one in json.loads(said.out)["debris"]}
    assert shown["/ns/x"]["due_in_seconds"] == 42.0
    assert shown["/ns/x"]["attempts"] == 3
    assert (shown["/ns/y"]["verdict"], "phase" in shown["/ns/y"]) == ("unknown", False)
    assert call(daemon, "-o", "json", "explain", "cgroup:/ns/x") == 0
    said = capsys.readouterr()
    assert "as the daemon (pid 17, enforce) sees them" in said.err
    told = json.loads(said.out)
    assert told["next"].startswith("removed in 42s")
    evidence = {one["evidence"]: one["value"] for one in told["evidence"]}
    assert (evidence["policy"], evidence["debris for"]) == ("of the daemon", "9m18s")


def test_what_holds_it_in_the_daemon_is_what_holds_it(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.debris = [replace(belief(), objection='the rule "keep" protects it')]
    assert call(daemon, "-o", "json", "explain", "cgroup:/ns/x") == 0
    assert json.loads(capsys.readouterr().out)["next"] == 'nothing: the rule "keep" protects it'


@pytest.mark.parametrize(
    ("its", "cause"),
    [
        ([], "the daemon sees no debris there yet"),
        ([replace(belief(), verdict=DebrisVerdict.UNKNOWN)], "the daemon sees it as unknown"),
        (
            [replace(belief(), identity=Identity(1, 99, 3))],
            "the daemon sees another object there",
        ),
    ],
)
def test_where_it_sees_something_else_no_time_is_promised(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], its: list[DebrisBelief], cause: str
) -> None:
    daemon.debris = its
    assert call(daemon, "-o", "json", "scan") == 0
    shown = {one["path"]: one for one in json.loads(capsys.readouterr().out)["debris"]}
    assert (shown["/ns/x"]["cause"], "due_in_seconds" in shown["/ns/x"]) == (cause, False)
    acts = "mode = 'enforce'\n[debris]\naction = 'clean'\n"
    config = daemon.state / "config.toml"
    config.write_text(acts + config.read_text())
    assert call(daemon, "-o", "json", "explain", "cgroup:/ns/x") == 0
    assert json.loads(capsys.readouterr().out)["next"] == f"nothing yet: {cause}"


async def test_mounts_have_other_numbers_in_another_namespace(node: FakeNode) -> None:
    mount = replace(place(DebrisKind.MOUNT, "/m"), identity=Identity(0, 0, 7))
    node.cleaner.debris += [mount, GROUP]
    views = (await look_once(node.stages, Setup().policies)).debris
    for view in views:
        its = belief(replace(view.place, identity=replace(view.place.identity, mount_id=99)))
        assert believed_debris(view, its).due_in_seconds == 42.0
