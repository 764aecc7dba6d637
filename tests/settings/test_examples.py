"""The files that are shipped say what the code does."""

import re
from pathlib import Path

import msgspec
import pytest
import tomli

from reconciler.model.layout import Layout
from reconciler.model.policy import Policies
from reconciler.settings.check import known_keys
from reconciler.settings.load import load
from reconciler.settings.schema import Settings, json_schema

CONFIG = Path(__file__).resolve().parents[2] / "config"
DEFAULT = CONFIG / "containerd-reconciler.toml"


def test_the_default_file_holds_every_key_with_its_default() -> None:
    said = tomli.loads(DEFAULT.read_text())
    expected = msgspec.to_builtins(Settings())
    assert expected.pop("rule") == ()
    assert said == expected


def test_the_default_file_has_one_line_for_each_key() -> None:
    lines = [line for line in DEFAULT.read_text().splitlines() if re.match(r"[a-z-_]+ = ", line)]
    assert len(lines) == len(known_keys())
    assert all("#" in line for line in lines), "each says what it is for"


def test_the_defaults_are_those_of_the_engine() -> None:
    loaded = load(str(DEFAULT), environ={})
    assert loaded.policies() == Policies()
    assert loaded.layout == Layout()
    assert loaded.settings == Settings()


def test_the_rule_in_the_comments_is_right(tmp_path: Path) -> None:
    text = DEFAULT.read_text()
    rule = text[text.index("# [[rule]]") :]
    path = tmp_path / "config.toml"
    path.write_text(re.sub(r"^# ?", "", rule, flags=re.MULTILINE))
    assert load(str(path), environ={}).policies().rules[0].policy.protect


@pytest.mark.parametrize(
    ("name", "protecting"),
    [("observe", 0), ("kubernetes", 1), ("k3s", 1)],
)
def test_an_example_is_right_and_removes_nothing(name: str, protecting: int) -> None:
    loaded = load(str(CONFIG / f"{name}.toml"), environ={})
    assert loaded.settings.mode.value == "observe"
    assert loaded.hints == ()
    assert sum(rule.policy.protect for rule in loaded.policies().rules) == protecting


class Document(msgspec.Struct):
    """As much of a JSON Schema as is looked at."""

    definitions: dict[str, dict[str, object]] = msgspec.field(name="$defs")


def test_the_schema_names_every_key_and_refuses_others() -> None:
    definitions = msgspec.json.decode(json_schema(), type=Document).definitions
    tables = [one for one in definitions.values() if one.get("type") == "object"]
    named = {name for one in tables for name in _properties(one)}
    assert {key.rpartition(".")[2] for key in known_keys()} <= named
    assert all(one["additionalProperties"] is False for one in tables)


def _properties(table: dict[str, object]) -> set[str]:
    found = table["properties"]
    assert isinstance(found, dict)
    return {*found}
