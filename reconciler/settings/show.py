"""Show: a configuration in force as TOML, line by line with its origin; what a reload changed."""

from collections.abc import Iterator

import msgspec

from reconciler.settings.check import known_keys
from reconciler.settings.load import Loaded
from reconciler.settings.problems import below


class Shown(msgspec.Struct, frozen=True):
    """One value in force.

    Attributes:
        key: Dotted key; for a rule ``rule."its name"``.
        value: As a configuration file has it.
        origin: The file, variable or option it comes from, or ``default``.
    """

    key: str
    value: object
    origin: str

    @property
    def text(self) -> str:
        """The value as TOML writes it, on one line."""
        return toml(self.value)


def shown(loaded: Loaded) -> list[Shown]:
    """List every value in force, and every rule in the order in which they are tried."""
    plain = msgspec.to_builtins(loaded.settings)
    lines = [Shown(key, _find(plain, key), loaded.origins[key]) for key in known_keys()]
    for rule in loaded.settings.rule:
        key = below("rule", rule.name)
        said = _said(msgspec.to_builtins(rule))
        del said["name"]
        lines.append(Shown(key, said, loaded.origins[key]))
    return lines


def _said(table: dict[str, object]) -> dict[str, object]:
    """Give what a table says: neither null nor an empty table stands for what it does not.

    ``match = {}`` is something that is said: it matches everything.
    """
    return {
        name: _said(value) if isinstance(value, dict) else value
        for name, value in table.items()
        if value is not None and value != {}
    }


def changed(before: Loaded, after: Loaded) -> list[str]:
    """Say what differs, one line a value: ``cleanup.grace: "10m" -> "5m"``."""
    old = {line.key: line.text for line in shown(before)}
    new = {line.key: line.text for line in shown(after)}
    lines = [
        f"{key}: {old.get(key, 'none')} -> {new.get(key, 'none')}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    common = old.keys() & new.keys()
    order = [[key for key in side if key in common] for side in (old, new)]
    if order[0] != order[1]:
        lines.append("the rules are tried in another order")
    return lines


def toml(value: object) -> str:
    """Write a value in TOML, on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case dict():
            return f"{{ {', '.join(_pairs(value))} }}" if value else "{}"
        case _:
            return msgspec.json.encode(value).decode()  # TOML's basic strings hold JSON's


def _pairs(table: dict[str, object]) -> Iterator[str]:
    for name, value in table.items():
        yield f"{below('', name)} = {toml(value)}"


def _find(table: object, key: str) -> object:
    for part in key.split("."):
        if not isinstance(table, dict):
            raise KeyError(key)
        table = table[part]
    return table
