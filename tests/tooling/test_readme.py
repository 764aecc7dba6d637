"""The README's tables say what the code says."""

import re
from pathlib import Path

import click
import msgspec

from reconciler.cli.app import COMMANDS, app
from reconciler.cli.options import global_options
from reconciler.decide.engine import Engine
from reconciler.decide.policy import Policies
from reconciler.decide.verdicts import RULES
from reconciler.demo.cast import cast
from reconciler.errors import ExitCode
from reconciler.probe.privileges import PARENT, WORKER
from reconciler.settings import schema
from reconciler.settings.check import known_keys
from reconciler.telemetry.metrics import Metrics
from tests.daemon.test_endpoints import PROMISED
from tests.support.clock import VirtualClock

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


def test_every_key_is_there_with_its_default() -> None:
    rows = {
        code(key)[0]: "".join(code(value)) for key, value, _ in table("key", "default", "meaning")
    }
    plain = msgspec.to_builtins(schema.Settings())
    for key in known_keys():
        found: object = plain
        for part in key.split("."):
            assert isinstance(found, dict)
            found = found[part]
        name = re.sub(r"^debris\.[^.]+", "debris.KIND", key)
        assert rows[name] == (str(found).lower() if isinstance(found, bool) else str(found)), key
    known = {re.sub(r"^debris\.[^.]+", "debris.KIND", key) for key in known_keys()}
    assert rows.keys() == known


def test_every_metric_is_there_with_its_labels() -> None:
    text = Metrics(Engine(Policies()), VirtualClock()).render().decode()
    names = set(re.findall(r"^# TYPE containerd_reconciler_(\S+) ", text, re.MULTILINE))
    rows = {
        code(name)[0]: set(code(labels)) for name, labels, _ in table("metric", "labels", "meaning")
    }
    assert rows.keys() == {name for name in names if not name.endswith("_created")}
    for name, labels in PROMISED.items():
        assert rows[name.removesuffix("_count")] == labels, name


def test_the_output_of_the_demo_is_that_of_the_demo() -> None:
    for role in cast():
        row = re.search(rf"^{role.key} +{re.escape(role.story)} +(.*?) +yes$", README, re.MULTILINE)
        assert row is not None, role
        assert row[1] == role.promise.value
