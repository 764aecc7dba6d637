"""The filter of the page over HTTP: everybody may ask, and nobody makes the daemon work for it."""

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from reconciler.daemon.endpoints import FRESH, routes
from reconciler.present.status import Status
from reconciler.supervision import Supervisor
from reconciler.telemetry.http import Request, Response, Route
from tests.daemon.test_garbage import handlers
from tests.support.clock import VirtualClock

pytestmark = pytest.mark.anyio


@dataclass
class Asked:
    """The page, and which texts were looked for."""

    orders: bool
    clock: VirtualClock = field(default_factory=VirtualClock)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        usual = handlers(Supervisor())

        def status(text: str) -> Status:
            self.texts.append(text)
            return usual.status(text)

        asked = replace(usual, status=status, now=self.clock.monotonic)
        self._page: Route = routes(asked, orders=self.orders)["GET", "/"]

    async def get(self, query: str = "") -> Response:
        return await self._page(Request("GET", "/", query))


async def test_a_text_is_looked_for_once_a_second_at_most() -> None:
    asked = Asked(orders=False)
    for number in range(50):
        answer = await asked.get(f"q=text{number}")
        assert answer.status == (200 if number == 0 else 503)
    assert b"text0" in (await asked.get("q=text0")).body, "the one that was looked for is there"
    assert asked.texts == ["text0"]
    assert (await asked.get()).status == 200, "whoever wants all of it does not wait for them"
    assert (await asked.get("refresh=1")).status == 200
    assert asked.texts == ["text0", ""]
    asked.clock.now += FRESH
    assert b"text7" in (await asked.get("q=text7")).body


async def test_root_gets_each_text_at_once() -> None:
    asked = Asked(orders=True)
    for text in ("a", "b", ""):
        assert (await asked.get(f"q={text}&filter")).status == 200
    assert asked.texts == ["a", "b", ""]
    answer = await asked.get("filter")
    assert b"<form" in answer.body
    assert "form-action 'self'" in answer.headers["content-security-policy"]
