"""What a look of ours takes over from the daemon: its phases, where it sees the same."""

from dataclasses import replace

import pytest

from reconciler.cli import daemon_beliefs
from reconciler.cli.daemon_beliefs import as_believed, ask_daemon, history, say_whose
from reconciler.cli.output import Output
from reconciler.cli.passes import Found, look_once
from reconciler.cli.scanning import shape
from reconciler.model.decisions import Phase
from reconciler.model.layout import Layout
from reconciler.model.outcome import Holder
from reconciler.model.policy import Policies, Policy
from reconciler.present import explain, shapes
from reconciler.present.beliefs import Belief, Beliefs
from reconciler.present.status import Recent
from reconciler.setup import Setup
from reconciler.worker.lock import Listening
from tests.cli.conftest import FakeNode
from tests.decide.world import dead, key, running

POLICIES = Policies(default=Policy(grace=600.0))


@pytest.fixture
async def found(node: FakeNode) -> Found:
    node.inspector.tree = {key("ns/dead"): dead(1), key("ns/live"): running(2)}
    return await look_once(node.stages, POLICIES)


def beliefs(*bundles: Belief, hold: str = "", recent: list[Recent] | None = None) -> Beliefs:
    return Beliefs("1", "enforce", 17, "/run/containerd", hold, list(bundles), recent or [])


async def test_the_daemons_phase_is_shown_with_all_that_belongs_to_it(found: Found) -> None:
    held = Belief(
        *("ns", "dead", "leftover"),
        phase=Phase.HELD,
        cause="mass death: 20 bundles died at once",
        policy="rule",
        enforce=True,
        attempts=3,
    )
    told = beliefs(held, hold="mass death: 20 bundles died at once")
    dead_one, live = as_believed(found, told).views
    assert (dead_one.phase, dead_one.cause, dead_one.due_in_seconds) == (
        *(Phase.HELD, held.cause),
        None,
    )
    assert (dead_one.policy, dead_one.enforce, dead_one.attempts) == ("rule", True, 3)
    assert live == found.views[1]
    summary = shape(as_believed(found, told), Setup(), told).summary
    assert summary.daemon == shapes.Daemon(17, "enforce", told.hold)


@pytest.mark.parametrize(
    ("believed", "cause"),
    [
        ((), "the daemon sees no leftover there yet"),
        ((Belief("ns", "dead", "orphaned", phase=Phase.DUE),), "the daemon sees it as orphaned"),
    ],
)
async def test_where_it_sees_something_else_no_time_is_promised(
    found: Found, believed: tuple[Belief, ...], cause: str
) -> None:
    view = as_believed(found, beliefs(*believed)).views[0]
    assert (view.phase, view.cause, view.due_in_seconds) == (Phase.WAITING, cause, None)


async def test_without_a_daemon_all_is_as_it_was_found_and_it_is_said(
    found: Found, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_believed(found, None) is found
    nowhere = Setup(Layout(state=b"/nowhere"))
    say_whose(None, Output(), nowhere)
    say_whose(beliefs(hold="guards: no openat2"), Output(), nowhere)
    assert capsys.readouterr().err.splitlines() == [
        "no daemon: due times start now",
        "phases and due times as the daemon (pid 17, enforce) sees them; held: guards: no openat2",
    ]
    assert ask_daemon(Setup(), Output()) is None
    assert ask_daemon(Setup(socket="/nonexistent/http.sock"), Output()) is None


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (
            Listening(17, "/run/x", acts=False),
            "pid 17 watches this tree and gives no answer on /run/x",
        ),
        (Listening(17, "", acts=True), "pid 17 acts on this tree and gives no answer"),
        (Listening(0, "", acts=True), "another process acts on this tree and gives no answer"),
        (Listening(17, "/run/x", acts=True, is_known=False), "no daemon"),
    ],
)
def test_that_nobody_answers_is_not_that_nobody_is_there(
    there: Listening,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(daemon_beliefs, "working_on", lambda _: iter([there]))
    setup = Setup(socket="/nonexistent/http.sock")
    assert ask_daemon(setup, Output()) is None
    say_whose(None, Output(), setup)
    assert capsys.readouterr().err == f"{said}: due times start now\n"


async def test_the_last_attempt_is_told_with_who_was_in_the_way(found: Found) -> None:
    result = shapes.ResultShape(
        kind="bundle",
        namespace="ns",
        id="dead",
        path="/x",
        result="blocked",
        reason="mount busy",
        detail="mount busy: rootfs",
        holders=[Holder(6363, "cat", "cwd")],
        seconds=0.1,
        steps=[],
    )
    told = beliefs(recent=[Recent(100.0, result)])
    said = history(told, key("ns/dead"), 190.0)
    assert said == "blocked 1m30s ago: mount busy: rootfs, held by pid 6363 cat (cwd)"
    assert history(told, key("ns/live"), 190.0) == ""
    assert history(None, key("ns/dead"), 190.0) == ""
    view = replace(found.views[0], attempts=1)
    piece = explain._attempts(view, said)
    assert (piece.value, piece.detail) == ("1 failed", said)
