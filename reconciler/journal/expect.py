"""Expectations: what a user's own test says about a replay, in TOML, written by hand.

    [[expect]]
    bundle = "k8s.io/web-*"          # NAMESPACE/ID, globs allowed
    cleaned = "never"

    [[expect]]
    bundle = "default/dead"
    cleaned = "10m..12m"             # since the journal began; "10m.." and "..12m" are open

    [[expect]]
    bundle = "default/odd"
    verdict = "unknown"              # in the end
    phase = "waiting"                # in the end; "" for none

"Cleaned" means that the engine gave it to the cleaner. An expectation about a bundle that the
journal never shows is not met: a test that looks at nothing proves nothing. (For "never", name
it all the same; ``absent = true`` expects that there is no such bundle.)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec

from reconciler.errors import ReconcilerError, UsageError
from reconciler.journal.replay import Turn
from reconciler.model.decisions import Clean, Judged, Phase, Vanished, Verdict
from reconciler.model.ids import BundleKey
from reconciler.present.formatting import span
from reconciler.settings.units import parse_duration

_NEVER: Final = "never"
_LARGEST: Final = 1 << 20


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[expect]]``."""

    bundle: str
    cleaned: str | None = None
    verdict: str | None = None
    phase: str | None = None
    absent: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    expect: tuple[Expectation, ...]


class BadExpectationError(UsageError):
    """An expectation file that cannot be meant."""


def load(path: Path) -> tuple[Expectation, ...]:
    """Read a file of expectations.

    Raises:
        BadExpectationError: It is not one; names file, key and reason.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST)
        expectations = msgspec.toml.decode(text, type=_File).expect
    except OSError as error:
        raise ReconcilerError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadExpectationError(f"{path}: {error}") from error
    if not expectations:
        raise BadExpectationError(f"{path}: expects nothing", "write an [[expect]]")
    for number, one in enumerate(expectations, 1):
        problem = _problem(one)
        if problem:
            raise BadExpectationError(f"{path}: [[expect]] {number} ({one.bundle}): {problem}")
    return expectations


def _problem(one: Expectation) -> str:
    if "/" not in one.bundle:
        return "bundle must be NAMESPACE/ID, globs allowed"
    if one.cleaned is None and one.verdict is None and one.phase is None and not one.absent:
        return "nothing is expected; write cleaned, verdict, phase or absent"
    if one.verdict is not None and one.verdict not in {verdict.value for verdict in Verdict}:
        return f"no such verdict: {one.verdict!r}"
    if one.phase is not None and one.phase not in {phase.value for phase in Phase}:
        return f"no such phase: {one.phase!r}"
    if one.cleaned not in (None, _NEVER):
        try:
            _span(one.cleaned)
        except ValueError as error:
            return f"cleaned = {one.cleaned!r}: {error}"
    return ""


def _span(text: str) -> tuple[float, float]:
    begin, dots, end = text.partition("..")
    if not dots or not (begin or end):
        raise ValueError('write "never" or a span like "10m..12m"')
    span = (parse_duration(begin) if begin else 0.0, parse_duration(end) if end else float("inf"))
    if span[0] > span[1]:
        raise ValueError("ends before it begins")
    return span


@dataclass(slots=True)
class _Changes:
    """What became of the bundles of one name."""

    cleaned: list[float] = field(default_factory=list)
    verdict: str = ""
    phase: str = ""


class Watch:
    """Follows a replay and says in the end which expectations were not met."""

    def __init__(self, expectations: tuple[Expectation, ...]) -> None:
        self._expectations = expectations
        self._fates: dict[BundleKey, _Changes] = {}

    def follow(self, at: float, turn: Turn) -> None:
        """Take in one turn; ``at`` counts from the journal's begin."""
        for decision in turn.replayed:
            match decision:
                case Judged():
                    fate = self._fate(decision.key)
                    fate.verdict = decision.judgement.verdict.value
                    fate.phase = decision.phase.value
                case Clean(kill=False):
                    self._fate(decision.key).cleaned.append(at)
                case Vanished():
                    fate = self._fate(decision.key)
                    fate.phase = Phase.CLEANED.value if decision.cleaned else ""
                case _:
                    pass

    def _fate(self, key: BundleKey) -> _Changes:
        if not any(fnmatchcase(str(key), one.bundle) for one in self._expectations):
            return _Changes()  # nobody asks: forgotten at once, so that memory stays bounded
        return self._fates.setdefault(key, _Changes())

    def failures(self) -> Iterator[str]:
        """Say, one line each, what was expected and did not come."""
        for one in self._expectations:
            fates = {k: f for k, f in self._fates.items() if fnmatchcase(str(k), one.bundle)}
            if one.absent:
                yield from (f"{key}: expected to be absent" for key in fates)
                continue
            if not fates:
                yield f"{one.bundle}: the journal shows no such bundle"
            for key, fate in fates.items():
                yield from (f"{key}: {failure}" for failure in _failures(one, fate))


def _failures(one: Expectation, fate: _Changes) -> Iterator[str]:
    times = ", ".join(span(at) for at in fate.cleaned)
    if one.cleaned == _NEVER and fate.cleaned:
        yield f"expected never to be cleaned, was after {times}"
    if one.cleaned not in (None, _NEVER):
        begin, end = _span(one.cleaned)
        if not any(begin <= at <= end for at in fate.cleaned):
            came = f"was after {times}" if times else "was not"
            yield f"expected to be cleaned within {one.cleaned}, {came}"
    if one.verdict is not None and fate.verdict != one.verdict:
        yield f"expected verdict {one.verdict} in the end, is {fate.verdict or 'none'}"
    if one.phase is not None and fate.phase != one.phase:
        yield f"expected phase {one.phase or 'none'} in the end, is {fate.phase or 'none'}"
