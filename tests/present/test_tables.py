"""Tables: aligned, uncut in a pipe, nothing taken as markup, no escapes without a terminal."""

import dataclasses
import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from reconciler.cli.console import fitted
from reconciler.decide.verdicts import RULES
from reconciler.model.cgroups import CgroupSource
from reconciler.model.debris import DebrisResult
from reconciler.model.decisions import Judgement, Phase, Verdict
from reconciler.model.evidence import CgroupState, InitState, Look, Mount, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Outcome, Result, Step, StepResult
from reconciler.model.policy import Orphans, Policy, Shims
from reconciler.present import debris_results, explain, formatting, rows, shapes
from reconciler.present.table import Cell, Column, Table
from tests.decide.debris_world import place
from tests.present.test_shapes import ENVELOPE, LAYOUT, LOOK, OUTCOME, VIEW

BUNDLE = shapes.bundle(VIEW, LAYOUT)
OBSERVE = Policy()
ENFORCE = Policy(enforce=True)


def test_columns_line_up_and_end_without_blanks() -> None:
    table = Table((Column("NAME"), Column("SIZE", right=True), Column("WHY")))
    table.rows = [[Cell("a"), Cell("1"), Cell("")], [Cell("longer"), Cell("10000"), Cell("x y")]]
    assert table.plain() == (
        "NAME      SIZE   WHY\n"
        "a            1\n"
        "longer   10000   x y\n"
    )  # fmt: skip


def test_nothing_is_cut_off_in_a_pipe() -> None:
    long = shapes.bundle(dataclasses.replace(VIEW, key=BundleKey("k8s.io", "x" * 64)), LAYOUT)
    assert "x" * 64 in rows.bundles([long], wide=True).plain()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_name_is_never_markup(terminal: bool) -> None:
    odd = shapes.bundle(
        dataclasses.replace(VIEW, key=BundleKey("[red]ns", "[/bold]:smile:")), LAYOUT
    )
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=terminal, color_system=None)
    console.print(fitted(rows.bundles([odd], wide=False)))
    assert "[red]ns" in out.getvalue()
    assert "[/bold]:smile:" in out.getvalue()


def test_wide_adds_columns_and_takes_none_away() -> None:
    narrow, wide = (rows.bundles([BUNDLE], wide=flag).columns for flag in (False, True))
    assert [column.name for column in wide[: len(narrow)]] == [column.name for column in narrow]
    assert {"RULE", "INIT", "SHIM", "MOUNTS", "MISSING"} <= {column.name for column in wide}
    for table in (rows.bundles([BUNDLE], wide=True), rows.results([result()])):
        assert all(len(row) == len(table.columns) for row in table.rows)


def result() -> shapes.ResultShape:
    return shapes.outcome(OUTCOME, LAYOUT)


def test_blocked_says_what_is_in_the_way_and_who() -> None:
    done = shapes.clean([result()], envelope=ENVELOPE, waiting=0, dry_run=False, seconds=0.1)
    assert rows.failures(done) == [
        "k8s.io/web blocked: mount busy; rootfs is busy; held by pid 17 sleep (cwd)"
    ]


@pytest.mark.fault("a poststop hook that fails")
def test_warnings_of_a_cleanup_are_in_its_row() -> None:
    steps = (
        Step("hooks", StepResult.WARNING, "poststop hooks failed: exit status 3"),
        Step("unmount", StepResult.DONE, mutations=1),
    )
    done = replace(OUTCOME, result=Result.CLEANED, reason=None, detail="", holders=(), steps=steps)
    row = rows.results([shapes.outcome(done, LAYOUT)]).plain().splitlines()[1]
    assert row.endswith("warning: hooks: poststop hooks failed: exit status 3")
    assert "unmount" not in row


def test_names_can_be_typed_again() -> None:
    assert rows.names([BUNDLE]) == "k8s.io/web\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (9.96, "10.0s"),
        (59.9, "59s"),
        (60, "1m"),
        (75, "1m15s"),
        (3600, "1h"),
        (3660, "1h1m"),
        (86400 * 3 + 3600 * 4 + 59, "3d4h"),
        (86400 + 59, "1d"),
    ],
)
def test_an_age_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert formatting.age(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0ms"),
        (0.0123, "12ms"),
        (0.9994, "999ms"),
        (0.9996, "1.0s"),
        (26.5, "26.5s"),
        (59.94, "59.9s"),
        (59.96, "1m"),
        (252.3, "4m12s"),
        (3725, "1h2m"),
    ],
)
def test_a_duration_has_a_unit_a_person_uses(seconds: float, shown: str) -> None:
    assert formatting.took(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (999, "999B"), (1000, "1.0kB"), (12_345_678, "12.3MB"), (10**16, "10.0PB")],
)
def test_a_size_is_short(count: int, shown: str) -> None:
    assert formatting.size(count) == shown
    assert formatting.size(count, exact=False) == f"{shown}+"


def test_explain_shows_the_rules_up_to_the_one_that_fired() -> None:
    told = explain.explain(VIEW, LAYOUT, OBSERVE, envelope=ENVELOPE, young=False)
    fits = [tried.fits for tried in told.rules]
    assert len(fits) == len(RULES)
    assert fits.count(True) == 1
    fired = told.rules[fits.index(True)]
    assert (fired.rule, fired.verdict) == (VIEW.judgement.rule, VIEW.judgement.verdict.value)

    running = VIEW.facts._replace(shim=ShimState.ALIVE, init=InitState.ALIVE)
    told = explain.explain(
        dataclasses.replace(VIEW, facts=running), LAYOUT, OBSERVE, envelope=ENVELOPE, young=False
    )
    assert [tried.fits for tried in told.rules] == [False, False, True, *[None] * 7]


def test_explain_shows_every_piece_of_evidence() -> None:
    told = explain.explain(VIEW, LAYOUT, OBSERVE, envelope=ENVELOPE, young=False)
    table = explain.evidence_table(told.evidence).plain()
    for piece in (
        "device 0:46 inode 1234 mount 77",
        "/run/containerd/s/ab",
        "pid 4242",
        "no such process",
        "io.containerd.runc.v2",
        "rootfs (overlay)",
        "init.pid, runtime",
        "8192 bytes",
        "cleanup",
    ):
        assert piece in table
    facts = {piece.value for piece in told.evidence}
    assert {str(getattr(fact, "value", "identifier")) for fact in VIEW.facts} <= facts


@pytest.mark.parametrize("phase", list(Phase))
def test_explain_says_what_happens_next_in_every_phase(phase: Phase) -> None:
    view = dataclasses.replace(VIEW, phase=phase, cause="busy" if phase is Phase.BLOCKED else "")
    told = explain.next_step(view, ENFORCE)
    assert told
    if phase is Phase.WAITING:
        assert "is removed in 9m59s" in told
        assert "would be removed in 9m59s by a run" in explain.next_step(view, OBSERVE)
    if phase is Phase.BLOCKED:
        assert "busy" in told


def test_explain_names_the_mount_that_is_in_the_way() -> None:
    mounts = (*LOOK.mounts, Mount("extra", 9, "ext4"))
    view = dataclasses.replace(VIEW, phase=Phase.WAITING, look=replace(LOOK, mounts=mounts))
    told = explain.next_step(view, ENFORCE)
    assert told.endswith("not before this is gone: extra (ext4 is mounted there; unmount it)")


def test_explain_says_why_what_is_mounted_and_named_by_nothing_is_unknown() -> None:
    lost = replace(LOOK, cgroup=CgroupState.UNNAMED, cgroup_source=CgroupSource.NONE)
    facts = VIEW.facts._replace(cgroup=CgroupState.NONE)
    for mounts, told in ((LOOK.mounts, True), ((), False)):
        view = dataclasses.replace(VIEW, look=replace(lost, mounts=mounts), facts=facts)
        pieces = explain.explain(view, LAYOUT, OBSERVE, envelope=ENVELOPE, young=False).evidence
        (detail,) = (piece.detail for piece in pieces if piece.evidence == "cgroup")
        assert detail.startswith("no file names it")
        assert ("whoever uses what is mounted may be in one of any name" in detail) is told


def test_explain_says_that_an_orphan_is_ended_where_it_is() -> None:
    orphaned = Judgement(Verdict.ORPHANED, 5, "why")
    view = dataclasses.replace(VIEW, judgement=orphaned, phase=Phase.NONE)
    killing = replace(ENFORCE, grace=600.0, orphans=Orphans.KILL)
    assert "is ended after 10m" in explain.next_step(view, killing)
    assert "would be ended" in explain.next_step(view, replace(killing, enforce=False))
    assert explain.next_step(view, replace(killing, protect=True)).startswith("nothing:")
    assert explain.next_step(view, ENFORCE).startswith("nothing:")


def test_explain_says_who_else_keeps_an_abandoned_shim() -> None:
    abandoned = Judgement(Verdict.ABANDONED, 4, "why")
    view = dataclasses.replace(VIEW, judgement=abandoned, phase=Phase.NONE)
    killing = replace(ENFORCE, grace=600.0, shims=Shims.KILL)
    assert "is ended after 10m" in explain.next_step(view, killing)
    kept = "ns/db may share it: why not"
    assert explain.next_step(view, killing, kept) == f"nothing: its shim stays, for {kept}"
    assert kept not in explain.next_step(view, ENFORCE, kept)


def test_a_plan_says_what_would_be_done_and_not_what_was() -> None:
    removed = shapes.planned(VIEW, LAYOUT)
    stays = shapes.kept(VIEW, LAYOUT, Result.BLOCKED, "foreign mount", "foreign mount: extra (x)")
    lines = rows.plan([removed, stays]).plain().splitlines()
    assert lines[0].split() == ["NAMESPACE", "ID", "PLAN", "REASON"]
    assert lines[1].split()[2:] == ["remove", *VIEW.judgement.reason.split()]
    assert lines[2].split()[2:] == ["blocked", "foreign", "mount:", "extra", "(x)"]
    done = shapes.clean([removed, stays], envelope=ENVELOPE, waiting=0, dry_run=True, seconds=0.01)
    assert rows.clean_summary(done.summary) == (
        "dry run: 1 bundle would be removed, 1 blocked, nothing was touched; 10ms"
    )


def test_what_was_removed_and_left_something_is_told_from_what_left_nothing() -> None:
    what = place()
    steps = (
        Step("cgroup", StepResult.WARNING, "cgroup /ns/x: somebody has it"),
        Step("bundle", StepResult.DONE, mutations=1),
    )
    done = Outcome(VIEW.key, VIEW.look.identity, Result.CLEANED, steps=steps)
    came = DebrisResult(what.key, what.identity, Result.CLEANED, steps=steps)
    clean = replace(done, steps=steps[1:])
    shown = [
        shapes.outcome(done, LAYOUT),
        shapes.outcome(clean, LAYOUT),
        debris_results.result(what, came),
    ]
    told = shapes.clean(shown, envelope=ENVELOPE, waiting=0, dry_run=False, seconds=0.01)
    for table in rows.laid_out(told, dry_run=False):
        assert "warning: cgroup: cgroup /ns/x: somebody has it" in table.plain()
    said = rows.clean_summary(told.summary, kept=rows.warned(told))
    assert said == "3 cleaned; 3 changes; 2 left something, see the warnings; 10ms"
    told = shapes.clean(shown[1:2], envelope=ENVELOPE, waiting=0, dry_run=False, seconds=0.01)
    assert "left something" not in rows.clean_summary(told.summary, kept=rows.warned(told))


def test_what_a_file_said_stays_on_one_line() -> None:
    hostile = replace(LOOK, init=replace(LOOK.init, detail="bad\n\x1b[2Jpid"))
    told = explain.explain(
        dataclasses.replace(VIEW, look=hostile), LAYOUT, OBSERVE, envelope=ENVELOPE, young=False
    )
    assert all(
        line.isprintable() for line in explain.evidence_table(told.evidence).plain().splitlines()
    )


def summary(verdict: Verdict, look: Look = LOOK) -> str:
    view = dataclasses.replace(VIEW, judgement=Judgement(verdict, 1, "why"), look=look)
    bundles = [shapes.bundle(view, LAYOUT)]
    scan = shapes.scan(bundles, [], envelope=ENVELOPE, containerd="up", refused=[], seconds=0.01)
    return rows.scan_summary(scan)


def test_the_summary_counts_in_words() -> None:
    assert summary(Verdict.LEFTOVER) == "1 bundle: 1 leftover; 8.2kB in leftovers; 10ms"
    assert summary(Verdict.RUNNING) == "1 bundle: 1 running; 10ms"
