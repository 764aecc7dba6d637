"""Ages, sizes, counts and times in a few characters for people; JSON for their terminals. Pure."""

import re
from typing import Final

import msgspec

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_FINE: Final = 10.0
_STEP: Final = 1000
_NOT_ASCII: Final = re.compile("[^ -~\n]")


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


def plural(count: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def due(seconds: float | None) -> str:
    """Write when something is due."""
    if seconds is None:
        return "-"
    return "now" if seconds <= 0 else f"in {age(seconds)}"


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
