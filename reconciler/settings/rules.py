"""Rules that cannot work: one that another one before it leaves nothing to.

The first rule that matches applies, so a broader one before it makes a rule mean nothing, and one
that was to protect protects nobody. Nearly every pair of rules is settled by one name that the
later rule matches and the earlier one does not. Otherwise, whether a glob matches all that another
one matches is decided over what both of them can tell apart. What that costs has a limit over all
rules, for a daemon that loads its configuration again must not miss its watchdog; beyond it nothing
is said of a pair.
"""

import sys
from collections.abc import Iterator, Sequence, Set
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from reconciler.settings import globs
from reconciler.settings.schema import Match, Rule

_MOST_STATES: Final = 1_000
_MOST_TRIES: Final = 2_000_000
_TRIES_AT_A_GLANCE: Final = 16
_LABELS: Final = ("pod_namespace", "pod", "container")


class Effort(msgspec.Struct):
    """What comparing globs may still cost, and what it came to.

    Attributes:
        left: How often a letter may still be held against a piece of a glob.
        glances: Pairs of rules that were looked at.
        exact: Pairs of globs that one name did not settle.
        states: States that those were followed through.
        given_up: Whether something remained unsaid for want of effort.
    """

    left: int = _MOST_TRIES
    glances: int = 0
    exact: int = 0
    states: int = 0
    given_up: bool = False

    def spend(self, tries: int) -> bool:
        """Take from what is left; False, and nothing is taken, if that is not enough."""
        if tries > self.left:
            self.given_up = True
            return False
        self.left -= tries
        return True


class Shadows(NamedTuple):
    """What was found about rules.

    Attributes:
        pairs: Each rule that can never apply, and the rule before it that applies in its place;
            one that does so only where all labels are known if there is no other.
        complete: Whether every pair could be compared.
    """

    pairs: tuple[tuple[Rule, Rule], ...]
    complete: bool


def shadowed(rules: Sequence[Rule], effort: Effort | None = None) -> Shadows:
    """Find the rules that can never apply; those that protect are asked about first.

    A rule that needs a label is passed over where that is not known; what is said here is true
    wherever the labels are known. Whether it is elsewhere, :func:`applies_where_unknown` tells.
    """
    effort = effort or Effort()
    found: dict[int, Rule] = {}
    for number in sorted(range(len(rules)), key=lambda one: not rules[one].protect):
        match = rules[number].match
        for before in rules[:number]:
            effort.glances += 1
            if not effort.spend(_TRIES_AT_A_GLANCE):
                break
            if covers(before.match, match, effort):
                found[number] = before
                if not applies_where_unknown(rules[number], before):
                    break
    pairs = tuple((rules[number], found[number]) for number in sorted(found))
    return Shadows(pairs, complete=not effort.given_up)


def applies_where_unknown(rule: Rule, before: Rule) -> bool:
    """Return whether a shadowed rule still applies where a label is not known.

    What protects applies where it may be meant, what does not protect only where it is
    (:mod:`reconciler.model.policy`).
    """
    if before.protect:
        return False
    asked = _asked(before.match)
    return bool(asked if rule.protect else asked - _asked(rule.match))


def _asked(match: Match) -> set[str]:
    """Name the labels that a match asks for."""
    said = {name for name in _LABELS if getattr(match, name) is not None}
    return said | {f"annotation.{name}" for name in match.annotation}


def covers(broad: Match, narrow: Match, effort: Effort | None = None) -> bool:
    """Return whether a match fits every bundle that another one fits; no if it costs too much."""
    if not broad.annotation.keys() <= narrow.annotation.keys():
        return False
    effort = effort or Effort()
    asked = list(_globs(broad, narrow))
    if not effort.spend(sum(len(first) + len(second) for first, second, _ in asked) // 8):
        return False
    if any(_at_a_glance(*each) is False for each in asked):
        return False
    return all(includes(*each, effort) for each in asked)


def includes(
    broad: str, narrow: str | None, letters: str = "", effort: Effort | None = None
) -> bool:
    """Return whether a glob matches every name that another one matches; no if it costs too much.

    Args:
        broad: The glob that may match more.
        narrow: The glob that may match less; None matches all.
        letters: All that a name is made of; empty if it may hold anything.
        effort: What this may cost.
    """
    settled = _at_a_glance(broad, narrow or "*", letters)
    if settled is not None:
        return settled
    return _exactly(globs.pieces(narrow or "*"), globs.pieces(broad), letters, effort or Effort())


def _globs(broad: Match, narrow: Match) -> Iterator[tuple[str, str, str]]:
    """Give the globs to compare: the broad one, the narrow one, and what names are made of."""
    for name in ("namespace", "id", *_LABELS):
        glob = getattr(broad, name)
        if glob is not None:
            letters = "" if name in _LABELS else globs.LETTERS
            yield glob, getattr(narrow, name) or "*", letters
    for key, glob in broad.annotation.items():
        yield glob, narrow.annotation[key], ""


def _at_a_glance(broad: str, narrow: str, letters: str) -> bool | None:
    """Return whether the broad glob includes the narrow one; None where that takes more."""
    if broad == narrow or not broad.strip("*"):
        return True
    name = _example(narrow, letters)
    return None if name is None or fnmatchcase(name, broad) else False


@lru_cache(maxsize=4096)
def _example(glob: str, letters: str) -> str | None:
    """Give a name that a glob matches, if one is easily found."""
    name = "".join(_letter(piece) for piece in globs.pieces(glob))
    if letters:
        name = name or letters[0]  # nothing at all is no name
    return name if fnmatchcase(name, glob) and set(name) <= set(letters or name) else None


def _letter(piece: str) -> str:
    """Give a letter that a piece of a glob fits; a star fits none as well."""
    if piece == "*":
        return ""
    if len(piece) == 1 and piece != "?":
        return piece
    return next((one for one in globs.LETTERS if fnmatchcase(one, piece)), "")


def _exactly(first: list[str], second: list[str], letters: str, effort: Effort) -> bool:
    """Return whether the second glob includes the first one; False if it costs too much."""
    effort.exact += 1
    kinds = letters or _around(first + second)
    size = len(first) + len(second)
    if not effort.spend(len(kinds) * size):
        return False
    alphabet = {(_fitting(first, one), _fitting(second, one)) for one in kinds}
    begin = (_rest(first, {0}), _rest(second, {0}))
    if not letters and len(first) in begin[0] and len(second) not in begin[1]:
        return False  # nothing at all, which is no name of containerd's
    known, todo = {begin}, [begin]
    while todo:
        if len(known) >= _MOST_STATES or not effort.spend(len(alphabet) * size):
            effort.given_up = True
            return False
        effort.states += 1
        here, there = todo.pop()
        for of_first, of_second in alphabet:
            after = _step(first, here, of_first), _step(second, there, of_second)
            if len(first) in after[0] and len(second) not in after[1]:
                return False
            if after[0] and after not in known:
                known.add(after)
                todo.append(after)
    return True


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
