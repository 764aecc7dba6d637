"""What a worker keeps of its passes over /proc, and which of them ask for cgroups."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace
from typing_extensions import override

from reconciler.clock import SystemClock
from reconciler.demo.node import Process
from reconciler.model.cgroups import CgroupSource
from reconciler.model.evidence import UNSEEN, Containerd, ProcessScan, ShimProcess
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.probe import pids
from reconciler.probe.bundle import Examination
from reconciler.probe.commands import CommandLines
from reconciler.probe.pids import Moment, moment
from reconciler.probe.processes import scan
from reconciler.worker import context, second_look
from reconciler.worker.context import WorkerContext
from reconciler.worker.messages import CleanJob, WorkerScope
from reconciler.worker.second_look import NotLeftover

pytestmark = [pytest.mark.safety, pytest.mark.fault("megabytes of cgroup paths")]


USUAL = Layout()


class Node(SystemClock):
    """A clock and a /proc: a pass that asks for cgroups takes its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, layout: Layout = USUAL) -> None:
        self.now = 100.0
        self.took = 0.0
        self.answers = True
        self.asked: list[bool] = []
        monkeypatch.setattr(context, "scan", self.scan)
        self.place = WorkerContext(
            WorkerScope(layout), self, lambda _: None, lambda: None, lambda: False
        )

    @override
    def monotonic(self) -> float:
        return self.now

    @override
    def wall(self) -> float:
        return self.now

    def scan(self, *, cgroups: bool = True, **_: object) -> ProcessScan:
        self.asked.append(cgroups)
        if not self.answers:
            return ProcessScan()
        self.now += self.took * cgroups
        shims = (ShimProcess(BundleKey("ns", "a"), len(self.asked)),)
        if not cgroups:
            return ProcessScan(True, shims=shims)
        number = len(self.asked)
        return ProcessScan(
            True,
            shims=shims,
            cgroup_names=frozenset({str(number)}),
            cgroup_paths=frozenset({f"/{number}"}),
            unplaced=number,
        )

    def passes(
        self, *, anew: bool = False, whole: bool = False, after: float = 1.0
    ) -> tuple[int, set[str]]:
        """Give the numbers of the passes that told of shims and of cgroups."""
        self.now += after
        found = self.place.scan(anew=anew, whole=whole)
        # All that is said of cgroups is of one pass.
        assert found.cgroup_paths == {f"/{found.unplaced}"}
        assert found.cgroup_names == {str(found.unplaced)}
        return found.shims[0].pid, set(found.cgroup_paths)


def test_each_pass_asks_for_cgroups_while_that_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch)
    node.took = 0.004
    assert [node.passes() for _ in range(2)] == [(1, {"/1"}), (2, {"/2"})]
    assert node.passes(after=0.5) == (2, {"/2"})


def test_what_is_dear_is_asked_less_often_while_shims_are_as_fresh_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(monkeypatch)
    node.took = 0.125
    seen = [node.passes(after=1.001) for _ in range(4)]
    assert seen == [(1, {"/1"}), (2, {"/1"}), (3, {"/1"}), (4, {"/4"})]
    node.took = 10.0
    assert node.passes(anew=True) == (5, {"/5"})
    # Five seconds from its beginning: it took longer than that.
    assert node.passes(after=1.001) == (6, {"/6"})
    node.took = 2.0
    assert node.passes(anew=True) == (7, {"/7"})
    seen = [node.passes(after=1.001) for _ in range(3)]
    assert seen == [(8, {"/7"}), (9, {"/7"}), (10, {"/10"})]


def test_where_all_cgroups_count_they_are_as_fresh_as_shims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(monkeypatch)
    node.took = 0.25
    assert node.passes() == (1, {"/1"})
    assert node.passes(whole=True, after=0.5) == (1, {"/1"})
    assert node.passes(after=0.6) == (2, {"/1"})
    assert node.passes(whole=True, after=0.0) == (3, {"/3"})
    assert node.passes(whole=True, after=0.0) == (3, {"/3"})


def test_whoever_asks_for_everything_anew_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch)
    node.took = 1.0
    assert node.passes() == (1, {"/1"})
    assert node.passes(anew=True, after=0.0) == (2, {"/2"})


def test_no_answer_is_not_completed_by_an_older_one_nor_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(monkeypatch)
    node.took = 1.0
    node.passes()
    node.answers = False
    node.now += 1.001
    assert node.place.scan() == ProcessScan()
    assert node.place.scan(anew=True) == ProcessScan()
    node.answers = True
    assert node.passes(after=1.001) == (4, {"/4"})


def test_for_shims_alone_nobody_is_asked_for_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(monkeypatch)
    assert node.place.scan_for_shims(True).cgroup_paths == frozenset()
    assert node.asked == [False]


class Still(SystemClock):
    """A clock that stands still: what is kept for a while is kept."""

    @override
    def monotonic(self) -> float:
        return 100.0


def test_a_shim_that_comes_is_shown_though_not_all_are_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes: list[bool] = []

    def counted(*, users: frozenset[int], commands: CommandLines, cgroups: bool) -> ProcessScan:
        passes.append(cgroups)
        return scan(users=users, commands=commands, cgroups=cgroups)

    monkeypatch.setattr(context, "scan", counted)
    monkeypatch.setattr(context, "FEW_PIDS", 1 << 15)
    place = WorkerContext(WorkerScope(USUAL), Still(), lambda _: None, lambda: None, lambda: False)
    first, began = place.scan_for_shims(False), moment(Still()).last or 1 << 30
    assert first.answered
    words = ["containerd-shim-runc-v2", "-namespace", "reconciler-test", "-id", str(os.getpid())]
    key = BundleKey("reconciler-test", words[-1])
    assert key not in {shim.key for shim in first.shims}
    shim = Process(words)
    try:
        found = place.scan_for_shims(False)
        assert ShimProcess(key, shim.pid) in found.shims
        assert place.scan_for_shims(False).shims[: len(found.shims)] == found.shims
        assert len(passes) == 1 or shim.pid < began, "pids began again meanwhile"
    finally:
        shim.end()
    monkeypatch.setattr(context, "FEW_PIDS", -1)
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    assert key not in {shim.key for shim in place.scan_for_shims(False).shims}
    assert len(passes) >= 2


def test_who_came_is_not_asked_of_a_pass_that_was_made_for_this_very_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(monkeypatch)
    monkeypatch.setattr(context, "given_out", lambda *_: pytest.fail("asked all the same"))
    node.place.scan_for_shims(False)
    node.now += context.FRESH_SECONDS
    node.place.scan_for_shims(False)
    node.place.scan_for_shims(True)
    assert len(node.asked) == 3


def test_everybody_is_looked_at_again_where_pids_may_have_gone_round_to_the_same_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(monkeypatch)
    monkeypatch.setattr(context, "moment", lambda _: Moment(4711, node.now, node.now))
    monkeypatch.setattr(pids, "_number", lambda _: 1 << 15)
    first = node.place.scan_for_shims(False)
    assert node.place.scan_for_shims(False) is first
    node.now += context.FRESH_SECONDS * 0.99
    assert node.place.scan_for_shims(False) is not first


@pytest.mark.parametrize("source", CgroupSource)
def test_who_is_in_any_cgroup_is_asked_anew_unless_it_is_known_which_one_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: CgroupSource
) -> None:
    layout = Layout(state=os.fsencode(tmp_path))
    os.makedirs(layout.tasks)
    node = Node(monkeypatch, layout)
    node.took = 1.0
    node.passes()
    node.now += 1.001
    look = replace(UNSEEN, cgroup_source=source)
    monkeypatch.setattr(second_look, "examine", lambda *_: Examination(look))
    job = CleanJob(BundleKey("ns", "a"), look.identity, Containerd())
    with pytest.raises(NotLeftover, match="unknown"):
        second_look.look_again(node.place, job)
    assert node.asked == [True, False] + [True] * (source is not CgroupSource.RUNTIME)


@pytest.mark.safety
def test_a_pass_that_was_made_for_a_look_shows_all_shims_until_pids_were_given_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(monkeypatch)
    last = [4711]
    monkeypatch.setattr(context, "moment", lambda _: Moment(last[0], node.now, node.now))
    monkeypatch.setattr(pids, "_number", lambda _: 1 << 22)
    monkeypatch.setattr(context, "FEW_PIDS", 0)
    looked = node.place.scan()
    assert node.place.scan_for_shims(False) is looked
    last[0] += 1
    later = node.place.scan_for_shims(False)
    assert later is not looked, "somebody came"
    assert node.place.scan() is looked
    node.now += context.FRESH_SECONDS
    assert node.place.scan_for_shims(False) is not later, "it is as old as it may be"
    node.answers = False
    assert not node.place.scan(anew=True).answered
    node.answers = True
    assert node.place.scan_for_shims(False).answered, "no answer replaces none"
