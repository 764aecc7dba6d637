"""Durations as Go writes them (plus ``d``) and sizes: text flows in, seconds and bytes flow out.

Sources: Go's ``time.ParseDuration`` for the grammar. A number without a unit is refused, as Go
refuses it: seconds and minutes are too easily confused where files are removed.
"""

import re
from typing import Final

from reconciler.settings.problems import LONGEST, short

_SECONDS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_BYTES: Final = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART: Final = re.compile(rf"({_NUMBER})(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_NUMBER}(?:ns|us|µs|ms|s|m|h|d))+", re.ASCII)
_SIZE: Final = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)", re.ASCII)
_HOW_LONG: Final = "write it like 10s, 1h30m, 168h or 7d"
_HOW_LARGE: Final = "write it like 10GB, 512MiB or 4096"


def parse_duration(text: str) -> float:
    """Read a duration.

    Returns:
        Seconds, not negative.

    Raises:
        ValueError: It is none; the message says how to write one.
    """
    said = text.strip()
    if said == "0":
        return 0.0
    if len(said) > LONGEST or not _DURATION.fullmatch(said):
        raise ValueError(f"{short(text)!r} is not a duration: {_HOW_LONG}")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(said))


def parse_size(text: str) -> int:
    """Read a size; ``kB`` is 1000 bytes, ``KiB`` is 1024, case does not matter.

    Returns:
        Bytes.

    Raises:
        ValueError: It is none; the message says how to write one.
    """
    found = _SIZE.fullmatch(text.strip()) if len(text) <= LONGEST else None
    factor = None if found is None else _BYTES.get(found[2].lower())
    if found is None or factor is None:
        raise ValueError(f"{short(text)!r} is not a size: {_HOW_LARGE}")
    return int(float(found[1]) * factor) if "." in found[1] else int(found[1]) * factor
