"""`clean --debris` beside a daemon: what was shown is asked for, and what came of it is told."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import anyio
import pytest
from msgspec.structs import replace

from reconciler.cli import cleaning, handover
from reconciler.cli.daemon_client import Answer, Daemon
from reconciler.daemon.requests import Requests
from reconciler.errors import ExitCode
from reconciler.model.debris import DebrisKind, Place, RequestedPlace
from reconciler.model.evidence import Answer as Said
from reconciler.model.ids import Identity
from reconciler.model.observations import Observation
from reconciler.model.outcome import BlockReason, Result
from reconciler.model.policy import DebrisAction, Match, Policies, Policy, Rule
from reconciler.present.beliefs import Beliefs
from reconciler.telemetry.http import MAX_HEADER, Request
from tests.cli.conftest import FakeNode
from tests.cli.test_agreed import asked_to_clean
from tests.decide.debris_world import DebrisWorld, place, places
from tests.decide.world import ENFORCE

pytestmark = pytest.mark.safety

SLOW = replace(ENFORCE, grace=600.0)
GROUP = place()
SOCKET = place(DebrisKind.SHIM_SOCKET, "/run/s/a b\\xff", ino=7, names=("", ""))


@dataclass
class Daemoned:
    """`clean` on a node of doubles, beside an engine that is asked over its own routes."""

    node: FakeNode
    patch: pytest.MonkeyPatch
    world: DebrisWorld = field(default_factory=lambda: DebrisWorld(Policies(default=SLOW)))
    pids: Iterator[int] = field(default_factory=lambda: itertools.repeat(17))
    asked: list[str] = field(default_factory=list)

    def begin(self, *there: Place, known: bool = True) -> None:
        self.node.cleaner.debris += there
        self.world.there = list(there) if known else []
        self.world.begin()
        self.world.there = list(there)

    def clean(self, *args: str) -> int:
        engine = self.world.engine

        async def deliver(observation: Observation) -> None:
            self.world.carry(self.world.observe(observation))

        def about() -> tuple[str, str, int, str]:
            return "1", "enforce", next(self.pids), "/run/containerd"

        routes = Requests(engine, deliver, about, list, lambda: self.world.stamp).routes()

        def ask(_self: Daemon, method: str, path: str, _seconds: float) -> Answer:
            assert len(f"{method} {path}") < MAX_HEADER
            where, _, query = path.partition("?")
            self.asked += [name for _, name in parse_qsl(query, errors="surrogateescape")]
            request = Request(method, where, query, (0, 7))
            self.world.pass_time(1.0)
            response = anyio.run(routes[method, where], request)
            return Answer(response.status, response.body)

        beliefs = Beliefs("1", "enforce", 17, "/run/containerd", "", [], [])
        self.patch.setattr(Daemon, "_ask", ask)
        self.patch.setattr(cleaning, "ask_daemon", lambda *_args: beliefs)
        self.patch.setattr(handover, "_EVERY_DEBRIS", 0.0)
        return asked_to_clean(self.node, self.patch, ("--debris", "-y", *args))


@pytest.fixture
def beside(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Daemoned:
    return Daemoned(node, monkeypatch)


@pytest.mark.parametrize("known", [True, False])
def test_the_daemon_removes_what_was_shown_by_its_own_two_inventories(
    beside: Daemoned, capsys: pytest.CaptureFixture[str], *, known: bool
) -> None:
    beside.begin(GROUP, SOCKET, known=known)
    assert beside.clean() == ExitCode.DONE
    shown = capsys.readouterr()
    assert "a daemon acts here" in shown.err
    assert "2 cleaned" in shown.err
    assert sorted(beside.world.asked_for()) == ["/ns/x", "/run/s/a b\\xff"]
    assert beside.node.cleaner.batches == [], "and nobody else"
    assert beside.asked == ["1:2:cgroup:/ns/x", "1:7:shim-socket:/run/s/a b\\xff"]


def test_only_kinds_that_are_named_and_nothing_that_waits_for_longer_is_asked_for(
    beside: Daemoned, capsys: pytest.CaptureFixture[str]
) -> None:
    beside.begin(GROUP, SOCKET)
    assert beside.clean("--debris", "cgroup", "--grace", "7h") == ExitCode.BLOCKED
    assert beside.asked == []
    shown = capsys.readouterr()
    assert "waits 7h more" in shown.out
    assert "shim-socket" not in shown.out
    assert beside.clean("--debris", "cgroup") == ExitCode.DONE
    assert beside.world.asked_for() == ["/ns/x"]


@pytest.mark.parametrize(
    ("policy", "result"),
    [
        (replace(SLOW, protect=True), "protected"),
        (replace(SLOW, debris=DebrisAction.REPORT), "protected"),
        (replace(SLOW, enforce=False), "protected"),
    ],
)
def test_what_the_daemon_is_told_to_keep_it_keeps(
    beside: Daemoned, capsys: pytest.CaptureFixture[str], policy: Policy, result: str
) -> None:
    rule = Rule(Match("ns"), policy)
    beside.world.policies = Policies(default=SLOW, rules=(rule,))
    beside.world.__post_init__()
    beside.begin(GROUP)
    assert beside.clean() == ExitCode.DONE
    assert result in capsys.readouterr().out
    assert not beside.world.batches


def test_a_blocked_one_is_told_and_another_object_is_not_touched(
    beside: Daemoned, capsys: pytest.CaptureFixture[str]
) -> None:
    beside.world.result, beside.world.reason = Result.BLOCKED, BlockReason.IO
    beside.begin(GROUP)
    assert beside.clean() == ExitCode.BLOCKED
    assert "blocked" in capsys.readouterr().out
    beside.world.there = [replace(GROUP, identity=Identity(1, 99, 3))]
    beside.world.batches.clear()
    beside.world.inventory()
    assert beside.clean() == ExitCode.DONE
    assert "the daemon sees another object there" in capsys.readouterr().out
    assert not beside.world.batches


def test_a_daemon_that_was_restarted_meanwhile_proves_nothing(
    beside: Daemoned, capsys: pytest.CaptureFixture[str]
) -> None:
    beside.begin(GROUP)
    beside.pids = itertools.chain([17], itertools.repeat(18))
    assert beside.clean() == ExitCode.BLOCKED
    assert "what came of it is not known" in capsys.readouterr().out


def test_what_owns_it_by_now_is_no_removal(
    beside: Daemoned, capsys: pytest.CaptureFixture[str]
) -> None:
    beside.begin(GROUP)
    beside.world.there = [replace(GROUP, owned=Said.YES)]
    assert beside.clean() == ExitCode.DONE
    shown = capsys.readouterr()
    assert "the daemon finds no debris there any more" in shown.out
    assert "1 skipped" in shown.err


def test_many_are_asked_for_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    many = places(500) + tuple(place(path="/\xff\u00e4" * 900 + str(n)) for n in range(3))
    asked: list[str] = []

    def ask(_self: Daemon, method: str, path: str, _seconds: float) -> Answer:
        assert len(f"{method} {path}") < MAX_HEADER
        asked.extend(name for _, name in parse_qsl(path.partition("?")[2]))
        return Answer(200, b'{"pid":17}')

    monkeypatch.setattr(Daemon, "_ask", ask)
    its = [RequestedPlace(one.key, 1, one.identity.ino) for one in many]
    Daemon("").clean([], its)
    assert [one.partition(":cgroup:")[2] for one in asked] == [one.key.path for one in many]
