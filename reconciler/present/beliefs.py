"""Beliefs: what the daemon believes of bundles that are not plainly alive, and of debris, as JSON.

For `scan`, `explain` and `clean`, which look by themselves and ask the daemon for what it alone
knows: since when it waits for what, what it has tried, and what holds it.
"""

from collections.abc import Collection, Iterable, Iterator

import msgspec

from reconciler.decide.debris_track import DebrisView
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.decide.engine import Engine
from reconciler.decide.views import BundleView
from reconciler.model.debris import PlaceKey
from reconciler.model.decisions import Phase
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import Stamp
from reconciler.present.shapes import ResultShape
from reconciler.present.status import Recent


class Belief(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the daemon believes of one bundle; ``due_in_seconds`` as in `scan -o json`.

    ``enforce``: whether it may be removed by the policy of that name.
    """

    namespace: str
    id: str
    verdict: str
    phase: Phase = Phase.NONE
    cause: str = ""
    policy: str = ""
    enforce: bool = False
    due_in_seconds: float | None = None
    attempts: int = 0
    tree: str = ""

    @property
    def key(self) -> BundleKey:
        """The bundle's key."""
        return BundleKey(self.namespace, self.id, self.tree)


class DebrisBelief(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the daemon believes of one place outside of bundles, and which object that is.

    ``objection``: why it is not removed when it is due; empty if it is.
    """

    key: PlaceKey
    identity: Identity
    verdict: DebrisVerdict
    phase: Phase = Phase.NONE
    cause: str = ""
    policy: str = ""
    objection: str = ""
    due_in_seconds: float | None = None
    attempts: int = 0
    debris_for: float | None = None


class Beliefs(msgspec.Struct, frozen=True):
    """All of them, of the bundles that have a phase or were asked for; who says so; what holds it.

    ``debris`` is what is debris, or the places that were asked for; not where bundles were.

    ``hold`` is empty where nothing does; ``recent`` are the last attempts, the latest first;
    ``socket`` is where it was asked, which whoever asks adds.
    """

    version: str
    mode: str
    pid: int
    state: str
    hold: str
    bundles: list[Belief]
    recent: list[Recent]
    debris: list[DebrisBelief] = []
    socket: str = ""


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a request about one bundle: why it means nothing to it, empty if it does."""

    namespace: str
    id: str
    refused: str = ""
    tree: str = ""


class AskedPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a request about one piece of debris: why it means nothing to it, if so."""

    key: PlaceKey
    refused: str = ""


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the debris is that was asked for.

    Attributes:
        pid: Who says so.
        hold: What holds everything now.
        debris: What is believed of what is asked for still.
        unseen: How many of it no inventory has told of since.
        came: What came of the last attempts.
    """

    pid: int
    hold: str = ""
    debris: list[DebrisBelief] = []
    unseen: int = 0
    came: list[ResultShape] = []


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a request.

    Attributes:
        pid: Who was asked.
        hold: What holds everything now, after it.
        bundles: What was asked for.
        released: What held everything before it, and let something go on.
        debris: What was asked for of debris.
    """

    pid: int
    hold: str = ""
    bundles: list[Asked] = []
    released: str = ""
    debris: list[AskedPlace] = []


def believed(
    engine: Engine, now: float, keys: Collection[BundleKey] = ()
) -> Iterator[Belief | None]:
    """Tell what is believed of these bundles, or of all; None for one that has no phase.

    One at a time: on a large node all of them take longer than the loop may be kept.
    """
    asked = (engine.view(key, now) for key in keys)
    views: Iterable[BundleView | None] = asked if keys else engine.views(now)
    for view in views:
        yield _belief(view) if view is not None and (keys or view.phase.value) else None


def believed_of_debris(
    engine: Engine, stamp: Stamp, keys: Collection[PlaceKey] = ()
) -> Iterator[DebrisBelief | None]:
    """Tell what is believed of these places, or of all debris; None for any other one.

    One at a time, as of bundles.
    """
    for view in engine.debris_views(stamp):
        is_asked = view.place.key in keys if keys else view.verdict is DebrisVerdict.DEBRIS
        yield _of_debris(view) if is_asked else None


def _of_debris(view: DebrisView) -> DebrisBelief:
    return DebrisBelief(
        key=view.place.key,
        identity=view.place.identity,
        verdict=view.verdict,
        phase=view.phase,
        cause=view.cause,
        policy=view.policy,
        objection=view.objection,
        due_in_seconds=None if view.due_in_seconds is None else round(view.due_in_seconds, 3),
        attempts=view.attempts,
        debris_for=None if view.debris_for is None else round(view.debris_for, 3),
    )


def hold_of(engine: Engine) -> str:
    """Name what holds everything now; empty if nothing does."""
    hold = engine.hold
    return f"{hold.brake}: {hold.detail}" if hold else ""


def _belief(view: BundleView) -> Belief:
    due = view.due_in_seconds
    return Belief(
        namespace=view.key.namespace,
        id=view.key.id,
        verdict=view.judgement.verdict.value,
        phase=view.phase,
        cause=view.cause,
        policy=view.policy,
        enforce=view.enforce,
        due_in_seconds=None if due is None else round(due, 3),
        tree=view.key.tree,
        attempts=view.attempts,
    )
