"""Endpoints: what the daemon answers over HTTP (design section 8).

The TCP address and the unix socket answer alike; only the unix socket, which root alone may open,
also takes orders (``POST /-/reload``, :mod:`reconciler.daemon.requests`). No answer waits for
anything but the loop, and that not for long. Health is answered from memory. What must be rendered
is rendered for all who ask over TCP within a second at once, and seldom enough that it never takes
more than a tenth of the time; root, over the unix socket, gets it fresh.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import anyio
import msgspec

from reconciler.daemon.requests import Requests
from reconciler.model.ids import printable
from reconciler.present import page
from reconciler.present.formatting import to_json
from reconciler.present.page import ALL, Filter
from reconciler.present.status import Reload, Status
from reconciler.present.status_text import reload_lines
from reconciler.present.style import POLICY
from reconciler.supervision import Supervisor
from reconciler.telemetry.http import FAILED, Request, Response, Route
from reconciler.telemetry.metrics import CONTENT_TYPE, Metrics

LIVE_WITHIN: Final = 2.0
"""Seconds within which a living loop turns, however busy it is."""

FRESH: Final = 1.0
"""Seconds for which an answer over TCP may be the one that somebody else got."""

_SHARE: Final = 10  # times longer than rendering takes its result is kept, at least

JSON: Final = "application/json"


class Check(NamedTuple):
    """One condition of readiness, as `/readyz?verbose` lists it.

    Attributes:
        name: What is checked.
        ok: Whether it is met.
        detail: Why it is not, if it is not.
        note: What there is to know about it all the same.
    """

    name: str
    ok: bool
    detail: str = ""
    note: str = ""


class Handlers(msgspec.Struct, frozen=True):
    """Whom the endpoints ask.

    Attributes:
        ping: Returns once the loop has turned.
        checks: The conditions of readiness.
        status: The status, now: all of it, or what mentions a text.
        metrics: The metrics.
        now: Monotonic seconds.
        watch: Counts what cannot be rendered.
        requests: Answers what is asked about single bundles.
        reload: Loads the configuration anew.
    """

    ping: Callable[[], Awaitable[None]]
    checks: Callable[[], tuple[Check, ...]]
    status: Callable[[str], Status]
    metrics: Metrics
    reload: Callable[[], Awaitable[Reload]]
    now: Callable[[], float]
    watch: Supervisor
    requests: Requests


BUSY: Final = Response(
    b"another filter is being answered; ask again in a second\n", 503, headers={"retry-after": "1"}
)
"""Each text is looked for in every bundle, so a flood of texts must not add up."""


class Shared:
    """One rendering for everybody who asks for it before it is old.

    Args:
        where: What is rendered, for the counts.
        render: Renders it, as it is wanted.
        handlers: Gives the time.
        fresh: Seconds for which it is kept, at least.
        wanted: Tells from the query what is wanted, if there is a choice.
    """

    def __init__(
        self,
        where: str,
        render: Callable[[Filter], Response],
        handlers: Handlers,
        fresh: float,
        wanted: Callable[[str], Filter] = lambda _query: ALL,
    ) -> None:
        self._where = where
        self._render = render
        self._handlers = handlers
        self._fresh = fresh
        self._wanted = wanted
        self._shown = ALL
        self._until = float("-inf")
        self._response = FAILED

    async def answer(self, request: Request) -> Response:
        """Answer with what there is, or render it anew; a failure is kept as long."""
        began, wanted = self._handlers.now(), self._wanted(request.query)
        if began < self._until and wanted != self._shown:
            return BUSY
        if began >= self._until:
            self._response, self._shown = FAILED, wanted
            with self._handlers.watch.part(self._where):
                self._response = self._render(wanted)
            took = self._handlers.now() - began
            self._until = began + max(self._fresh, _SHARE * took) if self._fresh else began
        return self._response


def routes(handlers: Handlers, *, orders: bool) -> Mapping[tuple[str, str], Route]:
    """Make the routes; ``orders`` adds those that change something."""
    turned_at = float("-inf")

    async def live(_: Request) -> Response:
        nonlocal turned_at
        if handlers.now() - turned_at < FRESH:
            return Response(b"ok\n")
        with anyio.move_on_after(LIVE_WITHIN):
            await handlers.ping()
            turned_at = handlers.now()
            return Response(b"ok\n")
        return Response(b"the loop does not turn\n", 503)

    async def ready(request: Request) -> Response:
        return readiness(handlers.checks(), verbose="verbose" in _keys(request.query))

    async def reload(request: Request) -> Response:
        done = await handlers.reload()
        said = reload_lines(done) if "verbose" in _keys(request.query) else []
        lines = ["; ".join(done.trouble)] if done.trouble else [*said, "ok"]
        text = "".join(f"{printable(line)}\n" for line in lines)
        return Response(text.encode(), 422 if done.trouble else 200)

    served: dict[tuple[str, str], Route] = {
        ("GET", "/livez"): live,
        ("GET", "/healthz"): live,
        ("GET", "/readyz"): ready,
        **_rendered(handlers, 0.0 if orders else FRESH),
    }
    if orders:
        served["POST", "/-/reload"] = reload
        served |= handlers.requests.routes()
    return served


def _rendered(handlers: Handlers, fresh: float) -> dict[tuple[str, str], Route]:
    """Make the routes of what must be rendered."""

    def metrics(_: Filter) -> Response:
        return Response(handlers.metrics.render(), content_type=CONTENT_TYPE)

    def status(_: Filter) -> Response:
        return Response(to_json(handlers.status("")), content_type=JSON)

    def front(shown: Filter) -> Response:
        html = page.render(handlers.status(shown.text), shown)
        return Response(
            html.encode("utf-8", "backslashreplace"),
            content_type="text/html; charset=utf-8",
            headers={"content-security-policy": POLICY},
        )

    def shared(path: str, render: Callable[[Filter], Response]) -> Route:
        return Shared(f"route {path}", render, handlers, fresh).answer

    everything = Shared("route /", front, handlers, fresh)
    filtered = Shared("route /", front, handlers, fresh, page.wanted)

    async def root(request: Request) -> Response:
        is_all = page.wanted(request.query) == ALL
        return await (everything if is_all else filtered).answer(request)

    return {
        ("GET", "/metrics"): shared("/metrics", metrics),
        ("GET", "/status"): shared("/status", status),
        ("GET", "/"): root,
    }


def readiness(checks: tuple[Check, ...], *, verbose: bool) -> Response:
    """Answer whether all conditions are met, in words that a terminal can show."""
    ok = all(check.ok for check in checks)
    lines = [
        f"[{'+' if check.ok else '-'}]{check.name} {'ok' if check.ok else check.detail}"
        + (f" ({check.note})" if check.note else "")
        for check in checks
        if verbose or not check.ok
    ]
    lines.append("readyz check passed" if ok and verbose else "ok" if ok else "not ready")
    text = "\n".join([*map(printable, lines), ""])
    return Response(text.encode(), 200 if ok else 503)


def _keys(query: str) -> frozenset[str]:
    return frozenset(pair.partition("=")[0] for pair in query.split("&"))
