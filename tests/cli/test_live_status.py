"""`status --watch`: in any window, whatever is wrong and what was done stay in view."""

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from reconciler.cli.list_options import Listing
from reconciler.cli.live_status import StatusView
from reconciler.model.decisions import Phase, Verdict
from reconciler.present import shapes, status_text
from reconciler.present.status import Recent, Status
from tests.present.test_every_value import status
from tests.present.test_layout import bundle
from tests.present.test_shapes import LAYOUT, OUTCOME

NOW = 1_700_000_000.0
WIDTHS = (60, 80, 120, 200)


def busy_status(bundles: int = 100, results: int = 20) -> Status:
    done = [
        Recent(NOW - 60.0 * n, replace(shapes.outcome(OUTCOME, LAYOUT), id=f"done{n}"))
        for n in range(1, results + 1)
    ]
    shown = [bundle(n, f"reason {n % 3}") for n in range(bundles)]
    return replace(status("some text"), now=NOW, bundles=shown, omitted=7, recent=done)


def text(view: StatusView, width: int, height: int) -> list[str]:
    return ["".join(span.text for span in line) for line in view.lines(width, height)]


@pytest.mark.parametrize("height", [24, 40, 60])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_never_larger_than_its_window(width: int, height: int) -> None:
    lines = text(StatusView(busy_status(), "the daemon does not answer"), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("height", [30, 60, 200])
@pytest.mark.parametrize("width", WIDTHS)
def test_what_it_hides_is_counted(width: int, height: int) -> None:
    lines = text(StatusView(busy_status()), width, height)
    shown = sum("k8s.io" in line and "done" not in line and "web" not in line for line in lines)
    (more,) = [line for line in lines if "need attention" in line]
    assert int(more.split()[1].replace(",", "")) + shown == 100 + 7


@pytest.mark.parametrize("width", WIDTHS)
def test_results_stay_in_view_and_say_when(width: int) -> None:
    lines = text(StatusView(busy_status()), width, 40)
    assert any("done1" in line and "1m ago" in line for line in lines)
    (more,) = [line for line in lines if "earlier results" in line]
    count = sum("done" in line for line in lines)
    assert int(more.split()[1]) == 20 - count
    assert lines[-1] == "Ctrl-C ends"


def test_where_nothing_is_hidden_nothing_is_counted() -> None:
    view = StatusView(replace(busy_status(2, 2), omitted=0))
    lines = text(view, 200, 60)
    assert not any(line.startswith("and ") for line in lines)


def test_a_table_of_the_status_says_when_each_attempt_ended() -> None:
    table = status_text.results(busy_status())
    assert [column.name for column in table.columns][2] == "WHEN"
    assert "1m ago" in table.plain()


def test_rich_draws_what_was_laid_out() -> None:
    out = io.StringIO()
    Console(file=out, width=80, height=40, color_system=None).print(StatusView(busy_status()))
    assert [line.rstrip() for line in out.getvalue().splitlines()] == text(
        StatusView(busy_status()), 80, 40
    )


def test_the_status_is_narrowed_as_a_scan_is() -> None:
    whole = busy_status(4, 1)
    stuck = replace(whole.bundles[0], verdict=Verdict.ORPHANED.value, phase=None, size_bytes=10**9)
    whole = replace(whole, bundles=[*whole.bundles[1:], stuck])
    assert Listing().of_status(whole, ()) is whole
    orphans = Listing(verdicts=frozenset({Verdict.ORPHANED})).of_status(whole, ())
    assert orphans.bundles == [stuck]
    waiting = Listing(phases=frozenset({Phase.WAITING})).of_status(whole, ())
    assert waiting.bundles == whole.bundles[:-1]
    assert Listing(sort_by="size").of_status(whole, ()).bundles[0] is stuck
    nobody = Listing().of_status(whole, ("default",))
    assert (nobody.bundles, nobody.recent) == ([], [])
    assert nobody.summary == whole.summary
