"""What status, page and report say of debris: counts of all of it, rows of what matters first."""

import dataclasses
import re

import pytest
from msgspec.structs import replace

from reconciler.cli.list_options import Listing
from reconciler.model.debris import DebrisKind, Place
from reconciler.model.decisions import Phase, Verdict
from reconciler.model.evidence import Answer
from reconciler.model.layout import Layout
from reconciler.model.outcome import BlockReason, Result
from reconciler.present import formatting, page, report, status_text
from reconciler.present.debris import MOST, NO_PHASE, left
from reconciler.present.envelope import encode
from reconciler.present.status import Attempts, Status, gather
from tests.decide.debris_world import GRACE, DebrisWorld, place, places
from tests.present.test_page import HOSTILE, about

SOCKET = place(DebrisKind.SHIM_SOCKET, "/run/s/dead", names=("", ""))
UNSURE = place(path="/ns/unsure", owned=Answer.NONE)


def node(*there: Place, looked: tuple[DebrisKind, ...] = tuple(DebrisKind)) -> DebrisWorld:
    world = DebrisWorld(looked=looked)
    world.there += there
    world.begin()
    return world


def told(world: DebrisWorld, text: str = "") -> Status:
    return gather(world.engine, Attempts(Layout()), about(), world.stamp, text)


def test_each_piece_has_kind_path_phase_due_time_and_reason() -> None:
    world = node(SOCKET, UNSURE)
    status = told(world)
    socket, unsure = status.debris
    assert (socket.kind, socket.path, socket.phase) == ("shim-socket", "/run/s/dead", "waiting")
    assert socket.due_in_seconds == pytest.approx(GRACE, abs=1.0)
    assert "nobody listens" in socket.reason
    assert (unsure.verdict, unsure.phase, unsure.due_in_seconds) == ("unknown", None, None)
    assert status.summary.debris["shim-socket"] == {"waiting": 1}
    assert status.summary.debris["cgroup"] == {}, "what is unknown is no debris"
    assert "/run/s/dead" in encode(status)
    said = list(status_text.lines(status))
    assert said[1].endswith("1 piece of debris: shim-socket 1 waiting")
    assert len(said) == 2, "it is no alarm"
    (table,) = status_text.tables(status)
    assert [row[0].text for row in table.rows] == ["shim-socket", "cgroup"]


def test_what_cannot_be_removed_comes_first() -> None:
    world = node(place(), SOCKET)
    world.result, world.reason = Result.BLOCKED, BlockReason.MOUNT_BUSY
    world.pass_time(GRACE + 1.0)
    world.there.insert(0, place(path="/ns/new", ino=9))
    world.inventory()
    status = told(world)
    assert {one.phase for one in status.debris[:2]} == {Phase.BLOCKED.value}
    assert status.debris[2].path == "/ns/new"
    assert status.debris[0].cause == BlockReason.MOUNT_BUSY.value
    assert status.summary.debris["cgroup"] == {"blocked": 1, "waiting": 1}
    assert "retry" in page.render(status).partition("<h2>Debris</h2>")[2]


def test_of_a_kind_that_was_not_looked_for_nothing_is_said() -> None:
    world = node(SOCKET, looked=(DebrisKind.SHIM_SOCKET,))
    assert told(world).summary.debris == {"shim-socket": {"waiting": 1}}
    empty = told(DebrisWorld())
    assert (empty.summary.debris, empty.debris, empty.debris_omitted) == ({}, [], 0)
    assert "Debris" not in page.render(empty)
    assert "debris" not in "".join(status_text.lines(empty))


def test_ten_thousand_are_counted_and_few_are_listed() -> None:
    world = node(*places(10_000))
    status = told(world)
    assert status.summary.debris["cgroup"] == {"waiting": 10_000}
    assert (len(status.debris), status.debris_omitted) == (MOST, 10_000 - MOST)
    assert len(encode(status)) < 100_000
    html = page.render(status)
    assert len(html) < 150_000
    assert "9,800 more are not shown" in html
    assert "10000 waiting" in html


def test_where_an_inventory_could_not_name_all_it_is_at_least_so_many() -> None:
    world = node()
    world.most = 2
    world.there += places(3)
    world.inventory()
    status = told(world)
    assert status.summary.debris_more
    assert "at least 2 pieces of debris" in list(status_text.lines(status))[1]
    html = page.render(status)
    assert "at least 2 pieces of debris" in html
    assert "<b>2+</b>debris" in re.sub(' class="[^"]*"', "", html)


def test_a_filter_lists_what_mentions_it_and_counts_all() -> None:
    world = node(SOCKET, place())
    for text, kinds in (("/RUN/s", ["shim-socket"]), ("ns/x", ["cgroup"]), ("nowhere", [])):
        status = told(world, text)
        assert [one.kind for one in status.debris] == kinds
        assert status.summary.debris["cgroup"] == {"waiting": 1}


@pytest.mark.parametrize(
    ("listing", "namespaces", "kinds"),
    [
        (Listing(), (), ["shim-socket", "cgroup"]),
        (Listing(), ("ns",), ["cgroup"]),
        (Listing(phases=frozenset({Phase.WAITING})), (), ["shim-socket", "cgroup"]),
        (Listing(phases=frozenset({Phase.BLOCKED})), (), []),
        (Listing(verdicts=frozenset({Verdict.LEFTOVER})), (), []),
    ],
)
def test_a_list_is_narrowed_as_that_of_bundles(
    listing: Listing, namespaces: tuple[str, ...], kinds: list[str]
) -> None:
    status = listing.of_status(told(node(SOCKET, place())), namespaces)
    assert sorted(one.kind for one in status.debris) == sorted(kinds)


def test_hostile_names_stay_text() -> None:
    bad = place(path=HOSTILE, names=("<b>ns", HOSTILE))
    status = told(node(replace(bad, detail=HOSTILE)))
    html = page.render(status)
    assert "<script" not in html
    assert "<b>ns" not in html.partition("<h2>Debris</h2>")[2].replace("<b>&lt;b&gt;ns", "")
    assert html.count("<h2>Debris</h2>") == 1


def test_each_phase_has_a_place_in_the_counts() -> None:
    (view,) = node(place()).shown()
    for phase in Phase:
        shown = dataclasses.replace(view, phase=phase)
        counts = left([shown], tuple(DebrisKind)).counts["cgroup"]
        known = phase is not Phase.CLEANED
        assert counts == ({phase.value or NO_PHASE: 1} if known else {})


def test_a_report_holds_what_is_left_at_the_end() -> None:
    world = node(SOCKET, UNSURE)
    lanes = report.Lanes(0.0)
    lanes.take(100.0, None, ())
    lanes.end(left(world.shown(), world.engine.debris.looked))
    shown = lanes.page("run.jsonl", "node-1", "0", 1.7e9)
    socket, unsure = shown.debris
    assert socket[:3] == ("shim-socket:/run/s/dead", "debris", "waiting")
    assert socket[3] == pytest.approx(100_000 + GRACE * 1000, abs=1000)
    assert unsure[1:4] == ("unknown", "-", -1)
    assert shown.debris_counts == "1 piece of debris: shim-socket 1 waiting"
    assert formatting.debris({}) == formatting.debris({"cgroup": {}}) == ""
