"""Requests over the daemon's private socket: what it believes, clean these now, release the brakes.

Only root can open that socket, and the kernel tells who it is. What is asked for becomes an
observation, and the engine decides what follows: nothing here goes round a verdict, a guard, a
policy or a second look.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import anyio.lowlevel

from reconciler.decide.cleanups import RATE
from reconciler.decide.engine import Engine
from reconciler.model.debris import DebrisKind, PlaceKey, RequestedPlace
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.observations import CleanRequested, Observation, ReleaseRequested, Stamp
from reconciler.present.beliefs import (
    Asked,
    AskedPlace,
    Belief,
    Beliefs,
    DebrisBelief,
    Progress,
    Reply,
    believed,
    believed_of_debris,
    hold_of,
)
from reconciler.present.debris_results import result
from reconciler.present.formatting import to_json
from reconciler.present.status import Recent
from reconciler.telemetry.http import Request, Response, Route

T = TypeVar("T")

_AT_ONCE: Final = 500
"""Bundles or places that are told of before the loop gets its turn: some milliseconds."""

_PARTS: Final = 4  # of an object: device, inode, kind, path
_JSON: Final = "application/json"
_NOBODY: Final = -1, 0
"""Who asks, where the kernel does not tell: nobody's user id, and no pid."""


class Requests:
    """Answers what is asked of the daemon about single bundles.

    Args:
        engine: What believes and decides.
        deliver: Hands it what is asked for, and returns once it has received it.
        about: Gives version, mode, pid and the state directory.
        recent: Gives what came of the last attempts.
        now: The time.
    """

    def __init__(
        self,
        engine: Engine,
        deliver: Callable[[Observation], Awaitable[None]],
        about: Callable[[], tuple[str, str, int, str]],
        recent: Callable[[], list[Recent]],
        now: Callable[[], Stamp],
    ) -> None:
        self._engine = engine
        self._deliver = deliver
        self._about = about
        self._recent = recent
        self._now = now

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Give the routes, for the private socket alone."""
        return {
            ("GET", "/bundles"): self._bundles,
            ("GET", "/requested"): self._requested,
            ("POST", "/-/clean"): self._clean,
            ("POST", "/-/release"): self._release,
        }

    async def _bundles(self, request: Request) -> Response:
        version, mode, pid, state = self._about()
        keys, places = _keys(request.query), _places(request.query)
        bundles: list[Belief] = []
        debris: list[DebrisBelief] = []
        if keys or not places:
            bundles = await _in_turns(believed(self._engine, self._now().mono, keys))
        if places or not keys:
            debris = await _in_turns(believed_of_debris(self._engine, self._now(), places))
        hold, recent = hold_of(self._engine), self._recent()
        return _json(Beliefs(version, mode, pid, state, hold, bundles, recent, debris))

    async def _requested(self, _request: Request) -> Response:
        """Tell how far the debris is that was asked for, and what came of it."""
        requests, now = self._engine.debris.requests, self._now()
        wanted = requests.keys
        debris = await _in_turns(believed_of_debris(self._engine, now, wanted)) if wanted else []
        came = [result(place, done) for place, done in requests.done]
        pid, hold = self._about()[2], hold_of(self._engine)
        return _json(Progress(pid, hold, debris, requests.unseen, came))

    async def _clean(self, request: Request) -> Response:
        keys, places = _keys(request.query), _objects(request.query)
        if not (keys or places):
            return Response(b"no bundle is named\n", 400)
        uid, pid = request.peer or _NOBODY
        why = self._engine.request_refusal
        asked = [Asked(key.namespace, key.id, why(key), key.tree) for key in keys]
        debris = [AskedPlace(one.key, self._engine.debris.refusal(one)) for one in places]
        await self._deliver(CleanRequested(keys, uid, pid, places))
        return _json(Reply(self._about()[2], hold_of(self._engine), asked, debris=debris))

    async def _release(self, request: Request) -> Response:
        uid, pid = request.peer or _NOBODY
        before, held = self._engine.hold, hold_of(self._engine)
        await self._deliver(ReleaseRequested(uid, pid))
        after = self._engine.hold
        # The brake on the rate counts anew, and may hold again what is beyond it.
        is_same = before is not None and after is not None and before.brake == after.brake
        is_released = before is not None and (not is_same or before.brake == RATE)
        released = held if is_released else ""
        return _json(Reply(self._about()[2], hold_of(self._engine), released=released))


async def _in_turns(told: Iterable[T | None]) -> list[T]:
    """Collect what is told, and let the loop have its turns meanwhile."""
    found: list[T] = []
    for number, one in enumerate(told):
        if one is not None:
            found.append(one)
        if number % _AT_ONCE == _AT_ONCE - 1:
            await anyio.lowlevel.checkpoint()
    return found


def _places(query: str) -> frozenset[PlaceKey]:
    """Read the places that are asked for: ``place=KIND:PATH``; of no kind there is none."""
    pairs = parse_qsl(query, errors="surrogateescape")
    names = [value.partition(":") for name, value in pairs if name == "place"]
    kinds = {kind.value: kind for kind in DebrisKind}
    return frozenset(PlaceKey(kinds[kind], path) for kind, _, path in names if kind in kinds)


def _objects(query: str) -> tuple[RequestedPlace, ...]:
    """Read the objects that are asked for: ``object=DEV:INO:KIND:PATH``, as often as wanted."""
    pairs = parse_qsl(query, errors="surrogateescape")
    named = [value.split(":", 3) for name, value in pairs if name == "object"]
    kinds = {kind.value: kind for kind in DebrisKind}
    found = (
        RequestedPlace(PlaceKey(kinds[one[2]], one[3]), int(one[0]), int(one[1]))
        for one in named
        if len(one) == _PARTS and one[2] in kinds and one[0].isdecimal() and one[1].isdecimal()
    )
    return tuple({one.key: one for one in found}.values())


def _keys(query: str) -> tuple[BundleKey, ...]:
    """Read the bundles that are asked for: ``key=NS/ID``, as often as wanted."""
    pairs = parse_qsl(query, errors="surrogateescape")
    said = [value for name, value in pairs if name == "key"]
    return tuple(dict.fromkeys(BundleKey.parse(one) or _nobody(one) for one in said))


def _nobody(text: str) -> BundleKey:
    """Give the key of what is not named as a bundle is: there is none."""
    namespace, _, id_ = text.partition("/")
    return BundleKey(_name(namespace), _name(id_))


def _name(text: str) -> str:
    return escape(unescape(text))


def _json(value: Beliefs | Reply | Progress) -> Response:
    return Response(to_json(value), content_type=_JSON)
