"""The page at `/`: the status for a person, as one HTML document without script or outside parts.

It loads itself anew every few seconds by a `refresh` of its own, so it is as readable without
JavaScript as with it, and its content security policy allows nothing but its own style.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from typing import Final

from reconciler.model.decisions import Phase
from reconciler.model.ids import printable
from reconciler.present.shapes import Bundle
from reconciler.present.status import Recent, Status
from reconciler.present.status_text import alarms
from reconciler.present.words import age, due, name, plural, size

REFRESH: Final = 5

_NEXT: Final = {Phase.WAITING.value: "due ", Phase.BLOCKED.value: "retry "}

_STYLE: Final = """
:root{color-scheme:light dark;--line:#d8dee4;--soft:#57606a;--back:#fff;--fore:#1f2328;
--good:#1a7f37;--warn:#9a6700;--bad:#cf222e;--note:#8250df;--band:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--line:#30363d;--soft:#9198a1;--back:#0d1117;
--fore:#e6edf3;--good:#3fb950;--warn:#d29922;--bad:#f85149;--note:#a371f7;--band:#151b23}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--fore);
font:14px/1.5 system-ui,sans-serif}main{max-width:76rem;margin:0 auto;padding:1rem 1.25rem 3rem}
header{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;align-items:baseline}
h1{font-size:1.3rem;margin:.5rem 0}h2{font-size:1rem;margin:1.75rem 0 .5rem}
.soft{color:var(--soft)}.alarm{border:1px solid var(--bad);border-left-width:5px;
border-radius:6px;padding:.5rem .75rem;margin:.5rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(7rem,1fr));gap:.6rem;
margin:1rem 0;padding:0;list-style:none}
.cards li{border:1px solid var(--line);border-radius:8px;padding:.45rem .75rem;
background:var(--band)}
.cards b{display:block;font-size:1.45rem;line-height:1.25;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .75rem;
border-top:1px solid var(--line);vertical-align:top}thead th{border-top:0;font-weight:600;
color:var(--soft);background:var(--band);white-space:nowrap}
td.name{font-family:ui-monospace,monospace;font-size:.92em;overflow-wrap:anywhere;min-width:12rem}
td.why{min-width:16rem}
td.num,th.num{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.running,.stopped,.cleaned{color:var(--good)}.leftover,.waiting,.due{color:var(--warn)}
.blocked,.failed{color:var(--bad);font-weight:600}.orphaned,.held{color:var(--note)}
footer{margin-top:2rem}
"""

_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The content security policy the page is sent with."""


def render(status: Status) -> str:
    """Draw the whole page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_title(status)}</title><style>{_STYLE}</style></head><body><main>"
        f"{_header(status)}{_alarms(status)}{_cards(status)}"
        f"{_leftovers(status)}{_recent(status.recent, status.now)}{_footer(status)}"
        "</main></body></html>\n"
    )


def escape(text: str) -> str:
    """Write text as HTML, and only text: printable on top of that."""
    return html.escape(printable(text))


def _title(status: Status) -> str:
    count = status.summary.verdicts.get("leftover", 0)
    return f"{plural(count, 'leftover')} · containerd-reconciler"


def _header(status: Status) -> str:
    containerd = f"containerd {status.containerd.version}".strip()
    means = " (nothing is removed)" if status.mode == "observe" else ""
    facts = (
        f"mode <b>{escape(status.mode)}</b>{means}",
        escape(status.state),
        f"{escape(containerd)} {escape(status.containerd.state)}",
        f"watching by {escape(status.backend)}",
        f"up {age(status.uptime_seconds)}",
    )
    items = "".join(f'<span class="soft">{fact}</span>' for fact in facts)
    return f"<header><h1>containerd-reconciler</h1>{items}</header>"


def _alarms(status: Status) -> str:
    lines = (f"{one.on_page}: {one.what}" for one in alarms(status) if one.on_page)
    return "".join(f'<p class="alarm" role="alert">{escape(line)}</p>' for line in lines)


def _cards(status: Status) -> str:
    summary = status.summary
    cards = [
        (verdict, str(count))
        for verdict, count in summary.verdicts.items()
        if count or verdict != "foreign"
    ]
    cards += [("leftover bytes", size(summary.leftover_bytes))]
    cards += [("oldest leftover", age(summary.oldest_leftover_age_seconds))]
    items = "".join(
        f'<li><b class="{escape(what)}">{escape(value)}</b>{escape(what)}</li>'
        for what, value in cards
    )
    return f'<ul class="cards">{items}</ul>'


def _leftovers(status: Status) -> str:
    rows = [_bundle_row(one, status.recent) for one in status.bundles]
    if not rows:
        return "<h2>Needs attention</h2><p>Nothing: everything here is alive or in order.</p>"
    heads = ("Bundle", "Verdict", "Phase", "Why", "#Age", "#Size", "#Next")
    more = f'<p class="soft">{status.omitted} more are not shown.</p>' if status.omitted else ""
    return f"<h2>Needs attention</h2>{_table(heads, rows)}{more}"


def _bundle_row(one: Bundle, recent: Sequence[Recent]) -> str:
    why = escape(one.reason)
    if one.cause:
        why += f"<br><b>{escape(one.cause)}</b>{_holders(one, recent)}"
    phase = one.phase or ""
    large = size(one.size_bytes, exact=one.size_exact)
    what = _NEXT.get(phase, "")
    return (
        f'<tr><td class="name">{escape(name(one))}</td>'
        f'<td class="{escape(one.verdict)}">{escape(one.verdict)}</td>'
        f'<td class="{escape(phase)}">{escape(phase) or "-"}</td><td class="why">{why}</td>'
        f'<td class="num">{age(one.age_seconds)}</td><td class="num">{large}</td>'
        f'<td class="num">{what}{due(one.due_in_seconds)}</td></tr>'
    )


def _holders(one: Bundle, recent: Sequence[Recent]) -> str:
    """Name the processes that were in the way at the last attempt on this bundle."""
    for attempt in recent:
        if (attempt.result.namespace, attempt.result.id) == (one.namespace, one.id):
            held = ", ".join(f"{who.name} ({who.pid}, {who.how})" for who in attempt.result.holders)
            return f" by {escape(held)}" if held else ""
    return ""


def _recent(recent: Sequence[Recent], now: float) -> str:
    rows = [
        f'<tr><td class="num">{age(max(0.0, now - one.at))} ago</td>'
        f'<td class="name">{escape(name(one.result))}</td>'
        f'<td class="{escape(one.result.result)}">{escape(one.result.result)}</td>'
        f'<td class="why">{escape(one.result.detail or one.result.reason)}</td>'
        f'<td class="num">{one.result.seconds * 1000:.1f} ms</td></tr>'
        for one in recent
    ]
    if not rows:
        return "<h2>Lately</h2><p>Nothing was cleaned yet.</p>"
    return f"<h2>Lately</h2>{_table(('#When', 'Bundle', 'Result', 'Detail', '#Took'), rows)}"


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    """Draw a table; a head that begins with # belongs to a column of numbers."""
    cells = "".join(
        f'<th class="num" scope="col">{head[1:]}</th>'
        if head.startswith("#")
        else f'<th scope="col">{head}</th>'
        for head in heads
    )
    body = "".join(rows)
    return (
        f'<div class="wide"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _footer(status: Status) -> str:
    files = ", ".join(status.config.files) or "built-in defaults"
    return (
        f'<footer class="soft">version {escape(status.version)} · configuration: {escape(files)} · '
        'see also <a href="/metrics">metrics</a>, <a href="/status">status</a>, '
        f'<a href="/readyz?verbose">readiness</a> · renewed every {REFRESH} s</footer>'
    )
