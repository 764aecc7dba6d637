"""Draws the dashboard's panels from what a Prometheus answers to their queries; no Grafana is here.

Only what a picture needs: lines, numbers, bars of states and a table, at the places that the
dashboard gives them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tests.fleet import dashboard
from tests.fleet.dashboard import Dashboard, Panel, Target
from tests.fleet.server import Prometheus, Series

WIDTH: Final = 1080
UNIT: Final = 21
"""Pixels of a row of the grid."""

_COLUMN: Final = WIDTH / 24
_GAP, _HEAD, _LEFT, _FOOT = 6, 24, 56, 16
_LEGEND: Final = 7
_COLOURS: Final = (
    "#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffb357",
    "#96d98d", "#fade2a", "#ff7383", "#ca95e5",
)  # fmt: skip
_STYLE: Final = """
body { margin: 0; background: #111217; color: #ccccdc; font: 11px sans-serif }
section { position: absolute; background: #181b1f; border: 1px solid #25272e; overflow: hidden }
section.row { background: none; border: none }
h1 { font-size: 12px; font-weight: 500; margin: 5px 8px; white-space: nowrap }
section.row h1 { margin: 0 8px }
b { font-weight: 500 }
.stat { font-size: 27px; text-align: center; margin-top: 10px }
ul { position: absolute; right: 6px; top: 26px; width: 29%; margin: 0; padding: 0 }
li { list-style: none; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
li { line-height: 17px }
table { width: 100%; border-collapse: collapse } td, th { text-align: left; padding: 2px 8px }
svg { shape-rendering: crispEdges }
svg text { fill: #9fa1a8; font: 10px sans-serif }
"""


@dataclass(frozen=True)
class Span:
    """The time that is drawn."""

    start: float
    end: float
    step: float = 1.0
    window: str = "15s"


@dataclass(frozen=True)
class Line:
    """A series as it is drawn."""

    name: str
    points: list[tuple[float, float]]

    @property
    def last(self) -> float:
        """The value at the end."""
        return self.points[-1][1] if self.points else math.nan


def page(shipped: Dashboard, prometheus: Prometheus, span: Span) -> str:
    """Draw all panels as one page."""
    drawn = "".join(_panel(one, prometheus, span) for one in shipped.panels)
    return f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style><body>{drawn}"


def height(shipped: Dashboard) -> int:
    """Give the height of the page down to the states of the daemons, in pixels."""
    states = [panel.grid_pos for panel in shipped.panels if panel.type == "state-timeline"]
    first = min(states, key=lambda at: at.y)
    return UNIT * (first.y + first.h)


def _panel(panel: Panel, prometheus: Prometheus, span: Span) -> str:
    at = panel.grid_pos
    box = (at.x * _COLUMN, at.y * UNIT, at.w * _COLUMN - _GAP, at.h * UNIT - _GAP)
    drawers: dict[str, Callable[[Panel, Sequence[Line], Span, float, float], str]] = {
        "stat": _stat,
        "timeseries": _lines,
        "state-timeline": _states,
    }
    inside = ""
    if panel.type == "table":
        inside = _table(panel, prometheus, span)
    elif panel.type in drawers:
        found = [one for target in panel.targets for one in _asked(target, prometheus, span)]
        inside = drawers[panel.type](panel, found, span, box[2], box[3])
    style = "left:{:.0f}px;top:{:.0f}px;width:{:.0f}px;height:{:.0f}px".format(*box)
    title = f"<h1>{escape(panel.title)}</h1>"
    return f'<section class="{panel.type}" style="{style}">{title}{inside}</section>'


def _asked(target: Target, prometheus: Prometheus, span: Span) -> Iterator[Line]:
    asked = dashboard.substituted(target.expr, span.window)
    for one in prometheus.range(asked, span.start, span.end, span.step):
        points = [(when, float(value)) for when, value in one.values]
        known = [(when, value) for when, value in points if math.isfinite(value)]
        yield Line(target.legend(one.metric), known)


def written(value: float, unit: str) -> str:
    """Write a value as Grafana does, nearly."""
    if not math.isfinite(value):
        return "-"
    if unit in {"bytes", "Bps"}:
        power = 0
        while value >= 1024 and power < 4:
            value, power = value / 1024, power + 1
        return f"{value:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}" + "/s" * (unit == "Bps")
    if unit == "s" and value >= 60:
        return f"{value / 3600:.3g} h" if value >= 3600 else f"{value / 60:.3g} min"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"
    return f"{value * 100:.2g} %" if unit == "percentunit" else f"{value:,.3g}"


def _stat(panel: Panel, lines: Sequence[Line], span: Span, width: float, tall: float) -> str:
    del span, width, tall
    (line,) = lines
    said = panel.field_config.defaults
    return f'<div class="stat">{written(line.last, said.unit)}</div>'


def _lines(panel: Panel, lines: Sequence[Line], span: Span, width: float, tall: float) -> str:
    said = panel.field_config.defaults
    stacking = said.custom.get("stacking")
    is_stacked = isinstance(stacking, dict) and stacking.get("mode") == "normal"
    drawn = list(_stacked(lines)) if is_stacked else lines
    wide, deep = width * 0.68 - _LEFT, tall - _HEAD - _FOOT - 8
    most = max((value for line in drawn for _, value in line.points), default=0.0) or 1.0
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _HEAD + deep * (1 - share)
        parts.append(f'<path d="M{_LEFT} {y:.0f}h{wide:.0f}" stroke="#2b2d34"/>')
        label = written(most * share, said.unit)
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 3:.0f}" text-anchor="end">{label}</text>')
    parts += _times(span, wide, tall)
    for number, line in _ranked(drawn):
        colour = _COLOURS[number % len(_COLOURS)]
        for run in _runs(line, span.step):
            xy = [
                (
                    _LEFT + wide * (when - span.start) / (span.end - span.start),
                    _HEAD + deep * (1 - value / most),
                )
                for when, value in run
            ]
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in xy)
            if is_stacked:
                floor = f"V{_HEAD + deep:.0f}H{xy[0][0]:.1f}Z"
                parts.append(f'<path d="{path}{floor}" fill="{colour}" fill-opacity="0.35"/>')
            parts.append(f'<path d="{path}" fill="none" stroke="{colour}"/>')
    return _svg(parts, width, tall) + _legend(lines, tall)


def _svg(parts: Iterable[str], width: float, tall: float) -> str:
    style = "position:absolute;top:0;left:0"
    drawn = "".join(parts)
    return f'<svg width="{width:.0f}" height="{tall:.0f}" style="{style}">{drawn}</svg>'


def _ranked(lines: Sequence[Line]) -> list[tuple[int, Line]]:
    """Order by the highest value, highest first; a line keeps the number of its colour."""
    return sorted(
        enumerate(lines), key=lambda one: -max([0.0, *(value for _, value in one[1].points)])
    )


def _runs(line: Line, step: float) -> Iterator[list[tuple[float, float]]]:
    """Break a line where there is nothing to draw."""
    run: list[tuple[float, float]] = []
    for when, value in line.points:
        if run and when - run[-1][0] > 1.5 * step:
            yield run
            run = []
        run.append((when, value))
    if run:
        yield run


def _stacked(lines: Iterable[Line]) -> Iterator[Line]:
    """Put each line on those before it; one that is 0 throughout would hide the one below."""
    below: dict[float, float] = {}
    for line in lines:
        if not any(value for _, value in line.points):
            yield Line(line.name, [])
            continue
        for when, value in line.points:
            below[when] = below.get(when, 0.0) + value
        yield Line(line.name, [(when, below[when]) for when, _ in line.points])


def _legend(lines: Sequence[Line], tall: float) -> str:
    room = max(1, min(_LEGEND, int((tall - 34) / 17)))
    rows = [
        f'<li><b style="color:{_COLOURS[number % len(_COLOURS)]}">&#9644;</b> {escape(line.name)}'
        for number, line in _ranked(lines)[:room]
    ]
    return f"<ul>{''.join(rows)}</ul>"


def _times(span: Span, wide: float, tall: float) -> Iterator[str]:
    """Write the time along the foot, in seconds since the start."""
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LEFT + wide * share
        seconds = (span.end - span.start) * share
        yield f'<text x="{x:.0f}" y="{tall - 8:.0f}" text-anchor="middle">{seconds:.0f} s</text>'


def _states(panel: Panel, lines: Sequence[Line], span: Span, width: float, tall: float) -> str:
    colours: dict[str, str] = {}
    for mapping in panel.field_config.defaults.mappings:
        options = mapping["options"]
        assert isinstance(options, dict)
        colours |= {value: shown["color"] for value, shown in options.items()}
    wide, room = width - 120, tall - _HEAD - _FOOT - 8
    each = min(22.0, room / max(1, len(lines)))
    parts = []
    for number, line in enumerate(lines):
        y = _HEAD + each * number
        shown = line.name.removeprefix("node-")
        parts.append(
            f'<text x="96" y="{y + each * 0.7:.0f}" text-anchor="end">{escape(shown)}</text>'
        )
        for when, value in line.points:
            x = 102 + wide * (when - span.start) / (span.end - span.start)
            step = wide * span.step / (span.end - span.start) + 0.5
            colour = {"green": "#37872d", "red": "#c4162a"}.get(
                colours.get(f"{value:.0f}", ""), "#e0762f"
            )
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{step:.1f}" height="{each * 0.8:.1f}" '
                f'fill="{colour}"/>'
            )
    return _svg(parts, width, tall)


def _table(panel: Panel, prometheus: Prometheus, span: Span) -> str:
    """Join the answers by node, as the panel's transformation does."""
    del span
    columns: list[dict[str, Series]] = [
        {one.metric["instance"]: one for one in prometheus.query(
            dashboard.substituted(target.expr, "15s"))}
        for target in panel.targets
    ]  # fmt: skip
    names = ("node", "version", "enforces", "bundles", "leftovers", "blocked", "orphaned",
             "unknown", "bytes")  # fmt: skip
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for node, first in list(columns[0].items())[:7]:
        cells = [node, first.metric["version"]]
        cells += [written(one[node].number, "short") if node in one else "" for one in columns[1:]]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    return f"<table><tr>{head}{''.join(rows)}</table>"
