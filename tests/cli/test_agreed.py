"""`clean` removes what its plan showed and what is meant, however long its question waits."""

from collections.abc import Callable, Sequence

import anyio
import pytest

from reconciler.cli import checks, cleaning, handover, session
from reconciler.cli import setup as making
from reconciler.cli.app import app, run
from reconciler.cli.output import Output
from reconciler.cli.passes import Found, clean_once, look_once
from reconciler.cli.selection import as_shown, only
from reconciler.errors import ExitCode
from reconciler.model.evidence import Labels
from reconciler.model.ids import BundleKey
from reconciler.model.labels import Known
from reconciler.model.policy import Policies, Policy
from reconciler.present.beliefs import Beliefs
from reconciler.setup import Setup
from tests.cli.conftest import FakeNode
from tests.decide.world import dead, key, running

pytestmark = pytest.mark.safety

ENFORCE = Policies(default=Policy(enforce=True, grace=5.0, max_age=None, max_size=None))
NOTHING = Known(Labels())


def asked_to_clean(
    node: FakeNode,
    monkeypatch: pytest.MonkeyPatch,
    args: Sequence[str] = (),
    agreed: Callable[[], None] = lambda: None,
) -> int:
    """Run `clean` on doubles, with a terminal where somebody types a yes after a while."""

    def yes(_output: Output, _question: str) -> bool:
        agreed()
        return True

    def look(setup: Setup, _output: Output, _server: None) -> Found:
        return anyio.run(look_once, node.stages, setup.policies)

    def clean(setup: Setup, _output: Output, _server: None) -> Found:
        return anyio.run(clean_once, node.stages, setup.policies)

    monkeypatch.setattr(session, "look", look)
    monkeypatch.setattr(session, "clean", clean)
    monkeypatch.setattr(making, "start_fork_server", lambda _setup: None)
    monkeypatch.setattr(Output, "can_ask", True)
    monkeypatch.setattr(Output, "ask", yes)
    for check in ("check_state", "check_namespaces"):
        monkeypatch.setattr(checks, check, lambda *_args, **_more: None)
    return run(app, ["clean", "--grace", "5s", *args], "containerd-reconciler")


@pytest.mark.parametrize("args", [(), ("ns/dead", "ns/live")])
def test_what_falls_due_after_the_question_was_asked_is_not_removed(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, args: Sequence[str]
) -> None:
    def late() -> None:
        node.inspector.tree[key("ns/live")] = dead(3, age=7200.0)
        node.inspector.tree[key("ns/new")] = dead(6, age=7200.0)

    node.inspector.tree = {key("ns/dead"): dead(2, age=7200.0), key("ns/live"): running(3)}
    assert asked_to_clean(node, monkeypatch, args, late) == ExitCode.DONE
    assert [who for _, who in node.cleaner.cleaned] == [key("ns/dead")]


def test_a_plan_does_not_keep_what_was_cut_short_but_a_selection_does() -> None:
    keys = frozenset({key("ns/dead")})
    assert as_shown(ENFORCE, keys).applied_to_hidden("ns").enforce
    chosen = as_shown(only(ENFORCE, keys | {key("ns/a")}), keys | {key("ns/b")})
    assert not chosen.applied_to_hidden("ns").enforce
    enforced = [n for n in ("dead", "a", "b") if chosen.applied(key(f"ns/{n}"), NOTHING).enforce]
    assert enforced == ["dead"]


def test_waits_that_were_typed_hold_for_what_is_meant(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.inspector.tree = {key("ns/old"): dead(2, age=7200.0), key("ns/young"): dead(3, age=600.0)}
    args = ("ns/old", "ns/young", "--threshold", "1h")
    assert asked_to_clean(node, monkeypatch, args) == ExitCode.DONE
    assert [who for _, who in node.cleaner.cleaned] == [key("ns/old")]
    assert "young" not in capsys.readouterr().out


def test_beside_a_daemon_only_what_is_meant_is_handed_over(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[BundleKey] = []

    def hand_over(_plan: Found, keys: Sequence[BundleKey], *_more: object) -> list[object]:
        handed.extend(keys)
        return []

    node.inspector.tree = {key(f"ns/{one}"): dead(2, age=7200.0) for one in ("a", "b", "c")}
    told = Beliefs("1", "enforce", 1, "/run/containerd", "", [], [])
    monkeypatch.setattr(cleaning, "ask_daemon", lambda *_args: told)
    monkeypatch.setattr(handover, "hand_over", hand_over)
    assert asked_to_clean(node, monkeypatch, ("ns/a", "c", "--yes")) == ExitCode.DONE
    assert handed == [key("ns/a"), key("ns/c")]
    assert node.cleaner.cleaned == []
