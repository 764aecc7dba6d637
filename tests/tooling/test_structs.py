"""A struct and a dataclass are made alike and not the same, which no type checker knows."""

import dataclasses

import msgspec

from tests.tooling.test_tables import modules


def structs() -> list[type[msgspec.Struct]]:
    found = {
        one
        for module in modules()
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, msgspec.Struct)
    }
    return sorted(found, key=lambda one: (one.__module__, one.__name__))


def misplaced(kind: type[msgspec.Struct]) -> list[str]:
    """Name the fields whose default is the description of a dataclass's field."""
    fields = kind.__struct_fields__
    defaults = kind.__struct_defaults__
    pairs = zip(fields[len(fields) - len(defaults) :], defaults, strict=True)
    return [name for name, default in pairs if isinstance(default, dataclasses.Field)]


def test_no_struct_has_a_dataclass_field() -> None:
    kinds = structs()
    assert len(kinds) > 100
    assert [(one.__qualname__, misplaced(one)) for one in kinds if misplaced(one)] == []


def test_a_dataclass_field_in_a_struct_is_found() -> None:
    class Mixed(msgspec.Struct):
        good: list[int] = msgspec.field(default_factory=list)
        bad: list[int] = dataclasses.field(default_factory=list)

    assert misplaced(Mixed) == ["bad"]
