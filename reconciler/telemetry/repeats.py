"""Repeats: withhold what was said already, and never let the last line be wrong. Pure and bounded.

There are two kinds of news. (1) A *state* of something (a phase, containerd, the guards) is
a repeat only if it is the very last thing that was said about it: whoever reads the last line reads
what is so now. (2) What *happens* on the way (a step, an attempt that begins, how it ended) is a
repeat if it went the same way the last time; a retry every few seconds would drown the rest.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from reconciler.telemetry.records import Level, Record

if TYPE_CHECKING:
    from reconciler.model.ids import BundleKey

WINDOW: Final = 300.0
"""Seconds for which a repeat is withheld: the longest back-off between two attempts."""

_MOST: Final = 4096
_MOST_KINDS: Final = 64


@dataclass(slots=True)
class _Said:
    """What was said of one kind, when, and how many like it were withheld since."""

    news: tuple[str, ...]
    mono: float
    withheld: int = 0


@dataclass(slots=True)
class _Object:
    """What was said about one thing; ``last`` is the kind of the last line."""

    by_kind: dict[str, _Said] = field(default_factory=dict)
    last: str = ""
    in_trouble: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """A record is said: at which level, and how many like it were withheld before it."""

    level: Level
    repeated: int = 0


class Repeats:
    """Remembers what was said of what is there.

    Forgets what is gone, and the oldest beyond a fixed number, so memory is bounded.
    """

    def __init__(self, window: float = WINDOW, most: int = _MOST) -> None:
        self._window = window
        self._most = most
        self._objects: OrderedDict[BundleKey | str, _Object] = OrderedDict()

    def admit(self, mono: float, record: Record) -> Admission | None:
        """Decide whether a record is said; None if it is withheld."""
        if record.is_end and record.key is not None:
            self._objects.pop(record.key, None)
            return Admission(record.level)
        if record.repeats is None and record.key is not None:
            self._note_change(record.key, record)
        if record.repeats is None and not (record.is_state and record.key is None):
            return Admission(record.level)
        thing = self._object(record)
        known = thing.by_kind.get(record.kind)
        news = record.repeats or ()
        is_repeat = known is not None and record.repeats is not None and known.news == news
        if record.is_state and thing.last != record.kind:
            is_repeat = False
        if known is not None and is_repeat and mono - known.mono < self._window:
            known.withheld += 1
            return None
        if len(thing.by_kind) >= _MOST_KINDS:
            thing.by_kind.clear()
        thing.by_kind[record.kind] = _Said(news, mono)
        return Admission(
            self._level(thing, record), known.withheld if known is not None and is_repeat else 0
        )

    def _level(self, thing: _Object, record: Record) -> Level:
        """Let the end of a trouble be as loud as people hear; remember what they heard last."""
        is_quiet = record.level is Level.DEBUG
        level = Level.INFO if is_quiet and record.is_state and thing.in_trouble else record.level
        if record.is_state:
            thing.in_trouble = not is_quiet
        if level is not Level.DEBUG or record.is_state:
            thing.last = record.kind
        return level

    def _note_change(self, key: "BundleKey", record: Record) -> None:
        """Something is different: what was said about it before does not count any more."""
        thing = self._objects.get(key)
        if thing is not None and record.level is not Level.DEBUG:
            thing.last = record.kind
            if not record.is_detail:
                thing.by_kind.clear()

    def _object(self, record: Record) -> _Object:
        what = record.kind if record.key is None else record.key
        thing = self._objects.setdefault(what, _Object())
        self._objects.move_to_end(what)
        if len(self._objects) > self._most:
            self._objects.popitem(last=False)
        return thing
