"""Records: what the log and the live view say, and which of it was said already. Pure and bounded.

Every name in a record is printable already (:func:`~reconciler.model.ids.escape`). Repeats are
withheld for a while. There are two kinds of news. (1) A *state* of something (a phase, containerd,
the guards) is a repeat only if it is the very last thing that was said about it: whoever reads the
last line reads what is so now. (2) What *happens* on the way (a step, an attempt that begins, how
it ended) is a repeat if it went the same way the last time; a retry every few seconds would drown
the rest.
"""

from collections import OrderedDict
from enum import Enum
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from reconciler.model.evidence import Labels
from reconciler.model.ids import BundleKey
from reconciler.present.events import LogEvent

_SHOWN: Final = ("cause", "budget", "reason", "detail", "state")

Field = str | int | float | bool | None | list[str] | dict[str, str]


class Level(Enum):
    """How much a record matters."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The same as :mod:`logging` numbers it."""
        return NUMBERS[self.value]


NUMBERS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Of each level by its value, as :mod:`logging` numbers it."""


class Record(msgspec.Struct, frozen=True):
    """One thing to tell.

    Attributes:
        event: What it is called.
        level: How much it matters.
        fields: What it says; names are printable.
        key: The bundle it is about, if one.
        repeats: What it says, to be compared with what was said before; None if each one counts.
        kind: What it is compared with: the last record of this kind about the same bundle.
        is_state: It tells what is so now, and not what happens on the way.
        is_detail: It is one of several that tell of the same change.
        is_end: It is the last thing that can be told of the bundle, which is gone.
    """

    event: LogEvent
    level: Level
    fields: dict[str, Field] = msgspec.field(default_factory=dict)
    key: BundleKey | None = None
    repeats: tuple[str, ...] | None = None
    kind: str = ""
    is_state: bool = False
    is_detail: bool = False
    is_end: bool = False


MarkKind = Literal["event", "death", "clean", "outcome", "budget", "node"]
MARKS: Final[tuple[MarkKind, ...]] = get_args(MarkKind)
"""The kinds of marks, as the report numbers them."""


class Mark(NamedTuple):
    """Something that the report marks: what kind, words, and whose lane, if not the node's."""

    kind: MarkKind
    text: str
    key: BundleKey | None = None


def named(key: BundleKey) -> dict[str, Field]:
    """Begin the fields of a record about a bundle."""
    names: dict[str, Field] = {"namespace": key.namespace, "id": key.id}
    return {**names, "tree": key.tree} if key.tree else names


def in_pod(labels: Labels) -> dict[str, Field]:
    """Name pod and container, as far as they are known, by the words that rules use."""
    names = {
        "pod_namespace": labels.pod_namespace,
        "pod": labels.pod,
        "container": labels.container,
    }
    return {what: name for what, name in names.items() if name}


def summary(record: Record) -> str:
    """Write what a record says on one short line, for the live view."""
    fields = record.fields
    if record.event is LogEvent.BUNDLE_JUDGED:
        before = f"{fields['previous']} -> " if fields["previous"] not in (None, "leftover") else ""
        after = [str(fields[name]) for name in ("verdict", "phase", "cause") if fields[name]]
        return f"{before}{', '.join(after)}: {fields['reason']}"
    shown = [str(fields[name]) for name in _SHOWN if fields.get(name)]
    # A detail that begins with its reason needs none before it.
    pairs = zip(shown, [*shown[1:], ""], strict=False)
    return ", ".join(text for text, after in pairs if not after.startswith(text))


WINDOW: Final = 300.0
"""Seconds for which a repeat is withheld: the longest back-off between two attempts."""

_MOST: Final = 4096
_MOST_KINDS: Final = 64


class _Said(msgspec.Struct):
    """What was said of one kind, when, and how many like it were withheld since."""

    news: tuple[str, ...]
    mono: float
    withheld: int = 0


class _Object(msgspec.Struct):
    """What was said about one thing; ``last`` is the kind of the last line."""

    by_kind: dict[str, _Said] = msgspec.field(default_factory=dict)
    last: str = ""
    in_trouble: bool = False


class Admission(msgspec.Struct, frozen=True):
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
            known_thing = self._objects.pop(record.key, None)
            is_trouble_over = known_thing is not None and known_thing.in_trouble
            return Admission(_loud(record.level) if is_trouble_over else record.level)
        if record.repeats is None and record.key is not None:
            self._note_change(record.key, record)
        if record.repeats is None and not record.is_state:
            return Admission(record.level)
        is_well = record.is_state and record.level is Level.DEBUG
        if is_well and record.key is not None and record.key not in self._objects:
            return Admission(record.level)  # nothing else was reported
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
        """Report the end of a trouble as loud as its beginning; remember what was reported last."""
        is_quiet = record.level is Level.DEBUG
        level = _loud(record.level) if record.is_state and thing.in_trouble else record.level
        if record.is_state:
            thing.in_trouble = not is_quiet
        if level is not Level.DEBUG or record.is_state:
            thing.last = record.kind
        return level

    def _note_change(self, key: BundleKey, record: Record) -> None:
        """Something is different: what was said about it before does not count any more."""
        thing = self._objects.get(key)
        if thing is None or (record.level is Level.DEBUG and not record.is_state):
            return
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


def _loud(level: Level) -> Level:
    return Level.INFO if level is Level.DEBUG else level
