"""Beside a daemon `clean` asks for what may go now, and says of no bundle more than is known."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from reconciler.cli import cleaning, handover
from reconciler.cli import setup as making
from reconciler.cli.daemon_client import Answer, Daemon
from reconciler.cli.output import Output
from reconciler.cli.passes import look_once
from reconciler.errors import ExitCode
from reconciler.model.decisions import Phase
from reconciler.model.ids import BundleKey
from reconciler.model.policy import HOUR, Match, Policies, Rule
from reconciler.present.beliefs import Asked, Belief, Beliefs, Reply
from reconciler.present.formatting import to_json
from reconciler.present.status import Recent
from reconciler.setup import Setup
from reconciler.telemetry.http import MAX_HEADER
from tests.cli.conftest import FakeNode
from tests.cli.test_agreed import ENFORCE, asked_to_clean
from tests.decide.world import dead, key

pytestmark = pytest.mark.safety

made_for_real = making.make_setup


def told(*bundles: Belief, pid: int = 17, recent: Sequence[Recent] = ()) -> Beliefs:
    return Beliefs("1", "enforce", pid, "/run/containerd", "", list(bundles), list(recent))


class Beside:
    """Runs `clean` beside a daemon with these beliefs, and keeps what that one is asked for."""

    def __init__(self, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node, self.patch = node, monkeypatch
        self.handed: list[BundleKey] = []

    def clean(self, *args: str, policies: Policies | None = None, beliefs: Beliefs) -> int:
        def hand_over(_plan: object, keys: Sequence[BundleKey], *_more: object) -> list[object]:
            self.handed.extend(keys)
            return []

        def make_setup(*made: object, **more: object) -> Setup:
            setup = made_for_real(*made, **more)  # type: ignore[arg-type]  # handed on as they came
            if policies is not None:
                waits = policies.at_least(grace=setup.policies.default.between_looks)
                setup = replace(setup, policies=waits)
            return setup

        self.patch.setattr(making, "make_setup", make_setup)
        self.patch.setattr(cleaning, "ask_daemon", lambda *_args: beliefs)
        self.patch.setattr(handover, "hand_over", hand_over)
        return asked_to_clean(self.node, self.patch, args)


@pytest.fixture
def beside(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Beside:
    return Beside(node, monkeypatch)


DAY = 24 * HOUR
WAITING = Belief("ns", "a", "leftover", phase=Phase.WAITING, enforce=True, due_in_seconds=0.0)


@pytest.mark.parametrize(
    ("args", "age", "wait"),
    [
        (("--grace", "7h", "--threshold", "24h"), 18 * HOUR, "7h"),
        (("--grace", "6d"), DAY, "6d"),
        (("--grace", "6s"), DAY, "6.0s"),
        (("--threshold", "1h"), HOUR - 2.0, "2.0s"),
    ],
)
def test_waits_that_were_typed_are_not_shortened_by_handing_over(
    beside: Beside, capsys: pytest.CaptureFixture[str], args: Sequence[str], age: float, wait: str
) -> None:
    """Nor does it help that the daemon has waited by its own policy."""
    beside.node.inspector.tree = {key("ns/a"): dead(2, age=age)}
    for belief in (WAITING, replace(WAITING, phase=Phase.DUE)):
        code = beside.clean("-y", *args, beliefs=told(belief))
        assert (code, beside.handed) == (ExitCode.BLOCKED, [])
        shown = capsys.readouterr()
        assert f"waits {wait} more" in shown.out
        assert "1 skipped" in shown.err


@pytest.mark.parametrize(
    ("belief", "wait"),
    [
        (None, "30d"),
        (replace(WAITING, due_in_seconds=3 * DAY), "3d"),
        (replace(WAITING, phase=Phase.BLOCKED), "30d"),
        (replace(WAITING, phase=Phase.NONE), "30d"),
        (replace(WAITING, phase=Phase.DUE), ""),
        (replace(WAITING, phase=Phase.CLEANING, due_in_seconds=None), ""),
        (replace(WAITING, phase=Phase.HELD, due_in_seconds=None), ""),
        (WAITING, ""),
    ],
)
def test_a_rules_grace_is_over_only_if_the_daemon_has_waited_for_so_long(
    beside: Beside, capsys: pytest.CaptureFixture[str], belief: Belief | None, wait: str
) -> None:
    slow = replace(ENFORCE.default, name="slow", grace=30 * DAY)
    policies = replace(ENFORCE, rules=(Rule(Match(id="a"), slow),))
    beside.node.inspector.tree = {key("ns/a"): dead(2, age=DAY), key("ns/b"): dead(3, age=DAY)}
    beliefs = told() if belief is None else told(belief)
    code = beside.clean("-y", policies=policies, beliefs=beliefs)
    shown = capsys.readouterr()
    if wait:
        assert beside.handed == [key("ns/b")]
        assert code == ExitCode.BLOCKED
        assert f"waits {wait} more" in shown.out
    else:
        assert beside.handed == [key("ns/a"), key("ns/b")]
        assert code == ExitCode.DONE


def test_beliefs_and_requests_are_asked_for_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [BundleKey("k8s.io", f"{number:064x}") for number in range(420)]
    asked: list[str] = []

    def ask(_self: Daemon, method: str, path: str, _seconds: float) -> Answer:
        assert len(f"{method} {path}") < MAX_HEADER
        names = [one.partition("%2F")[2] for one in path.partition("?")[2].split("&")]
        asked.extend(names)
        if method == "POST":
            return Answer(200, to_json(Reply(17, "", [Asked("k8s.io", one) for one in names])))
        return Answer(200, to_json(told(*(Belief("k8s.io", one, "leftover") for one in names))))

    monkeypatch.setattr(Daemon, "_ask", ask)
    assert [one.key for one in Daemon("").beliefs(keys).bundles] == keys
    assert asked == [one.id for one in keys]
    assert [one.id for one in Daemon("").clean(keys).bundles] == [one.id for one in keys]


@pytest.mark.parametrize(
    ("pid", "bundles", "result"),
    [
        (17, (), "cleaned"),
        (18, (), "skipped"),
        (18, (replace(WAITING, due_in_seconds=600.0),), "skipped"),
    ],
)
async def test_a_daemon_that_came_later_proves_no_removal(
    node: FakeNode,
    monkeypatch: pytest.MonkeyPatch,
    pid: int,
    bundles: Sequence[Belief],
    result: str,
) -> None:
    node.inspector.tree = {key("ns/a"): dead(2)}
    plan = await look_once(node.stages, ENFORCE)
    monkeypatch.setattr(Daemon, "clean", lambda *_args: Reply(17, "", [Asked("ns", "a")]))
    monkeypatch.setattr(Daemon, "beliefs", lambda *_args: told(*bundles, pid=pid))
    monkeypatch.setattr(handover, "PATIENCE", 0.0)
    (one,) = handover.hand_over(plan, [key("ns/a")], Setup(), Output())
    assert one.result == result
    assert handover.is_undone([one]) == (pid == 18)
    assert ("not known" in one.detail) == (pid == 18)


def test_of_two_daemons_the_one_that_was_asked_first_took_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pids = iter((17, 18))
    monkeypatch.setattr(
        Daemon, "_ask", lambda *_args: Answer(200, to_json(Reply(next(pids), "", [])))
    )
    assert Daemon("").clean([key(f"ns/{n}") for n in range(31)]).pid == 17
