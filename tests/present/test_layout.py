"""Every table in windows of every width: whole words, short ids, nothing said twice."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.cli.output import Output
from reconciler.model.decisions import Judgement, Phase, Verdict
from reconciler.model.evidence import Labels
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Result
from reconciler.present import comparison, explain, rows, shapes
from reconciler.present.debris import DebrisShape
from reconciler.present.layout import Laid, laid, short_ids, wrapped
from reconciler.present.table import Cell, Column, Table
from tests.present.test_shapes import ENVELOPE, LAYOUT, LOOK, OUTCOME, VIEW
from tests.present.test_tables import OBSERVE

WIDTHS: Final = (60, 80, 120, 200)
DEAD: Final = "shim dead, init dead, cgroup empty, not listed"
LIVES: Final = "shim and init live"
ORPHAN: Final = "shim is dead but init lives: containerd cannot manage it"


def hexadecimal(n: int) -> str:
    return sha256(str(n).encode()).hexdigest()


def bundle(
    n: int, reason: str = DEAD, pod: str = "coredns-5d78c9869d-abcde", **changes: object
) -> shapes.Bundle:
    """A container of a pod, as CRI makes them."""
    labels = Labels(known=True, pod_namespace="kube-system", pod=pod, container="coredns")
    view = dataclasses.replace(
        VIEW,
        key=BundleKey("k8s.io", hexadecimal(n)),
        labels=labels,
        judgement=Judgement(Verdict.LEFTOVER, 8, reason),
        phase=Phase.WAITING,
    )
    return replace(shapes.bundle(view, LAYOUT), **changes)


def bare(one: shapes.Bundle) -> shapes.Bundle:
    return replace(one, pod=None)


BUNDLES: Final = [bundle(1), bundle(2), bundle(3, LIVES), bundle(4, ORPHAN, pod="web-0")]
RESULTS: Final = [
    replace(shapes.outcome(OUTCOME, LAYOUT), id=hexadecimal(n), seconds=26.5 * n)
    for n in range(1, 4)
]
TABLES: Final[dict[str, Callable[[], Table]]] = {
    "scan": lambda: rows.bundles([*map(bare, BUNDLES)], wide=False),
    "scan of pods": lambda: rows.bundles(BUNDLES, wide=False),
    "scan -o wide": lambda: rows.bundles(BUNDLES, wide=True),
    "debris": lambda: rows.debris(
        [
            DebrisShape(
                kind="hidden-bundle",
                path=f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/.{hexadecimal(n)}",
                reason="a removal was cut short",
                verdict="debris",
                namespace="k8s.io",
                id=f".{hexadecimal(n)}",
                age_seconds=9.0,
                attempts=0,
            )
            for n in range(2)
        ]
    ),
    "plan": lambda: rows.plan(
        [shapes.kept(VIEW, LAYOUT, result, "because") for result in (*Result, Result.SKIPPED)]
    ),
    "results": lambda: rows.results(RESULTS),
    "evidence": lambda: explain.evidence_table(explanation().evidence),
    "rules": lambda: explain.rules_table(explanation()),
    "replay": lambda: comparison.fates_table(
        [comparison.CleanupChange(BundleKey("k8s.io", hexadecimal(n)), 1.0, 2.0) for n in range(2)]
    ),
}


def explanation() -> explain.Explanation:
    socket = f"/run/containerd/s/{hexadecimal(7)}"
    look = replace(LOOK, shim=replace(LOOK.shim, socket=socket))
    return explain.explain(
        dataclasses.replace(VIEW, look=look),
        LAYOUT,
        OBSERVE,
        envelope=ENVELOPE,
        young=False,
        why_policy="no rule fits",
    )


def text(shown: Laid) -> list[str]:
    return ["".join(span.text for span in line) for line in shown.lines()]


def words(table: Table) -> set[str]:
    """All that may stand between two blanks: whole words, and the pieces of a path."""
    said = [column.name for column in table.columns]
    said += [column.name.lower() for column in table.columns]
    said += [cell.shown for row in table.rows for cell in row]
    pieces = {word for one in said for word in one.split()}
    return pieces | {piece for word in pieces for piece in re.findall(r"[^/,]*[/,]|[^/,]+", word)}


def is_whole(word: str, known: set[str]) -> bool:
    """Whether nothing was broken: a word, part of a path, a short id, or one that is cut."""
    if word in known or re.fullmatch(r"(\[\d+\];?)+", word) or "…" in word:
        return True
    if re.fullmatch(r"[0-9a-f]{13}", word):
        return any(one.startswith(word) for one in known)
    pieces = re.findall(r"[^/,]*[/,]|[^/,]+", word)
    return len(pieces) > 1 and all(is_whole(piece, known) for piece in pieces)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_no_table_is_wider_than_its_window_or_breaks_a_word(name: str, width: int) -> None:
    table = TABLES[name]()
    shown = text(laid(table, width))
    known = words(table)
    assert max(map(len, shown)) <= width
    for line in shown:
        assert line == line.rstrip()
        for word in line.split():
            assert is_whole(word, known), f"{word!r} in {line!r}"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_all_of_a_table_is_shown_in_every_window(name: str, width: int) -> None:
    """Only ids, and what says by an ellipsis that it goes on, are shorter than in a pipe."""
    table = TABLES[name]()
    shown = laid(table, width)
    assert len(shown.rows) == len(table.rows)
    said = " ".join(" ".join(text(shown)).split())
    for row in table.rows:
        for column, cell in zip(table.columns, row, strict=True):
            for word in cell.shown.split():
                if column.is_id or re.search("[0-9a-f]{32}", word) or word == "-":
                    continue
                assert word in said or all(
                    p in said for p in re.findall(r"[^/,]*[/,]|[^/,]+", word)
                )


def parts(table: Table) -> Iterator[str]:
    for row in table.rows:
        for column, cell in zip(table.columns, row, strict=True):
            if column.has_notes:
                yield from cell.shown.split("; ")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_no_reason_is_said_twice(name: str, width: int) -> None:
    table = TABLES[name]()
    said = " ".join(" ".join(text(laid(table, width))).split())
    for part in set(parts(table)):
        if len(part) > 2:
            assert said.count(part) <= 1, part


def test_a_note_stands_for_what_several_rows_say() -> None:
    lines = text(laid(TABLES["scan"](), 200))
    assert [line.split()[-1] for line in lines[1:3]] == ["[1]", "[1]"]
    assert lines[3].endswith(LIVES)
    assert lines[4].endswith(ORPHAN)
    assert lines[5:] == [f"[1] {DEAD}"]


def test_what_differs_in_two_reasons_stays_in_its_row() -> None:
    table = Table((Column("WHY", has_notes=True),))
    table.rows = [[Cell("is dead; held by pid 7")], [Cell("is dead; held by pid 8")]]
    assert text(laid(table, 80)) == [
        "WHY",
        "[1]; held by pid 7",
        "[1]; held by pid 8",
        "[1] is dead",
    ]


def test_a_pod_and_its_container_stand_in_place_of_64_digits() -> None:
    heading, first, *_ = text(laid(TABLES["scan of pods"](), 200))
    assert heading.split()[:4] == ["NAMESPACE", "ID", "POD", "CONTAINER"]
    assert first.split()[:4] == [
        "k8s.io",
        hexadecimal(1)[:13],
        "kube-system/coredns-5d78c9869d-abcde",
        "coredns",
    ]


def test_whoever_agrees_to_a_plan_sees_whose_pods_it_is_about() -> None:
    (one, *_) = (replace(done, pod=shapes.Pod("shop", "cart-0", "nginx")) for done in RESULTS)
    other = replace(one, id="other", pod=None)
    for table in (rows.plan([one, other]), rows.results([one, other], ["1s ago", "2s ago"])):
        names = [column.name for column in table.columns]
        assert names[:4] == ["NAMESPACE", "ID", "POD", "CONTAINER"]
        shown = [[cell.text for cell in row] for row in table.rows]
        assert [row[2:4] for row in shown] == [["shop/cart-0", "nginx"], ["-", "-"]]
        assert {len(row) for row in shown} == {len(names)}
    for table in (rows.plan([other]), rows.results([other])):
        assert "POD" not in [column.name for column in table.columns]


def test_where_there_is_no_pod_there_is_no_column_for_it() -> None:
    assert "POD" not in [column.name for column in TABLES["scan"]().columns]


def test_what_does_not_fit_beside_the_rest_stands_below_with_its_name() -> None:
    _, first, second, *_ = text(laid(TABLES["scan of pods"](), 80))
    assert first.split()[:2] == ["k8s.io", hexadecimal(1)[:13]]
    assert second.startswith("    pod kube-system/coredns-5d78c9869d-abcde")


def test_a_pipe_gets_every_row_in_full() -> None:
    for make in TABLES.values():
        table = make()
        lines = table.plain().splitlines()
        assert len(lines) == 1 + len(table.rows)
        for line, row in zip(lines[1:], table.rows, strict=True):
            assert all(cell.shown in line for cell in row)


@pytest.mark.parametrize("terminal", [True, False])
def test_no_trunc_shows_on_a_terminal_what_a_pipe_gets(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Output, "on_terminal", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    table = TABLES["scan of pods"]()
    Output(whole=True).table(table)
    assert capsys.readouterr().out == table.plain()


def test_a_table_can_do_without_its_headings() -> None:
    table = TABLES["scan"]()
    with_headings = text(laid(table, 200)), table.plain().splitlines()
    table.headings = False
    without = text(laid(table, 200)), table.plain().splitlines()
    for all_lines, others in zip(with_headings, without, strict=True):
        assert [line.split() for line in others] == [line.split() for line in all_lines[1:]]


# -------------------------------------------------------------------------------------- ids


def test_an_id_is_as_long_as_it_must_be_to_differ() -> None:
    one, other = "a" * 20 + "0" * 44, "a" * 20 + "1" * 44
    short = short_ids({one, other, hexadecimal(1), "0123456789abcdef-named", "web"})
    assert short[one] == "a" * 20 + "0"
    assert short[other] == "a" * 20 + "1"
    assert short[hexadecimal(1)] == hexadecimal(1)[:13]
    assert short["0123456789abcdef-named"] == "0123456789abcdef-named"
    assert short["web"] == "web"


def test_an_id_differs_from_those_that_are_not_shown() -> None:
    one, other = "a" * 20 + "0" * 44, "a" * 20 + "1" * 44
    shown = replace(bare(bundle(1)), id=one)
    (line,) = text(laid(rows.bundles([shown], wide=False, ids=[one, other]), 200))[1:]
    assert line.split()[1] == "a" * 20 + "0"


@given(st.sets(st.text("0123456789abcdef", min_size=1, max_size=70), min_size=1))
def test_no_two_ids_are_shortened_to_the_same(ids: set[str]) -> None:
    short = short_ids(ids)
    for whole, shown in short.items():
        assert whole.startswith(shown)
        if shown != whole:
            assert [one for one in ids if one.startswith(shown)] == [whole]


# ------------------------------------------------------------------------------------- words


@given(st.text(st.characters(categories=["L", "P", "Zs"])), st.integers(min_value=1, max_value=90))
def test_no_line_is_too_long(said: str, width: int) -> None:
    assert all(len(line) <= width for line in wrapped(said, width))


def test_a_path_breaks_after_a_slash_and_a_long_name_where_a_part_of_it_ends() -> None:
    assert wrapped("see /run/containerd/s now", 12) == ["see /run/", "containerd/s", "now"]
    assert wrapped("see coredns-5d78c9869d-x", 12) == ["see", "coredns-", "5d78c9869d-x"]
    assert wrapped("x" * 20 + " y", 12) == ["x" * 12, "x" * 8 + " y"]


@given(st.text("ab-/", max_size=90), st.integers(min_value=1, max_value=40))
def test_nothing_of_a_name_is_lost(name: str, width: int) -> None:
    assert "".join(wrapped(name, width)) == name


letters = st.text("ab-", max_size=3)
alike = st.builds(
    lambda n, end: "kube-system-node-exporter-"[: n + 1] + end, st.integers(0, 25), letters
)
pods = st.builds("{}/{}".format, alike, alike)
digits = st.builds(
    lambda n, end: "0123456789abcdef" * n + end, st.integers(1, 3), st.text("01", max_size=3)
)
rows_of_names = st.tuples(alike | digits, alike | digits, pods, alike | digits)


@given(st.sets(rows_of_names, min_size=2, max_size=5), st.sampled_from([20, 40, 60, 80, 120]))
@example(
    {("k8s.io", "a" * 14, "kube-system/node-exporter-in-zone-a-1", "c"),
     ("k8s.io", "a" * 14, "kube-system/node-exporter-in-zone-a-2", "c")}, 80
)  # fmt: skip
def test_no_two_rows_that_differ_look_alike(
    said: set[tuple[str, str, str, str]], width: int
) -> None:
    table = rows.bundles([], wide=False)
    table.columns = (*rows._NAME, *rows._POD)
    table.rows = [[Cell(one) for one in row] for row in sorted(said)]
    shown = [
        "\n".join("".join(span.text for span in line) for line in row)
        for row in laid(table, width).rows
    ]
    assert len(set(shown)) == len(said), shown


def test_characters_that_take_two_columns_are_counted_as_two() -> None:
    table = Table((Column("A", shortens=True), Column("B")))
    table.rows = [[Cell("名" * 30), Cell("b")]]
    from rich.cells import cell_len

    (_, line) = text(laid(table, 40, cell_len))
    assert cell_len(line) <= 40
    assert line.endswith("b")
