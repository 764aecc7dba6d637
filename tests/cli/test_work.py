"""One pass of looking, one of cleaning, on doubles and in virtual time."""

import signal

import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.cli import cleaning
from reconciler.cli.checks import (
    check_guards,
    check_listing,
    complain_of_absence,
    complain_of_silence,
)
from reconciler.cli.globals import Form
from reconciler.cli.output import Output
from reconciler.cli.passes import clean_once, look_once
from reconciler.cli.scanning import shape
from reconciler.cli.watching import Ended
from reconciler.errors import (
    ExitCode,
    NoContainerdError,
    NoWorkerError,
    ReconcilerError,
    RefusedError,
)
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import (
    Containerd,
    ContainerdState,
    Look,
    Mount,
    Node,
    PartialLook,
    ProcessScan,
)
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Guard, Hidden, Listed, NodeLooked, Refusal
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result
from reconciler.model.policy import Match, Policies, Policy, Rule
from reconciler.model.processes import UnreadProcess
from reconciler.probe.tree import FilteredInspector
from reconciler.setup import Setup
from tests.cli.conftest import FakeNode
from tests.decide.world import dead, key, orphaned, running
from tests.support.fakes import FakeInspector

ENFORCE = Policies(default=Policy(enforce=True, grace=5.0, max_age=None, max_size=None))


@pytest.fixture
def node(node: FakeNode) -> FakeNode:
    node.inspector.tree = {key("ns/dead"): dead(1), key("ns/live"): running(2)}
    return node


async def test_looking_removes_nothing_whatever_the_policies(node: FakeNode) -> None:
    rule = Rule(Match(), replace(ENFORCE.default, name="all", grace=0.0))
    found = await look_once(node.stages, replace(ENFORCE, rules=(rule,)))
    assert node.cleaner.cleaned == []
    assert {str(view.key): view.judgement.verdict for view in found.views} == {
        "ns/dead": Verdict.LEFTOVER,
        "ns/live": Verdict.RUNNING,
    }
    assert found.seconds < 1


async def test_looking_asks_every_witness_once(node: FakeNode) -> None:
    await look_once(node.stages, ENFORCE)
    assert node.node_source.asked == 1
    assert node.inspector.listings == 1
    assert sorted(node.inspector.looked) == sorted(node.inspector.tree)


async def test_looking_goes_on_where_a_guard_refuses(node: FakeNode) -> None:
    node.refuse(Refusal(Guard.PID_NAMESPACE, "foreign pid namespace"))
    found = await look_once(node.stages, ENFORCE)
    assert len(found.views) == 2
    told = shape(found, Setup())
    assert told.summary.refused == ["foreign pid namespace"]


async def test_a_tree_that_cannot_be_read_ends_it_at_once(node: FakeNode) -> None:
    class Blind(FakeInspector):
        @override
        def list(self, namespace: str | None = None) -> Listed:
            return Listed(answered=False, present=True)

    stages = replace(node.stages, inspector=Blind())
    for work in (look_once, clean_once):
        found = await work(stages, ENFORCE)
        with pytest.raises(RefusedError):
            check_listing(found.listed, Setup().layout)


async def test_cleaning_waits_the_grace_between_two_looks(node: FakeNode) -> None:
    found = await clean_once(node.stages, ENFORCE)
    ((_, cleaned),) = node.cleaner.cleaned
    assert cleaned == key("ns/dead")
    assert found.seconds == pytest.approx(5.0, abs=0.5)
    told = cleaning.cleaned(found, Setup(policies=ENFORCE))
    assert [(one.id, one.result) for one in told.results] == [("dead", "cleaned")]
    assert cleaning.exit_code(told, found) is ExitCode.DONE


async def test_a_second_run_has_nothing_to_do(node: FakeNode) -> None:
    await clean_once(node.stages, ENFORCE)
    found = await clean_once(node.stages, ENFORCE)
    assert found.outcomes == ()
    assert found.seconds < 1


async def test_a_guard_that_refuses_ends_it_before_anything(node: FakeNode) -> None:
    node.refuse(Refusal(Guard.MOUNT_NAMESPACE, "slave mount namespace"))
    found = await clean_once(node.stages, ENFORCE)
    assert [refusal.reason for refusal in found.refused] == ["slave mount namespace"]
    assert node.cleaner.cleaned == []
    assert found.seconds < 1


async def test_what_is_blocked_is_not_waited_for_and_says_so(node: FakeNode) -> None:
    def busy(who: BundleKey, identity: Identity) -> Outcome:
        return Outcome(
            who,
            identity,
            Result.BLOCKED,
            BlockReason.MOUNT_BUSY,
            "rootfs is busy",
            (Holder(7, "sh", "cwd"),),
        )

    node.cleaner.answer = busy
    found = await clean_once(node.stages, ENFORCE)
    told = cleaning.cleaned(found, Setup(policies=ENFORCE))
    assert [one.result for one in told.results] == ["blocked"]
    assert cleaning.exit_code(told, found) is ExitCode.BLOCKED
    assert found.seconds < 10


async def test_what_we_broke_is_an_error(node: FakeNode) -> None:
    node.cleaner.answer = lambda who, identity: Outcome(who, identity, Result.FAILED)
    found = await clean_once(node.stages, ENFORCE)
    told = cleaning.cleaned(found, Setup(policies=ENFORCE))
    assert cleaning.exit_code(told, found) is ExitCode.ERROR


async def test_a_silent_containerd_removes_nothing_and_says_69(node: FakeNode) -> None:
    node.node_source.node = Node(ProcessScan(answered=True), Containerd(detail="it hangs"))
    found = await clean_once(node.stages, ENFORCE)
    assert node.cleaner.cleaned == []
    told = cleaning.cleaned(found, Setup(policies=ENFORCE))
    assert told.results == []
    assert cleaning.exit_code(told, found) is ExitCode.NO_CONTAINERD


async def test_what_is_not_old_enough_waits(node: FakeNode) -> None:
    old = replace(ENFORCE, default=replace(ENFORCE.default, threshold=86400.0))
    node.inspector.tree[key("ns/dead")] = replace(dead(1), newest_mtime=node.clock.wall() - 60)
    found = await clean_once(node.stages, old)
    told = cleaning.cleaned(found, Setup(policies=old))
    assert told.results == []
    assert told.summary.waiting == 1
    assert cleaning.exit_code(told, found) is ExitCode.DONE


async def test_what_a_rule_protects_is_told_and_kept(node: FakeNode) -> None:
    rule = Rule(Match(id="dead"), replace(ENFORCE.default, name="keep it", protect=True))
    policies = replace(ENFORCE, rules=(rule,))
    found = await clean_once(node.stages, policies)
    told = cleaning.cleaned(found, Setup(policies=policies))
    assert [one.result for one in told.results] == ["protected"]
    assert cleaning.exit_code(told, found) is ExitCode.DONE
    assert key("ns/dead") in node.inspector.tree


async def test_a_dry_run_names_what_would_go_and_touches_nothing(node: FakeNode) -> None:
    setup = Setup(policies=ENFORCE)
    found = await look_once(node.stages, ENFORCE)
    told = cleaning.planned(found, setup)
    assert [(one.id, one.result, one.reason) for one in told.results] == [("dead", "planned", "")]
    assert told.summary.dry_run
    assert node.cleaner.cleaned == []


async def test_a_dry_run_says_what_would_be_in_the_way(node: FakeNode) -> None:
    mounts = (Mount("rootfs", 1, "overlay"), Mount("rootfs/data", 2, "ext4"))
    node.inspector.tree[key("ns/dead")] = replace(dead(1), mounts=mounts)
    found = await look_once(node.stages, ENFORCE)
    told = cleaning.planned(found, Setup(policies=ENFORCE))
    (one,) = told.results
    assert (one.result, one.reason) == ("blocked", "foreign mount")
    assert one.detail == "foreign mount: rootfs/data (ext4 is mounted there; unmount it)"
    assert cleaning.exit_code(told, found) is ExitCode.BLOCKED


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (ContainerdState.UP, RefusedError),
        (ContainerdState.NONE, NoContainerdError),
        (ContainerdState.DOWN, None),
        (ContainerdState.SKIPPED, None),
    ],
)
async def test_rescue_works_only_where_containerd_is_down(
    node: FakeNode, state: ContainerdState, error: type[ReconcilerError] | None
) -> None:
    node.node_source.node = Node(ProcessScan(answered=True), Containerd(state))
    found = await look_once(node.stages, ENFORCE)
    if error is None:
        cleaning._check_down(found)
    else:
        with pytest.raises(error):
            cleaning._check_down(found)


async def test_other_namespaces_are_neither_seen_nor_touched(node: FakeNode) -> None:
    node.inspector.tree[key("other/dead")] = dead(3)
    inspector = FilteredInspector(node.inspector, lambda who: who.namespace == "ns")
    found = await clean_once(replace(node.stages, inspector=inspector), ENFORCE)
    assert key("other/dead") in node.inspector.tree
    assert key("other/dead") not in node.inspector.looked
    assert {view.key.namespace for view in found.views} == {"ns"}


async def test_a_removal_cut_short_is_shown_as_debris(node: FakeNode) -> None:
    class Littered(FakeInspector):
        @override
        def list(self, namespace: str | None = None) -> Listed:
            hidden = Hidden(BundleKey("ns", ".x"), dead(9).identity, 0.0, ours=True)
            return replace(super().list(namespace), hidden=(hidden,))

    found = await look_once(replace(node.stages, inspector=Littered()), ENFORCE)
    (debris,) = shape(found, Setup()).debris
    assert (debris.kind, debris.namespace, debris.id) == ("hidden-bundle", "ns", ".x")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_a_clean_in_order_and_what_was_done_is_told(
    node: FakeNode, number: signal.Signals
) -> None:
    node.inspector.tree |= {key(f"ns/dead{n}"): dead(10 + n) for n in range(20)}
    policies = replace(ENFORCE, parallel=1)
    stopped: list[float] = []

    async def stop_workers() -> None:
        stopped.append(node.clock.now)

    def interrupt(who: BundleKey, identity: Identity) -> None:  # None: removed as ever
        if len(node.cleaner.cleaned) == 2:
            signal.raise_signal(number)

    node.cleaner.answer = interrupt
    found = await clean_once(node.stages, policies, stop_workers)
    assert found.signal == number
    assert len(stopped) == 1
    assert 3 <= len(node.cleaner.cleaned) < 20
    assert [outcome.key for outcome in found.outcomes] == [who for _, who in node.cleaner.cleaned]


async def test_a_namespace_that_holds_nothing_is_named(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await look_once(node.stages, ENFORCE)
    complain_of_absence(frozenset({"ns", "sn"}), found, Output())
    assert capsys.readouterr().err == "there is no bundle in namespace sn\n"


async def test_a_scan_says_why_containerd_gives_no_answer(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.node_source.node = Node(ProcessScan(answered=True), Containerd(detail="it hangs"))
    complain_of_silence(await look_once(node.stages, ENFORCE), Output(quiet=True))
    assert "gives no answer (it hangs)" in capsys.readouterr().err


async def test_a_scan_says_when_it_cannot_read_the_tree_of_sandboxes(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await look_once(node.stages, ENFORCE)
    complain_of_silence(found, Output())
    assert "sandboxes" not in capsys.readouterr().err
    listed = replace(found.listed, sandboxes=False)
    complain_of_silence(replace(found, listed=listed), Output(quiet=True))
    assert "the tree of sandboxes cannot be read" in capsys.readouterr().err


async def test_cleaning_ends_also_where_containerd_takes_seconds_for_each_answer(
    node: FakeNode,
) -> None:
    """As long as a task is being created it does, and what is unsure is asked about all the time.

    One who cannot be removed is tried again meanwhile: that would go on for as long.
    """
    node.node_source.takes = 2.0
    node.inspector.tree |= {key(f"ns/lost{n}"): orphaned(10 + n) for n in range(5)}
    node.cleaner.answer = lambda key, identity: Outcome(
        key, identity, Result.BLOCKED, BlockReason.MOUNT_BUSY
    )
    found = await clean_once(node.stages, ENFORCE)
    assert [outcome.result for outcome in found.outcomes] == [Result.BLOCKED]
    assert found.seconds < 5.0 + 3 * 2.0


async def test_looking_waits_for_the_answer_about_what_was_seen_after_the_question(
    node: FakeNode,
) -> None:
    seen: list[float] = []

    class SlowEyes(FakeInspector):
        @override
        def look(self, key: BundleKey) -> Look | PartialLook | None:
            node.clock.now += 0.01
            seen.append(node.clock.now)
            return super().look(key)

    node.node_source.takes = 2.0
    inspector = SlowEyes({key(f"ns/dead{n}"): dead(n) for n in range(20)})
    await look_once(replace(node.stages, inspector=inspector), ENFORCE)
    received = [said.since for _, said in node.memory.observations if isinstance(said, NodeLooked)]
    assert len(seen) == 20
    assert received[-1] >= seen[-1]


# ------------------------------------------------------------------------- nobody could look

UNREAD = UnreadProcess(7)


@pytest.mark.safety
@pytest.mark.parametrize("scan", [ProcessScan(), ProcessScan(answered=True, unread=(UNREAD,))])
async def test_a_clean_that_could_not_look_does_not_end_as_if_there_were_nothing_to_do(
    node: FakeNode, scan: ProcessScan, capsys: pytest.CaptureFixture[str]
) -> None:
    node.node_source.node = replace(node.node_source.node, processes=scan)
    found = await clean_once(node.stages, ENFORCE)
    assert node.cleaner.cleaned == []
    done = cleaning.cleaned(found, Setup())
    assert cleaning._report(done, Form.TABLE, Output(), found) == ExitCode.NO_WORKER
    said = capsys.readouterr().err
    assert "nothing to do" not in said
    assert "process 7 may be" in said if scan.answered else "no worker could tell" in said


@pytest.mark.safety
async def test_one_that_does_not_answer_is_named_and_the_rest_is_cleaned(
    node: FakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    node.inspector.tree[key("ns/other")] = dead(3)
    unread = (UnreadProcess(7, key("ns/dead")),)
    node.node_source.node = replace(
        node.node_source.node, processes=ProcessScan(answered=True, unread=unread)
    )
    found = await clean_once(node.stages, ENFORCE)
    assert [who for _, who in node.cleaner.cleaned] == [key("ns/other")]
    complain_of_silence(found, Output())
    assert "process 7 may be the shim of ns/dead" in capsys.readouterr().err


@pytest.mark.safety
def test_no_worker_is_an_end_that_is_tried_again() -> None:
    nobody = Refusal(Guard.WORKER, "nobody")
    other = Refusal(Guard.INSTANCE, "another")
    check_guards(())
    with pytest.raises(NoWorkerError):
        check_guards((nobody,))
    with pytest.raises(RefusedError):
        check_guards((nobody, other))
    assert Ended(refused=(nobody,)).code == ExitCode.NO_WORKER
    assert Ended(refused=(other,)).code == ExitCode.REFUSED
