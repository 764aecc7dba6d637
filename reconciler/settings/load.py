"""Load: all layers of the configuration as one value that knows where each part of it comes from.

What an instance's name says < files < environment < command line; a later one wins key by key.
Rules are joined, those of a later layer first, so that it can say something else, and one of the
same name takes an earlier one's place. Either all of it is right or nothing is taken: a reload must
not leave half of each.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from reconciler.model.layout import DEFAULT_ADDRESS, DEFAULT_STATE, Layout
from reconciler.model.policy import Policies
from reconciler.settings import policies, types
from reconciler.settings.check import Table, check, check_value, known_keys
from reconciler.settings.environment import ENVIRONMENT, from_environment, put
from reconciler.settings.files import Places, normalised, read_table
from reconciler.settings.instances import keys_of, places_of
from reconciler.settings.problems import Problem, SettingsError, below
from reconciler.settings.rules import shadowed
from reconciler.settings.schema import Settings

DEFAULT: Final = "default"
COMMAND_LINE: Final = "command line"


class Flag(msgspec.Struct, frozen=True):
    """An option of the command line that sets a key.

    Attributes:
        option: As it is typed, ``--state``.
        key: The dotted key.
        value: As a file would say it.
    """

    option: str
    key: str
    value: str | bool | int


class Loaded(msgspec.Struct, frozen=True):
    """A configuration in force.

    Attributes:
        settings: The values.
        layout: Where containerd keeps its things.
        origins: For every key, and every rule as ``rule."name"``, where it comes from.
        hints: Spellings that were accepted and should be changed, in words.
        files: The files that were read, the strongest last.
        compared: Whether every two rules were compared, to find those that never apply.
    """

    settings: Settings
    layout: Layout
    origins: Mapping[str, str]
    hints: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    compared: bool = True

    def policies(self, *, volatile: bool = True) -> Policies:
        """What may be removed, and when; ``volatile`` if a reboot empties the state tree."""
        return policies.policies(self.settings, volatile=volatile)


class _Layer(msgspec.Struct, frozen=True):
    """One layer: its table, and who says what."""

    where: str
    table: Table
    origins: Mapping[str, str]


def load(
    config: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    flags: Iterable[Flag] = (),
    instance: str = "",
    places: Places | None = None,
) -> Loaded:
    """Read and join all layers.

    Args:
        config: Read only this file, and not those at the usual places.
        environ: The environment.
        flags: What the command line sets.
        instance: The name of one of several containerds; empty for the usual one.
        places: Where files lie; None for where this instance's do.

    Raises:
        SettingsError: Anything is wrong anywhere.
    """
    if places is None:
        places = places_of(instance)
    files = places.present() if config is None else [config]
    layers = [_named(instance)]
    hints: list[str] = []
    problems: list[Problem] = []
    for path in files:
        try:
            table, said = normalised(read_table(path))
        except SettingsError as error:
            problems += error.problems
            continue
        hints += [f"{path}: {hint}" for hint in said]
        problems += check(table, path)
        layers.append(_Layer(path, table, dict.fromkeys(known_keys(), path)))
    from_outside, wrong = from_environment(environ)
    problems += wrong
    layers.append(_outside(ENVIRONMENT, from_outside))
    chosen = {flag.key: (flag.option, flag.value) for flag in flags}
    problems += _wrong_flags(chosen)
    layers.append(_outside(COMMAND_LINE, chosen))
    if problems:
        raise SettingsError(problems)
    return _joined(layers, tuple(hints), tuple(files))


def _named(instance: str) -> _Layer:
    """Make the weakest layer: what the name of an instance says, nothing for the usual one."""
    where = f"instance {instance}"
    said = keys_of(instance) if instance else {}
    return _outside(where, {key: (where, value) for key, value in said.items()})


def _outside(where: str, said: Mapping[str, tuple[str, object]]) -> _Layer:
    table: Table = {}
    for key, (_, value) in said.items():
        put(table, key, value)
    return _Layer(where, table, {key: name for key, (name, _) in said.items()})


def _wrong_flags(chosen: Mapping[str, tuple[str, object]]) -> list[Problem]:
    keys = known_keys()
    wrong: list[Problem] = []
    for key, (option, value) in chosen.items():
        wrong += check_value(value, keys[key], COMMAND_LINE, option)
    return wrong


def _joined(layers: list[_Layer], hints: tuple[str, ...], files: tuple[str, ...]) -> Loaded:
    table: Table = {}
    origins = dict.fromkeys(known_keys(), DEFAULT)
    for layer in layers:
        _merge(table, layer.table)
        origins |= {key: who for key, who in layer.origins.items() if _says(layer.table, key)}
    rules: list[object] = []
    problems: list[Problem] = []
    for layer in reversed(layers):
        here: set[str] = set()
        for name, rule in _rules(layer.table):
            key = below("rule", name)
            if name in here:
                problems.append(
                    Problem(layer.where, key, "is there twice", "names tell them apart")
                )
            here.add(name)
            if key not in origins:
                origins[key] = layer.where
                rules.append(rule)
    settings = msgspec.convert({**table, "rule": rules}, Settings)
    shadows = shadowed(settings.rule)
    for keys, reason, hint in policies.contradictions(settings, shadows, layers[-1].origins):
        where = next((origins[key] for key in keys if origins[key] != DEFAULT), DEFAULT)
        problems.append(Problem(where, keys[0], reason, hint))
    if problems:
        raise SettingsError(problems)
    hints += tuple(f"{origins[key]}: {key}: {note}" for key, note in policies.notes(shadows))
    layout = _layout(settings, layers)
    said, address = settings.containerd, os.fsdecode(layout.address)
    if types.socket(said.address) != address:  # so that what is shown is what is in force
        origins["containerd.address"] = f"follows containerd.state, {origins['containerd.state']}"
        said = msgspec.structs.replace(said, address=address)
        settings = msgspec.structs.replace(settings, containerd=said)
    return Loaded(settings, layout, origins, hints, files, compared=shadows.complete)


def _layout(settings: Settings, layers: list[_Layer]) -> Layout:
    """Say where things are; a state directory that is moved takes the socket along.

    Unless an address is said where the state is said, or later: the containerd at the usual place
    knows nothing about another one's tasks, and its "not listed" would be taken for a proof.
    """
    said = settings.containerd
    state, address = os.fsencode(types.tree(said.state)), os.fsencode(types.socket(said.address))
    named = layers[0].table.get("containerd", {})
    usual = named.get("address") if isinstance(named, dict) else None
    if state != DEFAULT_STATE and address in {DEFAULT_ADDRESS, os.fsencode(usual or "")}:
        moved = _strength(layers, "containerd.state")
        if _strength(layers, "containerd.address") < moved:
            address = state + b"/containerd.sock"
    return Layout(
        state=state,
        root=os.fsencode(types.tree(said.root)),
        address=address,
        runc_shims=types.shim_names(said.runc_shims),
    )


def _strength(layers: list[_Layer], key: str) -> int:
    """Count the layers up to the strongest that says a key; 0 if none does."""
    saying = (number for number, layer in enumerate(layers, 1) if _says(layer.table, key))
    return max(saying, default=0)


def _merge(table: Table, stronger: Table) -> None:
    for name, value in stronger.items():
        inner = table.get(name)
        if isinstance(value, dict) and isinstance(inner, dict):
            _merge(inner, value)
        elif isinstance(value, dict):
            fresh: Table = {}
            _merge(fresh, value)
            table[name] = fresh
        else:
            table[name] = value


def _says(table: object, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def _rules(table: Table) -> Iterator[tuple[str, Table]]:
    rules = table.get("rule", [])
    if isinstance(rules, list):
        yield from ((rule["name"], rule) for rule in rules)
