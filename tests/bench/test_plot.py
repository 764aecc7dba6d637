"""The page, the picture and the kept figures of the benchmarks are of one run."""

from tests.bench.plot import FIGURES, PICTURE, README, lines, load, picture, written


def test_the_page_and_the_picture_show_the_kept_figures() -> None:
    run = load(FIGURES)
    rows = lines(run)
    assert len(rows) >= 9
    assert all(row.ours > 0 and row.goal > 0 for row in rows)
    assert PICTURE.read_text() == picture(rows, run["machine"])
    page = README.read_text()
    assert page == written(page, rows)
    assert page.count(f"| {rows[0].work} |") == 1
