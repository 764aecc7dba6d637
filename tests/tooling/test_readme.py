"""The README's tables say what the code says."""

import re
from pathlib import Path

import click
import pytest

from reconciler.cli.app import COMMANDS, app
from reconciler.cli.options import global_options
from reconciler.decide.verdicts import RULES
from reconciler.demo.cast import CAST
from reconciler.errors import ExitCode
from reconciler.probe.privileges import PARENT, WORKER
from reconciler.settings import schema

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()

SECTIONS = [
    "What it will never do",
    "How it flows",
    "Two commands",
    "One minute on a real node",
    "Install",
    "Configuration",
    "How it decides",
    "Commands",
    "Metrics and alerts",
    "When something is odd",
    "Benchmarks",
    "Developing",
    "Licence",
]
"""The order; a section may be missing while there is nothing to say."""


def table(*heading: str) -> list[list[str]]:
    """Give the rows of the one table with these headings."""
    line = "| " + " | ".join(heading) + " |\n"
    assert README.count(line) == 1, heading
    rows = README.split(line)[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def options(command: click.Command) -> set[str]:
    """Name a command's own options, all spellings, and those of its subcommands."""
    if isinstance(command, click.Group):
        return set().union(*(options(one) for one in command.commands.values()))
    shared = {spelling for option in global_options() for spelling in option.opts}
    own = {s for param in command.params if isinstance(param, click.Option) for s in param.opts}
    return own - shared


def commands() -> dict[str, click.Command]:
    context = click.Context(app)
    found = {name: app.get_command(context, name) for name in COMMANDS}
    return {name: command for name, command in found.items() if command is not None}


def test_sections_are_in_the_agreed_order() -> None:
    found = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert found == [name for name in SECTIONS if name in found]


def test_every_exit_code_is_there_with_its_meaning() -> None:
    rows = [(int(number), meaning) for number, meaning in table("exit code", "meaning")]
    assert rows == [(number.value, number.meaning) for number in ExitCode]


def test_every_rule_is_there_with_its_verdict() -> None:
    rows = [
        (int(number), code(verdict)) for number, verdict, _ in table("rule", "verdict", "fits if")
    ]
    assert rows == [(rule.number, [rule.verdict.value]) for rule in RULES]


def test_every_capability_is_there_with_its_reason() -> None:
    rows = [(who, code(name), why) for who, name, why in table("process", "holds", "to")]
    holders = {"worker": WORKER, "daemon": PARENT}
    assert rows == [(who, [one.name], one.reason) for who, all_ in holders.items() for one in all_]


def test_every_command_is_there() -> None:
    assert [code(name) for name, _ in table("command", "does")] == [[name] for name in COMMANDS]


def test_every_global_option_is_there() -> None:
    rows = [tuple(word.split()[0] for word in code(cell)) for cell, _ in table("option", "meaning")]
    assert rows == [tuple(option.opts) for option in global_options()]


def test_every_option_of_a_command_is_there_and_no_other() -> None:
    told: dict[str, set[str]] = {name: set() for name in COMMANDS}
    for spellings, of, _ in table("option", "of", "meaning"):
        for name in code(of):
            told[name] |= {word.split()[0] for word in code(spellings)}
    assert told == {name: options(command) for name, command in commands().items()}


def keys(section: str) -> dict[str, object]:
    fields = getattr(schema, section.capitalize()).__struct_fields__
    default = getattr(schema.Settings(), section)
    return {f"{section}.{name}": getattr(default, name) for name in fields}


@pytest.mark.parametrize("section", ["containerd", "watch", "cleanup", "brake"])
def test_every_key_is_there_with_its_default(section: str) -> None:
    rows = {
        code(key)[0]: code(default)[0] for key, default, _ in table("key", "default", "meaning")
    }
    expected = {
        key: str(getattr(value, "value", value)).replace("True", "true").replace("False", "false")
        for key, value in keys(section).items()
    }
    assert {key: rows[key] for key in rows if key.startswith(f"{section}.")} == expected
    assert rows["mode"] == schema.Settings().mode.value


def test_the_output_of_the_demo_is_that_of_the_demo() -> None:
    for role in CAST:
        row = re.search(rf"^{role.key} +{re.escape(role.story)} +(.*?) +yes$", README, re.MULTILINE)
        assert row is not None, role
        assert row[1] == role.promise.value
