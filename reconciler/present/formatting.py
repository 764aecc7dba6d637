"""Small values in a few characters: ages, sizes, counts, names, times; styles; JSON. Pure.

Why a bundle has its verdict is worded with the rules (:mod:`reconciler.decide.verdicts`).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec

from reconciler.model.containerd import Containerd, ContainerdState
from reconciler.model.decisions import Phase, Verdict
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Listed
from reconciler.model.outcome import Holder, Result

VERDICT_STYLES: Final = {
    Verdict.RUNNING: "green",
    Verdict.STOPPED: "green",
    Verdict.STARTING: "cyan",
    Verdict.IN_TRANSITION: "cyan",
    Verdict.ABANDONED: "magenta",
    Verdict.ORPHANED: "magenta",
    Verdict.LEFTOVER: "yellow",
    Verdict.UNKNOWN: "bold",
    Verdict.FOREIGN: "dim",
}
PHASE_STYLES: Final = {
    Phase.NONE: "dim",
    Phase.WAITING: "yellow",
    Phase.DUE: "bold yellow",
    Phase.CLEANING: "bold cyan",
    Phase.CLEANED: "green",
    Phase.BLOCKED: "bold red",
    Phase.PROTECTED: "blue",
    Phase.HELD: "magenta",
}
RESULT_STYLES: Final = {
    Result.CLEANED: "green",
    Result.BLOCKED: "bold red",
    Result.FAILED: "bold red",
    Result.HELD: "magenta",
    Result.PROTECTED: "blue",
    Result.KILLED: "magenta",
    Result.SKIPPED: "cyan",
}
_STYLES: Final[Mapping[str, str]] = {
    **{one.value: style for one, style in VERDICT_STYLES.items()},
    **{one.value: style for one, style in PHASE_STYLES.items()},
    **{one.value: style for one, style in RESULT_STYLES.items()},
    "planned": "cyan",
}

URGENCY: Final = {
    phase: rank
    for rank, phase in enumerate(
        (Phase.CLEANING, Phase.BLOCKED, Phase.HELD, Phase.DUE, Phase.WAITING, Phase.PROTECTED)
    )
}
"""The phases of a leftover, by what people want to see first."""

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_FINE: Final = 10.0
_MINUTE: Final = 60.0
_STEP: Final = 1000
_NOT_ASCII: Final = re.compile("[^ -~\n]")


class Named(Protocol):
    """What has the name of a bundle, or none for the node."""

    @property
    def namespace(self) -> str:
        """The first part of its name."""

    @property
    def id(self) -> str:
        """The second."""

    @property
    def tree(self) -> str:
        """Which of containerd's trees it is in, as in its key."""


def age(seconds: float) -> str:
    """Write a time span with its two largest units: ``3d4h``, ``5m10s``, ``0.4s``."""
    if seconds < _FINE:
        return f"{seconds:.1f}s"
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2])


def size(count: int, *, exact: bool = True) -> str:
    """Write a number of bytes in decimal units: ``512B``, ``12.3kB``, ``4.0GB+`` if not exact."""
    if not exact:
        return f"{size(count)}+"
    if count < _STEP:
        return f"{count}B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= _STEP
        if value < _STEP:
            return f"{value:.1f}{unit}"
    return f"{value / _STEP:.1f}PB"


def span(seconds: float) -> str:
    """Write a time since the begin, exact enough to tell two apart: ``1h02m03.4s``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(abs(tenths), 600)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if tenths < 0 else ""
    tail = f"{rest / 10:04.1f}s"
    if hours:
        return f"{sign}{hours}h{minutes:02d}m{tail}"
    return f"{sign}{minutes}m{tail}" if minutes else f"{sign}{rest / 10:.1f}s"


def took(seconds: float) -> str:
    """Write how long something took: ``219ms``, ``26.5s``, ``4m12s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms" if round(seconds * 1000) < _STEP else "1.0s"
    tenths = round(seconds, 1)
    return f"{tenths:.1f}s" if tenths < _MINUTE else age(round(seconds))


def iso(wall: float) -> str:
    """Write a time of day in UTC with milliseconds."""
    return f"{datetime.fromtimestamp(wall, UTC).isoformat(timespec='milliseconds')[:-6]}Z"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def due(seconds: float | None) -> str:
    """Write when something is due."""
    if seconds is None:
        return "-"
    return "now" if seconds <= 0 else f"in {age(seconds)}"


def counted(counts: Mapping[str, int]) -> list[str]:
    """Write each count that is not 0 with what it counts."""
    return [f"{count} {what}" for what, count in counts.items() if count]


def bundles(count: int, verdicts: Mapping[str, int]) -> str:
    """Write how many bundles there are, and of what kind."""
    parts = ", ".join(counted(verdicts))
    return f"{plural(count, 'bundle')}: {parts}" if parts else plural(count, "bundle")


def debris(counts: Mapping[str, Mapping[str, int]], *, more: bool = False) -> str:
    """Write how many pieces of debris there are of each kind and phase; empty if there are none.

    ``more``: whether that is not all.
    """
    total = sum(sum(phases.values()) for phases in counts.values())
    kinds = (f"{kind} {', '.join(counted(phases))}" for kind, phases in counts.items() if phases)
    least = "at least " if more else ""
    return f"{least}{plural(total, 'piece')} of debris: {'; '.join(kinds)}" if total else ""


def style(word: str) -> str:
    """Give the look of a verdict, a phase or a result; none for one of another release."""
    return _STYLES.get(word, "")


def name(one: Named) -> str:
    """Write the name of a bundle as people type it."""
    return str(key_of(one))


def key_of(one: Named) -> BundleKey:
    """Give the key of what has the name of a bundle."""
    return BundleKey(one.namespace, one.id, one.tree)


def holder(who: Holder) -> str:
    """Write who holds something, and how: ``17 sleep (cwd)``."""
    return f"{who.pid} {who.name} ({who.how})"


def holders(who: Iterable[Holder]) -> str:
    """Write all who hold something, for people; empty if nobody does."""
    return ", ".join(f"pid {holder(one)}" for one in who)


def stuck(pid: int, bundle: str) -> str:
    """Write that a process may be a shim of a bundle and does not say so; empty: of any."""
    return (
        f"process {pid} may be the shim of {bundle or 'any bundle'} and does not say so: its "
        f"command line cannot be read; see what it waits for in /proc/{pid}/stack"
    )


def unread(listed: Listed) -> str:
    """Write what of the state trees a listing does not tell; empty if it tells all."""
    if not listed.answered:
        return "the state tree cannot be read"
    if listed.sandboxes:
        return ""
    return (
        "the tree of sandboxes cannot be read, or is not on the mount of the state directory: "
        "no bundle in it is known"
    )


def containerd(said: Containerd) -> str:
    """Write how containerd is."""
    return {
        ContainerdState.UP: f"containerd {said.version or 'up'}",
        ContainerdState.DOWN: "containerd is down",
        ContainerdState.SKIPPED: "without containerd",
        ContainerdState.NONE: "containerd gives no answer",
    }[said.state]


def to_json(value: object) -> bytes:
    """Write a value as JSON, whatever its texts hold: half a pair of UTF-16 is none in UTF-8."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_whole(msgspec.to_builtins(value)))


def _whole(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case list() | tuple():
            return [_whole(one) for one in value]
        case dict():
            return {_whole(name): _whole(one) for name, one in value.items()}
        case _:
            return value


def printable_json(text: str) -> str:
    r"""Write what cannot be printed in JSON as ``\\uNNNN``: the value stays the same."""
    if text.replace("\n", "").isprintable():
        return text
    return _NOT_ASCII.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if char.isprintable():
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))


def wedged(key: BundleKey, pid: int, init: str, ended: str) -> str:
    """Name a shim that would hold up containerd's start; ``ended`` says what was done about it."""
    what = f"{key}: its shim (pid {pid}) never answers and would hold up containerd's start"
    hint = "--kill-wedged ends it" if init in {"dead", "absent"} else "end it yourself"
    return f"{what}; init {init}; {ended or hint}"
