"""Check: compare a table with the schema, key by key, and say all that is wrong with it.

One walk over msgspec's description of the schema, so that every problem gets its own key and a
guess, where a decoder would stop at the first. What passes here can be converted.
"""

from collections.abc import Collection, Iterator
from datetime import date, time
from functools import cache
from typing import Final

from msgspec import inspect

from reconciler.settings.problems import Problem, below, meant, nearest, short
from reconciler.settings.schema import Settings

Table = dict[str, object]

_LARGE: Final = 64
"""Bits. Hexadecimal numbers may be of any size, and Python does not print every one."""

_EXAMPLES: Final = {
    "a duration": 'write it like "10s", "1h30m" or "7d"',
    'a duration or "none"': 'write it like "168h" or "7d"',
    "a size": 'write it like "512MiB" or "10GB"',
    'a size or "none"': 'write it like "512MiB" or "10GB"',
}


@cache
def schema() -> inspect.StructType:
    """Give msgspec's description of :class:`Settings`."""
    kind = inspect.type_info(Settings)
    if not isinstance(kind, inspect.StructType):
        raise TypeError(kind)
    return kind


def check(table: Table, where: str) -> list[Problem]:
    """Find everything that is wrong with one file's table.

    Args:
        table: What the file says, normalised.
        where: The file's name, for the messages.
    """
    return [Problem(where, *found) for found in _table(table, schema(), "")]


def check_value(value: object, kind: inspect.Type, where: str, key: str) -> list[Problem]:
    """Find what is wrong with one value that was said outside of files, as ``key``."""
    return [Problem(where, *found) for found in _value(value, kind, key)]


def known_keys(kind: inspect.StructType | None = None, key: str = "") -> dict[str, inspect.Type]:
    """List every key that has a value of its own, with its type; rules left out."""
    keys: dict[str, inspect.Type] = {}
    for field in (kind or schema()).fields:
        inner = below(key, field.encode_name)
        if isinstance(field.type, inspect.StructType):
            keys |= known_keys(field.type, inner)
        elif not isinstance(field.type, inspect.VarTupleType):
            keys[inner] = field.type
    return keys


_Found = Iterator[tuple[str, str, str]]
"""Key, reason and hint of each problem."""


def _table(found: object, kind: inspect.StructType, key: str) -> _Found:
    if not isinstance(found, dict):
        yield key, f"is {named(found)}, not a table", ""
        return
    fields = {field.encode_name: field for field in kind.fields}
    for name, value in found.items():
        if name in fields:
            yield from _value(value, fields[name].type, below(key, name))
        else:
            yield below(key, name), "unknown key", _guess(name, fields, key)
    for name, field in fields.items():
        if field.required and name not in found:
            yield key, f"has no {name}", _MISSING.get(name, "")


_MISSING: Final = {
    "name": 'give it one: name = "..."',
    "match": "say what it is for; match = {} matches everything",
}


def _value(value: object, kind: inspect.Type, key: str) -> _Found:
    match kind:
        case inspect.StructType():
            yield from _table(value, kind, key)
        case inspect.VarTupleType(item_type=item):
            if not isinstance(value, list):
                yield key, f"is {named(value)}, not an array of tables", f"write [[{key}]]"
                return
            for number, element in enumerate(value, 1):
                yield from _value(element, item, f"{key}[{number}]")
        case inspect.DictType(value_type=item):
            if not isinstance(value, dict):
                yield key, f"is {named(value)}, not a table", ""
                return
            for name, element in value.items():
                yield from _value(element, item, below(key, name))
        case inspect.UnionType(types=types):
            inner = next(one for one in types if not isinstance(one, inspect.NoneType))
            yield from _value(value, inner, key)
        case inspect.Metadata(type=inner, extra=extra):
            yield from _leaf(value, inner, extra or {}, key)
        case _:
            yield from _leaf(value, kind, {}, key)


def _leaf(value: object, kind: inspect.Type, extra: dict[str, object], key: str) -> _Found:
    match kind:
        case inspect.BoolType():
            reason, hint = _bool(value)
        case inspect.IntType(ge=least, le=most):
            reason, hint = _int(value, least, most)
        case inspect.EnumType(cls=choices):
            reason, hint = _choice(value, [str(choice.value) for choice in choices])
        case _:
            reason, hint = _text(value, extra)
    if reason:
        yield key, reason, hint


def _bool(value: object) -> tuple[str, str]:
    return ("", "") if isinstance(value, bool) else (f"is {named(value)}, not true or false", "")


def _int(value: object, least: int | None, most: int | None) -> tuple[str, str]:
    if not isinstance(value, int) or isinstance(value, bool):
        return f"is {named(value)}, not a whole number", ""
    shown = str(value) if value.bit_length() < _LARGE else "a very large number"
    if least is not None and value < least:
        return f"is {shown}, and {least} is the least", ""
    if most is not None and value > most:
        return f"is {shown}, and {most} is the most", ""
    return "", ""


def _choice(value: object, known: list[str]) -> tuple[str, str]:
    quoted = [f'"{name}"' for name in known]
    choices = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
    if not isinstance(value, str):
        return f"is {named(value)}, not {choices}", ""
    if value in known:
        return "", ""
    return f"{short(value)!r} is not {choices}", meant(value, known)


def _text(value: object, extra: dict[str, object]) -> tuple[str, str]:
    what = str(extra.get("what", "text"))
    if not isinstance(value, str):
        return f"is {named(value)}, not {what}", _EXAMPLES.get(what, "")
    parse = extra.get("parse")
    if callable(parse):
        try:
            parse(value)
        except ValueError as error:
            reason, _, hint = str(error).partition("; ")
            return reason, hint
    return "", ""


def named(value: object) -> str:
    """Name the type of a TOML value."""
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return name
    return "something else"


_NAMES: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "a boolean"),
    (int, "a whole number"),
    (float, "a fraction"),
    (str, "text"),
    ((date, time), "a date or time"),
    (list, "an array"),
    (dict, "a table"),
)


def _guess(name: str, known: Collection[str], key: str) -> str:
    """Guess which key was meant: one like it here or in another table, or any of these."""
    if name == "plugins" and not key:
        return "that is a table of containerd's own configuration"
    homes = {} if key.startswith("rule") else _homes()
    close = nearest(name, {*known, *homes})
    if close in known:
        return f'did you mean "{close}"?'
    if close:
        return f'did you mean "{close}" in [{homes[close]}]?'
    return f"known here: {', '.join(sorted(known))}"


def _homes() -> dict[str, str]:
    """Tell in which table a key is, for keys that are in one only."""
    tables: dict[str, str] = {}
    twice: set[str] = set()
    for key in known_keys():
        table, _, name = key.rpartition(".")
        if name in tables or not table:
            twice.add(name)
        tables[name] = table
    return {name: table for name, table in tables.items() if name not in twice}
