"""Rules that cannot work: one that another one before it leaves nothing to.

The first rule that matches applies, so a broader one before it makes a rule mean nothing, and one
that was to protect protects nobody. Whether a glob matches all that another one matches is decided
over what both of them can tell apart; where that grows too large nothing is said.
"""

import sys
from collections.abc import Iterator, Sequence, Set
from fnmatch import fnmatchcase
from typing import Final

from reconciler.settings import globs
from reconciler.settings.schema import Match, Rule

_MOST_STATES: Final = 1_000
_LABELS: Final = ("pod_namespace", "pod", "container")


def shadowed(rules: Sequence[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Yield each rule that can never apply, and the rule before it that applies in its place.

    A rule that needs a bundle's config.json is passed over where that is missing; what is said
    here is true wherever it can be read.
    """
    for number, rule in enumerate(rules):
        before = next((one for one in rules[:number] if covers(one.match, rule.match)), None)
        if before is not None:
            yield rule, before


def covers(broad: Match, narrow: Match) -> bool:
    """Return whether a match fits every bundle that another one fits."""
    for name in ("namespace", "id"):
        if not includes(getattr(broad, name), getattr(narrow, name), globs.LETTERS):
            return False
    if not all(includes(getattr(broad, name), getattr(narrow, name)) for name in _LABELS):
        return False
    return all(
        key in narrow.annotation and includes(glob, narrow.annotation[key])
        for key, glob in broad.annotation.items()
    )


def includes(broad: str | None, narrow: str | None, letters: str = "") -> bool:
    """Return whether a glob matches every name that another one matches; None matches all.

    Args:
        broad: The glob that may match more.
        narrow: The glob that may match less.
        letters: All that a name is made of; empty if it may hold anything.
    """
    if broad is None or broad == narrow or not broad.strip("*"):
        return True
    first, second = globs.pieces(narrow or "*"), globs.pieces(broad)
    kinds = letters or _around(first + second)
    alphabet = {(_fitting(first, one), _fitting(second, one)) for one in kinds}
    begin = (_rest(first, {0}), _rest(second, {0}))
    if not letters and len(first) in begin[0] and len(second) not in begin[1]:
        return False  # nothing at all, which is no name of containerd's
    known, todo = {begin}, [begin]
    while todo and len(known) < _MOST_STATES:
        here, there = todo.pop()
        for of_first, of_second in alphabet:
            after = _step(first, here, of_first), _step(second, there, of_second)
            if len(first) in after[0] and len(second) not in after[1]:
                return False
            if after[0] and after not in known:
                known.add(after)
                todo.append(after)
    return not todo


def _fitting(pieces: list[str], letter: str) -> frozenset[int]:
    """Tell which pieces of a glob a letter fits."""
    return frozenset(n for n, piece in enumerate(pieces) if fnmatchcase(letter, piece))


def _around(pieces: list[str]) -> set[str]:
    """Give a letter of every kind that globs tell apart: each that is named, and its neighbours."""
    named = {letter for piece in pieces for letter in piece}
    near = {ord(letter) + step for letter in named for step in (-1, 0, 1)}
    return {"\0", *(chr(code) for code in near if 0 <= code <= sys.maxunicode)}


def _rest(pieces: list[str], places: Set[int]) -> frozenset[int]:
    """Add the places behind a star, which may match nothing."""
    reached = set(places)
    for place, piece in enumerate(pieces):
        if place in reached and piece == "*":
            reached.add(place + 1)
    return frozenset(reached)


def _step(pieces: list[str], places: frozenset[int], fitting: frozenset[int]) -> frozenset[int]:
    after = {p if pieces[p] == "*" else p + 1 for p in places & fitting}
    return _rest(pieces, after)
