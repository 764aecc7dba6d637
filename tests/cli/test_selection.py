"""Names, verdicts and labels as they are typed: they only narrow, and a typing error says so."""

import signal
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from typing_extensions import override

from reconciler.cli import cleaning, scanning
from reconciler.cli.globals import Form
from reconciler.cli.list_options import ALL, Listing, selection
from reconciler.cli.output import Output
from reconciler.cli.passes import clean_once, look_once
from reconciler.cli.scanning import Rows, follow_stages
from reconciler.cli.selection import narrowed, only, ordered, parse_name
from reconciler.demo.node import DemoNode
from reconciler.demo.promises import pictures
from reconciler.errors import ExitCode, ReconcilerError
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import Labels, Look
from reconciler.model.ids import BundleKey
from reconciler.model.labels import Known
from reconciler.model.observations import Hidden, Listed, Resync, ResyncKind
from reconciler.model.policy import Match, Policies, Policy, Rule
from reconciler.ports import Emit, Source
from reconciler.present import shapes
from reconciler.setup import Setup
from tests.cli.conftest import FakeNode
from tests.cli.program import acts, program, tree
from tests.decide.world import dead, key, orphaned, running
from tests.support.fakes import FakeInspector

ENFORCE = Policies(default=Policy(enforce=True, grace=5.0, max_age=None, max_size=None))
LONG = "0123456789abcdef" * 4


# ------------------------------------------------------------------------------------- names

KNOWN = [key("ns/abc"), key("ns/abcd"), key("ns/xyz"), key("other/x"), key("other/abcd")]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("ns/abc", "ns/abc"),
        ("ns/abcd", "ns/abcd"),
        ("ns/x", "ns/xyz"),
        ("xy", "ns/xyz"),
        ("abc", "ns/abc"),
        ("x", "other/x"),
    ],
)
def test_the_beginning_of_an_id_will_do_where_it_is_clear(asked: str, found: str) -> None:
    assert parse_name(asked).the_one(KNOWN) == key(found)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("ns/ab", "ns/ab may be any of ns/abc, ns/abcd; write more of the id"),
        ("abcd", "abcd may be any of ns/abcd, other/abcd; name the namespace"),
        ("ns/xzy", "there is no bundle ns/xzy; did you mean ns/xyz?"),
        ("ns/0", "there is no bundle ns/0; `containerd-reconciler scan`"),
        ("sn/abc", "there is no bundle sn/abc; did you mean ns/abc?"),
        ("q/q", "scan"),
    ],
)
def test_a_name_that_nobody_or_several_have_says_whose_it_may_be(asked: str, said: str) -> None:
    with pytest.raises(ReconcilerError) as caught:
        parse_name(asked).the_one(KNOWN)
    assert said in str(caught.value)


# ----------------------------------------------------------------------------- among bundles


@pytest.fixture
def node(node: FakeNode) -> FakeNode:
    labels = replace(dead().labels, annotations=(("team", "red"),))
    node.inspector.annotation_keys = frozenset({"team"})
    node.inspector.tree = {
        key(f"ns/{LONG}"): replace(dead(1), labels=labels, size_bytes=1),
        key("ns/dead"): dead(2, age=7200.0, size=9000),
        key("ns/live"): replace(running(3), labels=labels),
        key("ns/torn"): replace(dead(4), labels=Labels()),
        key("other/lonely"): orphaned(5),
    }
    return node


async def meant(node: FakeNode, names: Sequence[str] = (), selector: str = "") -> list[str]:
    found = await look_once(node.stages, ENFORCE)
    chosen = selection(names, (selector,) if selector else ())
    return [str(view.key) for view in chosen.of(found.views).views]


async def test_names_choose_and_their_beginnings_do(node: FakeNode) -> None:
    assert await meant(node, ["ns/dead"]) == ["ns/dead"]
    assert await meant(node, ["0123", "lone"]) == [f"ns/{LONG}", "other/lonely"]
    assert await meant(node, ["ns/l", "ns/d"]) == ["ns/dead", "ns/live"]


async def test_labels_choose_and_those_that_are_not_known_are_counted(node: FakeNode) -> None:
    found = await look_once(node.stages, ENFORCE)
    selected = selection((), ("team=red",)).of(found.views)
    assert {view.key.id for view in selected.views} == {LONG, "live"}
    assert selected.unsure == 1
    selected = selection((), ("team!=red",)).of(found.views)
    assert {view.key.id for view in selected.views} == {"dead", "lonely"}


async def test_verdicts_and_phases_choose(node: FakeNode) -> None:
    found = await look_once(node.stages, ENFORCE)
    listing = Listing(verdicts=frozenset({Verdict.ORPHANED, Verdict.RUNNING}))
    selected = selection((), (), listing).of(found.views)
    assert {view.key.id for view in selected.views} == {"live", "lonely"}
    assert selected.absent == (), "nothing was mistyped where there is nothing of a kind"


async def test_the_oldest_the_largest_and_by_id(node: FakeNode) -> None:
    views = (await look_once(node.stages, ENFORCE)).views
    assert ordered(views, "age")[0].key.id == "dead"
    assert ordered(views, "size")[0].key.id == "dead"
    assert ordered(views, "size")[-1].key.id == LONG
    ids = [view.key.id for view in ordered(views, "id")]
    assert ids == sorted(ids)
    assert ordered(views, None) == views


@pytest.mark.parametrize(
    ("names", "selector", "said"),
    [
        (["ns/daed"], "", "there is no bundle ns/daed; did you mean ns/dead?"),
        (["ns/dead", "nobody"], "", "there is no bundle nobody; `containerd-reconciler scan`"),
        ([], "team=rde", "no bundle has the labels that -l asks for"),
    ],
)
async def test_what_is_not_there_is_said(
    node: FakeNode, names: list[str], selector: str, said: str
) -> None:
    found = await look_once(node.stages, ENFORCE)
    selected = selection(names, (selector,) if selector else ()).of(found.views)
    (line,) = selected.absent
    assert line.startswith(said)


# ---------------------------------------------------------------------------------- to clean


@pytest.mark.safety
async def test_only_what_is_meant_is_removed_and_nothing_else_is_waited_for(
    node: FakeNode,
) -> None:
    policies = only(ENFORCE, frozenset({key("ns/dead")}))
    found = await clean_once(node.stages, policies)
    assert [who for _, who in node.cleaner.cleaned] == [key("ns/dead")]
    assert found.seconds < 10
    told = cleaning.cleaned(narrowed(found, policies.keys), Setup(policies=policies))
    assert [(one.id, one.result) for one in told.results] == [("dead", "cleaned")]
    assert told.summary.waiting == 0


@pytest.mark.safety
async def test_a_plan_names_only_what_is_meant(node: FakeNode) -> None:
    policies = only(ENFORCE, frozenset({key("ns/dead"), key("ns/live")}))
    found = narrowed(await look_once(node.stages, policies), policies.keys)
    told = cleaning.planned(found, Setup(policies=policies))
    assert [(one.id, one.result) for one in told.results] == [("dead", shapes.PLANNED)]


@pytest.mark.safety
async def test_a_selection_takes_no_protection_away(node: FakeNode) -> None:
    rule = Rule(Match(id="dead"), replace(ENFORCE.default, name="keep it", protect=True))
    policies = only(replace(ENFORCE, rules=(rule,)), frozenset({key("ns/dead")}))
    await clean_once(node.stages, policies)
    assert node.cleaner.cleaned == []


@pytest.mark.safety
async def test_a_removal_that_was_cut_short_elsewhere_is_not_finished(node: FakeNode) -> None:
    class Littered(FakeInspector):
        @override
        def list(self, namespace: str | None = None) -> Listed:
            hidden = Hidden(BundleKey("ns", ".x"), dead(9).identity, 0.0, ours=True)
            return replace(super().list(namespace), hidden=(hidden,))

    stages = replace(node.stages, inspector=Littered(node.inspector.tree))
    await clean_once(stages, only(ENFORCE, frozenset({key("ns/live")})))
    assert node.cleaner.cleaned == []


@pytest.mark.safety
@given(
    keys=st.frozensets(st.sampled_from(["ns/a", "ns/b", "o/a"])),
    enforce=st.booleans(),
    protect=st.booleans(),
    glob=st.sampled_from([None, "a", "*", "b*"]),
)
def test_no_selection_ever_allows_more(
    keys: frozenset[str], enforce: bool, protect: bool, glob: str | None
) -> None:
    rule = Rule(Match(id=glob), Policy(name="rule", enforce=enforce, protect=protect))
    policies = replace(ENFORCE, rules=(rule,))
    selected = only(policies, frozenset(map(key, keys)))
    for name in ("ns/a", "ns/b", "o/a", "o/b"):
        before = policies.applied(key(name), Known(Labels()))
        after = selected.applied(key(name), Known(Labels()))
        assert after == (before if name in keys else replace(before, enforce=False))
    assert not selected.applied_to_hidden("ns").enforce


# ------------------------------------------------------------------------------ as a process


def crashed(demo: DemoNode, id_: str) -> str:
    return f"{demo.fixtures[0].key.namespace}-crashed/{id_}"


def test_scan_shows_what_it_is_asked_for_and_says_what_is_not_there(demo: DemoNode) -> None:
    names = [crashed(demo, "complete"), crashed(demo, "no-r"), "nobody"]
    done = program(demo, "scan", *names, "--no-headers", "--sort-by", "id", *tree(demo))
    assert done.returncode == ExitCode.ERROR
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["complete", "no-runtime"]
    assert "there is no bundle nobody" in done.stderr
    assert "2 bundles: 2 leftover" in done.stderr


def test_scan_filters_by_verdict(demo: DemoNode) -> None:
    done = program(demo, "scan", "--verdict", "orphaned,running", "-o", "name", *tree(demo))
    assert done.returncode == 0, done.stderr
    expected = {
        str(one.key) for one in demo.fixtures if one.verdict in {Verdict.ORPHANED, Verdict.RUNNING}
    }
    assert set(done.stdout.split()) == expected


def test_explain_takes_an_id_that_only_one_has(demo: DemoNode) -> None:
    done = program(demo, "explain", "no-run", *tree(demo))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(crashed(demo, "no-runtime"))
    done = program(demo, "explain", "no-", *tree(demo))
    assert done.returncode == ExitCode.ERROR
    assert f"may be any of {crashed(demo, 'no-')}" in done.stderr


@pytest.mark.safety
@acts
def test_clean_removes_what_is_named_and_nothing_where_a_name_is_mistyped(demo: DemoNode) -> None:
    yes = ("clean", "--yes", "--grace", "0s")
    before = pictures(demo)
    name = crashed(demo, "complete")
    for wrong, code, said in (
        ((name, crashed(demo, "emptid")), ExitCode.ERROR, "there is no bundle"),
        ((crashed(demo, "compl"),), ExitCode.USAGE, "write all of it, or leave out --yes"),
        (("-l", "nobody=x"), ExitCode.ERROR, "no bundle has the labels"),
    ):
        done = program(demo, *yes, *wrong, *tree(demo))
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert pictures(demo) == before
    done = program(demo, *yes, name, "-o", "name", *tree(demo))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{name}\n"
    left = program(demo, "scan", "-o", "name", *tree(demo)).stdout.split()
    assert set(left) == {str(one.key) for one in demo.fixtures} - {name}


def test_a_dry_run_takes_the_beginning_of_an_id(demo: DemoNode) -> None:
    done = program(demo, "clean", "--dry-run", "compl", "-o", "name", *tree(demo))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{crashed(demo, 'complete')}\n"


# ---------------------------------------------------------------------------------- --watch


class Told(Output):
    """Rings with each piece of the table that was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = anyio.Event()

    @override
    def flush(self) -> None:
        self.written.set()

    async def wait(self) -> None:
        await self.written.wait()
        self.written = anyio.Event()


async def test_a_watched_scan_writes_a_row_for_each_change(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scanning, "INTERVAL", 0.0)
    output = Told()
    said: list[str] = []

    class Changing(Source):
        @override
        async def run(self, emit: Emit) -> None:
            changes: list[tuple[str, Look | None]] = [
                ("ns/new", running(7)),
                ("other/new", running(8)),
                ("ns/live", replace(dead(3), labels=Labels(known=True))),
                ("ns/dead", None),
            ]
            await output.wait()
            for name, look in changes:
                if look is None:
                    del node.inspector.tree[key(name)]
                else:
                    node.inspector.tree[key(name)] = look
                said.append(capsys.readouterr().out)
                emit(Resync(ResyncKind.TIMER))
                if not name.startswith("other"):
                    await output.wait()
            said.append(capsys.readouterr().out)
            signal.raise_signal(signal.SIGINT)

    stages = replace(node.stages, sources=(Changing(),))
    chosen = selection(["ns/n", "ns/l", "ns/d"], ())
    shown = Rows(Setup(policies=ENFORCE), Form.TABLE, chosen, ALL, output)
    ended = await follow_stages(stages, shown)
    assert ended.signal == signal.SIGINT
    assert node.cleaner.cleaned == []
    first, new, _, died, gone = [[line.split()[:3] for line in text.splitlines()] for text in said]
    assert first == [
        ["NAMESPACE", "ID", "VERDICT"],
        ["ns", "dead", "leftover"],
        ["ns", "live", "running"],
    ]
    assert new == [["ns", "new", "running"]]
    assert died == [["ns", "live", "leftover"]]
    assert gone == [["ns", "dead", "gone"]]
