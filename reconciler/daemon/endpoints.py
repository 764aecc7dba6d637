"""Endpoints: what the daemon answers over HTTP (design section 8).

The TCP address and the unix socket answer alike; only the unix socket, which root alone may open,
also takes orders (``POST /-/reload``). No answer waits for anything but the loop, and that not for
long.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

import anyio
import msgspec

from reconciler.telemetry import page
from reconciler.telemetry.http import Request, Response, Route
from reconciler.telemetry.metrics import CONTENT_TYPE, Metrics
from reconciler.telemetry.status import Status

LIVE_WITHIN: Final = 2.0
"""Seconds within which a living loop turns, however busy it is."""

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness, as `/readyz?verbose` lists it."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Desk:
    """Whom the endpoints ask.

    Attributes:
        ping: Returns once the loop has turned.
        checks: The conditions of readiness.
        status: The status, now.
        metrics: The metrics.
        reload: Loads the configuration anew; gives what is wrong with it, empty if nothing is.
    """

    ping: Callable[[], Awaitable[None]]
    checks: Callable[[], tuple[Check, ...]]
    status: Callable[[], Status]
    metrics: Metrics
    reload: Callable[[], Awaitable[str]]


def routes(desk: Desk, *, orders: bool) -> Mapping[tuple[str, str], Route]:
    """Make the routes; ``orders`` adds those that change something."""

    async def live(_: Request) -> Response:
        with anyio.move_on_after(LIVE_WITHIN):
            await desk.ping()
            return Response(b"ok\n")
        return Response(b"the loop does not turn\n", 503)

    async def ready(request: Request) -> Response:
        return _readiness(desk.checks(), verbose="verbose" in _keys(request.query))

    async def metrics(_: Request) -> Response:
        return Response(desk.metrics.render(), content_type=CONTENT_TYPE)

    async def status(_: Request) -> Response:
        return Response(msgspec.json.encode(desk.status()), content_type=JSON)

    async def front(_: Request) -> Response:
        return Response(
            page.render(desk.status()).encode(),
            content_type="text/html; charset=utf-8",
            headers={"content-security-policy": page.POLICY},
        )

    async def reload(_: Request) -> Response:
        trouble = await desk.reload()
        return Response(f"{trouble or 'ok'}\n".encode(), 422 if trouble else 200)

    served: dict[tuple[str, str], Route] = {
        ("GET", "/livez"): live,
        ("GET", "/healthz"): live,
        ("GET", "/readyz"): ready,
        ("GET", "/metrics"): metrics,
        ("GET", "/status"): status,
        ("GET", "/"): front,
    }
    if orders:
        served["POST", "/-/reload"] = reload
    return served


def _readiness(checks: tuple[Check, ...], *, verbose: bool) -> Response:
    ok = all(check.ok for check in checks)
    lines = [
        f"[{'+' if check.ok else '-'}]{check.name} {'ok' if check.ok else check.detail}"
        for check in checks
        if verbose or not check.ok
    ]
    lines.append("readyz check passed" if ok and verbose else "ok" if ok else "not ready")
    return Response("\n".join([*lines, ""]).encode(), 200 if ok else 503)


def _keys(query: str) -> frozenset[str]:
    return frozenset(parse_qs(query, keep_blank_values=True, max_num_fields=20))
