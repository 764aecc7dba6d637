"""The page at `/`: the status for a person, as one HTML document without script or outside parts.

It loads itself anew every few seconds by a `refresh` of its own, so it is as readable without
JavaScript as with it, and its content security policy allows nothing but its own style.
"""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlencode

from reconciler.model.decisions import Phase
from reconciler.model.ids import printable
from reconciler.present import formatting
from reconciler.present.debris import DebrisShape
from reconciler.present.formatting import age, due, name, plural, size, took
from reconciler.present.shapes import Bundle, ResultShape
from reconciler.present.status import Recent, Status, needs_attention
from reconciler.present.status_text import alarms
from reconciler.present.style import STYLE

REFRESH: Final = 5

_LONGEST: Final = 2048
_LONGEST_TEXT: Final = 256
"""Characters of a query, and of a text to look for, that are read."""

_NEXT: Final = {Phase.WAITING.value: "due ", Phase.BLOCKED.value: "retry "}
_BUNDLES: Final = ("Bundle", "Verdict", "Phase", "Why", "#Age", "#Size", "#Next")
_DEBRIS: Final = ("Debris", "Verdict", "Phase", "Why", "#Age", "#Next")
_RESULTS: Final = ("#When", "Bundle", "Result", "Why", "#Took")


@dataclass(frozen=True, slots=True)
class Filter:
    """What a reader wants to see.

    Attributes:
        text: Only what mentions this; empty for all.
        editing: The text is being typed: the page does not renew itself meanwhile.
    """

    text: str = ""
    editing: bool = False


ALL: Final = Filter()


def wanted(query: str) -> Filter:
    """Read what is wanted from the query of the address: ``q=web``, ``filter&q=web``."""
    said = parse_qs(query[:_LONGEST], keep_blank_values=True)
    text = "".join(said.get("q", [])[:1]).strip()
    return Filter(text[:_LONGEST_TEXT], editing="filter" in said)


def render(status: Status, shown: Filter = ALL) -> str:
    """Draw the whole page; the status lists what is ``shown`` already."""
    refresh = "" if shown.editing else f'<meta http-equiv="refresh" content="{REFRESH}">'
    attention = [one for one in status.bundles if needs_attention(one)]
    others = [one for one in status.bundles if not needs_attention(one)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"{refresh}"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_title(status)}</title><style>{STYLE}</style></head><body><main>"
        f"{_header(status)}{_alarms(status)}{_cards(status)}{_filter(shown)}"
        f"{_attention(attention, status, shown)}{_others(others, status.recent)}"
        f"{_debris(status)}"
        f"{_recent(status.recent, status.now, shown)}{_footer(status, shown)}"
        "</main></body></html>\n"
    )


def escape(text: str) -> str:
    """Write text as HTML, and only text: printable on top of that."""
    return html.escape(printable(text))


def _title(status: Status) -> str:
    count = status.summary.verdicts.get("leftover", 0)
    return f"{plural(count, 'leftover')} · {escape(status.node)} · containerd-reconciler"


def _header(status: Status) -> str:
    containerd = f"containerd {status.containerd.version}".strip()
    means = " (nothing is removed)" if status.mode == "observe" else ""
    facts = (
        "containerd-reconciler",
        f"mode <b>{escape(status.mode)}</b>{means}",
        escape(status.state),
        f"{escape(containerd)} {escape(status.containerd.state)}",
        f"watching by {escape(status.backend)}",
        f"up {age(status.uptime_seconds)}",
    )
    items = "".join(f'<span class="soft">{fact}</span>' for fact in facts)
    return f"<header><h1>{escape(status.node)}</h1>{items}</header>"


def _alarms(status: Status) -> str:
    return "".join(
        f'<p class="alarm" role="alert">{escape(alarm.line)}</p>' for alarm in alarms(status)
    )


def _cards(status: Status) -> str:
    summary = status.summary
    cards = [
        (verdict, count, str(count))
        for verdict, count in summary.verdicts.items()
        if count or verdict != "foreign"
    ]
    oldest = summary.oldest_leftover_age_seconds
    cards += [("leftover bytes", summary.leftover_bytes, size(summary.leftover_bytes))]
    cards += [("oldest leftover", int(oldest), age(oldest))]
    pieces = sum(sum(phases.values()) for phases in summary.debris.values())
    cards += (
        [("debris", pieces, f"{pieces:,}{'+' if summary.debris_more else ''}")]
        if summary.debris
        else []
    )
    items = "".join(
        f"<li><b{_colour(what) if count else ''}>{escape(value)}</b>{escape(what)}</li>"
        for what, count, value in cards
    )
    return f'<ul class="cards">{items}</ul>'


def _colour(what: str) -> str:
    return f' class="{escape(what)}"'


def _filter(shown: Filter) -> str:
    """Draw the form, or what it was told; it needs no script."""
    text = escape(shown.text)
    if shown.editing:
        return (
            '<form action="/" method="get" role="search">'
            f'<input type="search" name="q" value="{text}" autofocus aria-label="Part of a name, '
            'a verdict, a phase or a reason" placeholder="part of a name, verdict or reason">'
            '<button type="submit">Filter</button></form>'
        )
    if not shown.text:
        return '<p><a href="/?filter">Filter</a></p>'
    change = html.escape(f"/?{urlencode({'filter': '', 'q': shown.text}, errors='replace')}")
    return (
        f"<p>Only what mentions <b>{text}</b> is listed. "
        f'<a href="{change}">Change</a> · <a href="/">Show all</a></p>'
    )


def _attention(bundles: Sequence[Bundle], status: Status, shown: Filter) -> str:
    nothing = "Nothing: everything here is alive or in order."
    if shown.text:
        nothing = "Nothing that mentions this."
    more = f'<p class="soft">{status.omitted} more are not shown.</p>' if status.omitted else ""
    rows = [_bundle_row(one, status.recent) for one in bundles]
    return (
        f"<h2>Needs attention</h2>{_table(_BUNDLES, rows) if rows else f'<p>{nothing}</p>'}{more}"
    )


def _others(bundles: Sequence[Bundle], recent: Sequence[Recent]) -> str:
    """Draw what a rule protects or what passes by itself."""
    rows = [_bundle_row(one, recent) for one in bundles]
    return f"<h2>Left alone on purpose</h2>{_table(_BUNDLES, rows)}" if rows else ""


def _bundle_row(one: Bundle, recent: Sequence[Recent]) -> str:
    why = escape(one.reason)
    phase = one.phase or ""
    if one.cause:
        rule = "rule " if phase == Phase.PROTECTED.value else ""
        why += f"<br><b>{rule}{escape(one.cause)}</b>{_holders(one, recent)}"
    large = size(one.size_bytes, exact=one.size_exact)
    due_in = f"{_NEXT.get(phase, '')}{due(one.due_in_seconds)}"
    return (
        f"<tr>{_name(one)}"
        f'<td class="{escape(one.verdict)}">{escape(one.verdict)}</td>'
        f'<td class="{escape(phase) or "none"}">{escape(phase) or "-"}</td>'
        f'<td class="why">{why}</td>'
        f"{_number('age', age(one.age_seconds))}{_number('size', large)}"
        f"{_number('', due_in, absent=one.due_in_seconds is None)}</tr>"
    )


def _debris(status: Status) -> str:
    """Draw what is left outside of bundles; nothing where nothing is."""
    if not status.debris:
        return ""
    more = status.debris_omitted
    rest = f'<p class="soft">{more:,} more are not shown.</p>' if more else ""
    counts = formatting.debris(status.summary.debris, more=status.summary.debris_more)
    head = f'<h2>Debris</h2><p class="soft">{escape(counts)}</p>' if counts else "<h2>Debris</h2>"
    return f"{head}{_table(_DEBRIS, map(_debris_row, status.debris))}{rest}"


def _debris_row(one: DebrisShape) -> str:
    why = escape(one.reason) + (f"<br><b>{escape(one.cause)}</b>" if one.cause else "")
    whose = "/".join(filter(None, (one.namespace, one.id)))
    phase, old = one.phase or "", "-" if one.age_seconds is None else age(one.age_seconds)
    due_in = f"{_NEXT.get(phase, '')}{due(one.due_in_seconds)}"
    return (
        f'<tr><td class="name">{f"<b>{escape(whose)}</b> " if whose else ""}'
        f"<code>{escape(f'{one.kind}:{one.path}')}</code></td>"
        f"<td>{escape(one.verdict)}</td>"
        f'<td class="{escape(phase) or "none"}">{escape(phase) or "-"}</td>'
        f'<td class="why">{why}</td>{_number("age", old)}'
        f"{_number('', due_in, absent=one.due_in_seconds is None)}</tr>"
    )


def _name(one: Bundle | ResultShape) -> str:
    """Name the pod, where there is one, and below it what `explain` takes."""
    pod = "" if one.pod is None else f"<b>{escape(one.pod.path)}</b> "
    return f'<td class="name">{pod}<code>{escape(name(one))}</code></td>'


def _number(head: str, value: str, *, absent: bool = False) -> str:
    """Draw a number; where rows are stacked its head stands before it."""
    hidden = " none" if absent else ""
    return f'<td class="num{hidden}" data-head="{head}">{value}</td>'


def _holders(one: Bundle, recent: Sequence[Recent]) -> str:
    """Name the processes that were in the way at the last attempt on this bundle."""
    for attempt in recent:
        if formatting.key_of(attempt.result) == formatting.key_of(one):
            held = ", ".join(f"{who.name} ({who.pid}, {who.how})" for who in attempt.result.holders)
            return f" by {escape(held)}" if held else ""
    return ""


def _recent(recent: Sequence[Recent], now: float, shown: Filter) -> str:
    rows = [
        f"<tr>{_number('', f'{age(max(0.0, now - one.at))} ago')}"
        f"{_name(one.result)}"
        f'<td class="{escape(one.result.result)}">{escape(one.result.result)}</td>'
        f'<td class="why">{escape(one.result.detail or one.result.reason)}</td>'
        f"{_number('took', took(one.result.seconds))}</tr>"
        for one in recent
    ]
    if rows:
        return f"<h2>Recent activity</h2>{_table(_RESULTS, rows)}"
    nothing = "Nothing that mentions this." if shown.text else "Nothing was cleaned yet."
    return f"<h2>Recent activity</h2><p>{nothing}</p>"


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


def _footer(status: Status, shown: Filter) -> str:
    files = ", ".join(status.config.files) or "built-in defaults"
    renewed = "not renewed while you type" if shown.editing else f"renewed every {REFRESH} s"
    return (
        f'<footer class="soft">{escape(status.time)} · version {escape(status.version)} · '
        f"configuration: {escape(files)} · "
        'see also <a href="/metrics">metrics</a>, <a href="/status">status</a>, '
        f'<a href="/readyz?verbose">readiness</a> · {renewed}</footer>'
    )
