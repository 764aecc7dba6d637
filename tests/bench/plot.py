"""``python -m tests.bench.plot [JSON]``: draws the figures of a run, and writes their table.

The JSON is what `make bench` leaves; it is kept as ``figures.json``. From it come ``figures.svg``
and the table in README.md, each figure beside its floor, its goal, and who else does the work. A
test holds that the three agree.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final, TypedDict, cast

HERE: Final = Path(__file__).parent
FIGURES: Final = HERE / "figures.json"
PICTURE: Final = HERE / "figures.svg"
README: Final = HERE / "README.md"
BEGIN: Final = "<!-- written by tests.bench.plot -->\n"
END: Final = "<!-- end -->\n"

_WIDTH, _LABELS, _ROW, _TOP = 860, 330, 44, 52
_LEAST, _MOST = -4.0, 4.0  # doublings of the goal that the picture shows


_REAL: Final = "clean * real dead bundles, each"
_SCAN: Final = "cold scan of 10,000 *"
Find = Callable[[str, str], float]
"""Gives a value by what was done."""


class Run(TypedDict):
    """What a run leaves."""

    machine: str
    seconds: dict[str, float]
    figures: list[dict[str, float | str]]


@dataclass(frozen=True, slots=True)
class Line:
    """A figure of the table; less is better, and all are in one unit.

    Attributes:
        work: What is done.
        unit: What is counted.
        ours, goal: What it takes, and what it should take at most.
        floor: What the same calls take with nothing decided.
        peer: Who else does it, and what it takes them.
    """

    work: str
    unit: str
    ours: float
    goal: float
    floor: float | None = None
    peer: tuple[str, float] | None = None

    @property
    def is_met(self) -> bool:
        """Whether it takes no more than it should."""
        return self.ours <= self.goal


def lines(run: Run) -> list[Line]:
    """Give the figures that have goals, as far as the run has them and what they hang on."""
    made = []
    for line in (
        _clean,
        _clean_cpu,
        _scan,
        _scan_wall,
        _daemon,
        _replay,
        _held,
        _each,
        _few,
        _churn,
    ):
        with suppress(KeyError):
            made.append(line(_finder(run)))
    return made


def _clean(of: Find) -> Line:
    containerd = of(_REAL, "containerd_ms")
    peer = ("containerd's restart", containerd)
    ours = of(_REAL, "wall_ms")
    return Line("clean real dead bundles, each", "ms wall", ours, containerd / 7, peer=peer)


def _clean_cpu(of: Find) -> Line:
    bare = of("the removal of * alone, each", "cpu_ms")
    return Line("the same", "ms CPU", of(_REAL, "cpu_ms"), 2.1, bare)


def _scan(of: Find) -> Line:
    bare = of("the system calls of looks at 10,000 *", "cpu_us")
    return Line("cold scan of 10,000, each", "us CPU", of(_SCAN, "cpu_us"), 2 * bare, bare)


def _scan_wall(of: Find) -> Line:
    find = ("`find -mtime +7 -ls`", of(_SCAN, "find_wall_us"))
    return Line("the same", "us wall", of(_SCAN, "wall_us"), 100, peer=find)


def _daemon(of: Find) -> Line:
    known = of("`daemon` at 10,000 * all judged", "known_s")
    a_scan = of(_SCAN, "wall_us") * 10_000 / 1e6
    return Line("daemon: start to 10,000 judged", "s", known, 1.6, peer=("a scan", a_scan))


def _replay(of: Find) -> Line:
    decided = 1e6 / of("the same, decided again", "a_second")
    decoded = ("decoding alone", 1e6 / of("decoding a busy node's journal, *", "a_second"))
    return Line("replay, an observation", "us CPU", decided, 1e6 / 60_000, peer=decoded)


def _held(of: Find) -> Line:
    held = of("`daemon` at 1,000 bundles: memory *", "pss_mib")
    return Line("daemon's memory at 1,000 bundles", "MiB PSS", held, 41)


def _each(of: Find) -> Line:
    each = of("`daemon`: memory of each further bundle", "kib")
    return Line("each further bundle", "KiB", each, 1.25)


def _few(of: Find) -> Line:
    return Line("start: `scan` of ten", "s wall", of("`scan` of 10 dead bundles", "wall_s"), 0.22)


def _churn(of: Find) -> Line:
    work = "1,000 creations and deletions a second, looks *"
    bare = of(work, "bare_cpu_us")
    return Line("1,000 creations a second, an event", "us CPU", of(work, "cpu_us"), 60, bare)


def _finder(run: Run) -> Find:
    """Give who finds a value by what was done; a star stands for what differs between runs."""

    def of(work: str, value: str) -> float:
        head, _, tail = work.partition("*")
        for row in run["figures"]:
            said = str(row["work"])
            fits = said == work if "*" not in work else said.startswith(head)
            if fits and said.endswith(tail) and value in row:
                return float(row[value])
        raise KeyError(work, value)

    return of


def table(rows: Sequence[Line]) -> str:
    """Give them as a Markdown table."""
    text = [
        "| work | this program | floor | beside it, same run | goal | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        beside = f"{row.peer[0]}: {_say(row.peer[1])}" if row.peer else ""
        floor = _say(row.floor) if row.floor is not None else ""
        met = "met" if row.is_met else f"{row.ours / row.goal:.1f} times as much"
        ours = f"{_say(row.ours)} {row.unit}"
        text.append(f"| {row.work} | {ours} | {floor} | {beside} | {_say(row.goal)} | {met} |")
    return "\n".join(text) + "\n"


def picture(rows: Sequence[Line], machine: str) -> str:
    """Draw each figure as a bar that ends at its multiple of the goal, on a scale of doublings."""
    height = _TOP + _ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="12" y="20" font-size="15">What it takes, in multiples of the goal</text>',
        f'<text x="12" y="{height - 10}" fill="#666">{escape(machine)}</text>',
    ]
    for step in range(int(_LEAST), int(_MOST) + 1):
        at, goal = _place(2.0**step), step == 0
        label = "goal" if goal else f"{2.0**step:g}"
        color = "#333" if goal else "#ddd"
        parts.append(_line(at, _TOP - 8, height - 30, color))
        parts.append(f'<text x="{at:.1f}" y="40" text-anchor="middle" fill="#666">{label}</text>')
    for number, row in enumerate(rows):
        parts += _bar(row, _TOP + _ROW * number)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(row: Line, top: int) -> Iterator[str]:
    color = "#2e8b57" if row.is_met else "#d08020"
    start, end = _place(0.0), _place(row.ours / row.goal)
    said = f"{_say(row.ours)} {row.unit} (goal {_say(row.goal)})"
    yield f'<text x="12" y="{top + 14}">{escape(row.work)}</text>'
    yield f'<text x="12" y="{top + 30}" fill="#666" font-size="11">{escape(said)}</text>'
    yield f'<rect x="{start}" y="{top + 4}" width="{end - start:.1f}" height="16" fill="{color}"/>'
    marks = [("floor", row.floor), row.peer or ("", None)]
    for name, value in marks:
        if value is not None:
            at = _place(value / row.goal)
            word = f"{name.strip('`')} {_say(value)}"
            yield _line(at, top + 1, top + 23, "#204a87")
            yield (
                f'<text x="{at + 3:.1f}" y="{top + 34}" font-size="10" '
                f'fill="#204a87">{escape(word)}</text>'
            )


def _line(at: float, top: float, bottom: float, color: str) -> str:
    return f'<line x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{bottom}" stroke="{color}"/>'


def _place(ratio: float) -> float:
    doublings = math.log2(ratio) if ratio > 0 else _LEAST
    share = (min(max(doublings, _LEAST), _MOST) - _LEAST) / (_MOST - _LEAST)
    return _LABELS + share * (_WIDTH - _LABELS - 90)


def _say(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def load(path: Path) -> Run:
    """Read what a run left."""
    return cast("Run", json.loads(path.read_text()))


def written(text: str, rows: Sequence[Line]) -> str:
    """Put the table where the page has it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(rows)}{END}{after}"


def main() -> int:
    """Keep a run's figures, and what is made of them."""
    run = load(Path(sys.argv[1]) if sys.argv[1:] else HERE.parents[1] / "build" / "bench.json")
    rows = lines(run)
    FIGURES.write_text(json.dumps(run, indent=1) + "\n")
    PICTURE.write_text(picture(rows, run["machine"]))
    README.write_text(written(README.read_text(), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
