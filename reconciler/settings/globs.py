r"""Globs of rules: what each may look like, and why one would never match what it is meant for.

A glob that matches nothing is found out when something was removed that it should have kept, so it
is refused, in any rule: who is passed by one rule falls to the next, which may wait less long.
Whether a containerd name can match is decided exactly; a name of Kubernetes' is held to its
letters; and what is written like a regular expression is refused even where it might match.
Whoever means such a sign writes it in brackets: ``web[.]*``.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from reconciler.model.ids import MAX_IDENTIFIER
from reconciler.settings.problems import short

_ALNUM: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_BETWEEN: Final = "._-"
LETTERS: Final = _ALNUM + _BETWEEN
"""All that containerd's names are made of."""

_LONGEST_NAME: Final = 253  # of a pod; others are shorter

_PIECE: Final = re.compile(r"\[!?\]?[^]]*\]|.", re.DOTALL)  # as fnmatch reads it
_ANYTHING: Final = re.compile(r"\.[*+]")
_SIGNS: Final = re.compile(r"\A\^|\$\Z|\.[*+]|\\|[)\]][+{]|\([^)]*\|[^)]*\)")
_BRACES: Final = re.compile(r"\{[^}]*,[^}]*\}")


def identifier(text: str) -> str:
    """Accept a glob for containerd's namespaces and ids."""
    _not_empty(text)
    _refuse_expression(text)
    _refuse_strange(text, "containerd")
    if witness(text) is None:
        raise ValueError(f"{short(text)!r} {_why_never(text)}")
    return text


def name(text: str) -> str:
    """Accept a glob for names of Kubernetes'."""
    _not_empty(text)
    _refuse_expression(text)
    _refuse_strange(text, "Kubernetes")
    if _least(text) > _LONGEST_NAME:
        raise ValueError(f"{short(text)!r} {_too_long(_LONGEST_NAME)}")
    return text


def text(value: str) -> str:
    """Accept a glob for the value of an annotation, which may be anything."""
    _not_empty(value)
    _refuse_expression(value)
    return value


def witness(glob: str) -> str | None:
    """Give the shortest name containerd accepts that a glob matches; None if there is none.

    A walk over pairs: how much of the glob is used up, and whether the name may end here.
    """
    if _least(glob) > MAX_IDENTIFIER:
        return None
    parts = pieces(re.sub(r"\*+", "*", glob))
    begin = _State(0, may_end=False)
    reached = {begin: ""}
    for _ in range(MAX_IDENTIFIER + 1):
        for state in reached:
            if state.may_end and all(piece == "*" for piece in parts[state.used :]):
                return reached[state]
        further: dict[_State, str] = {}
        for state, name_so_far in reached.items():
            for char, after in _steps(parts, state):
                further.setdefault(after, name_so_far + char)
        reached = further
    return None


class _State(NamedTuple):
    used: int
    may_end: bool


def _steps(parts: list[str], state: _State) -> Iterable[tuple[str, _State]]:
    """Give every state one more letter leads to, each with one such letter."""
    used = state.used
    while True:
        piece = parts[used] if used < len(parts) else ""
        for letters in (_ALNUM, _BETWEEN if state.may_end else ""):
            char = next((one for one in letters if piece and fnmatchcase(one, piece)), None)
            if char is not None:
                yield char, _State(used if piece == "*" else used + 1, letters is _ALNUM)
        if piece != "*":
            return
        used += 1


def pieces(glob: str) -> list[str]:
    """Take a glob apart: letters, ``?``, ``*`` and sets in brackets."""
    return _PIECE.findall(glob)


def _least(glob: str) -> int:
    return sum(piece != "*" for piece in pieces(glob))


def _not_empty(glob: str) -> None:
    if not glob:
        raise ValueError('is empty and matches nothing; "*" matches everything')


def _refuse_expression(glob: str) -> None:
    bare = "".join(piece if len(piece) == 1 else "[]" for piece in pieces(glob))
    sign = _SIGNS.search(bare)
    if sign is None:
        return
    hint = 'a glob says "anything" by * alone'
    if "|" in bare:
        hint += "; write one rule for each"
    else:
        plain = _ANYTHING.sub("*", glob.removeprefix("^").removesuffix("$")).replace("\\", "")
        if plain and not _SIGNS.search(plain):
            hint += f': "{plain}"'
    raise ValueError(f"{short(glob)!r} is written like a regular expression; {hint}")


def _refuse_strange(glob: str, whose: str) -> None:
    if _BRACES.search(glob):
        reason = f"{short(glob)!r} has braces, which mean nothing in a glob"
        raise ValueError(f"{reason}; write one rule for each")
    for piece in pieces(glob):
        if not any(fnmatchcase(letter, piece) for letter in LETTERS):
            raise ValueError(f"{short(glob)!r} can never match: no name of {whose}'s has {piece!r}")


def _why_never(glob: str) -> str:
    if _least(glob) > MAX_IDENTIFIER:
        return _too_long(MAX_IDENTIFIER)
    reason = "can never match: containerd's names begin and end with a letter or digit"
    if glob[-1] in _BETWEEN and witness(glob + "*") is not None:
        return f'{reason}; did you mean "{glob}*"?'
    return f"{reason}, with one of . _ - between at most"


def _too_long(most: int) -> str:
    return f"can never match: it is longer than the {most} characters of a name"
