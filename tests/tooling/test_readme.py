"""The pages' tables say what the code says, and the README is short."""

import re
from pathlib import Path

import click

from reconciler.cli.app import COMMANDS, app
from reconciler.cli.options import global_options
from reconciler.decide.engine import Engine
from reconciler.decide.verdicts import RULES
from reconciler.demo.fixtures import fixtures
from reconciler.errors import ExitCode
from reconciler.model.policy import Policies
from reconciler.probe.privileges import PARENT, WORKER
from reconciler.telemetry.metrics import Metrics
from tests.daemon.test_endpoints import PROMISED
from tests.support.clock import VirtualClock

TOP = Path(__file__).resolve().parents[2]
README = (TOP / "README.md").read_text()
COMMANDS_PAGE = (TOP / "contrib" / "commands" / "README.md").read_text()
METRICS_PAGE = (TOP / "contrib" / "prometheus" / "README.md").read_text()
UNITS_PAGE = (TOP / "contrib" / "systemd" / "README.md").read_text()
LONGEST = 280

SECTIONS = [
    "Two commands",
    "Why trust it",
    "One minute on a real node",
    "Install",
    "A first configuration",
    "How it decides",
    "When something is odd",
    "Where everything else is",
    "Contributing",
    "Licence",
]


def table(page: str, *heading: str) -> list[list[str]]:
    """Give the rows of the one table of a page with these headings."""
    line = "| " + " | ".join(heading) + " |\n"
    assert page.count(line) == 1, heading
    rows = page.split(line)[1].split("\n\n")[0].splitlines()[1:]
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
    assert re.findall(r"^## (.+)$", README, re.MULTILINE) == SECTIONS


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) <= LONGEST


def test_every_page_that_is_linked_is_there() -> None:
    for page in [TOP / "README.md", *(TOP / "contrib").glob("*/README.md")]:
        for link in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text()):
            assert (page.parent / link).exists(), (page, link)


def test_every_exit_code_is_there_with_its_meaning() -> None:
    rows = [
        (int(number), meaning) for number, meaning in table(COMMANDS_PAGE, "exit code", "meaning")
    ]
    assert rows == [(number.value, number.meaning) for number in ExitCode]


def test_every_rule_is_there_with_its_verdict() -> None:
    rows = [
        (int(number), code(verdict))
        for number, verdict, _ in table(README, "rule", "verdict", "fits if")
    ]
    assert rows == [(rule.number, [rule.verdict.value]) for rule in RULES]


def test_every_capability_is_there_with_its_reason() -> None:
    rows = [
        (who, code(name), why) for who, name, why in table(UNITS_PAGE, "process", "holds", "to")
    ]
    holders = {"worker": WORKER, "daemon": PARENT}
    assert rows == [(who, [one.name], one.reason) for who, all_ in holders.items() for one in all_]


def test_every_command_is_there() -> None:
    assert [code(name) for name, _ in table(COMMANDS_PAGE, "command", "does")] == [
        [name] for name in COMMANDS
    ]


def test_every_global_option_is_there() -> None:
    rows = [
        tuple(word.split()[0] for word in code(cell))
        for cell, _ in table(COMMANDS_PAGE, "option", "meaning")
    ]
    assert rows == [tuple(option.opts) for option in global_options()]


def test_every_option_of_a_command_is_there_and_no_other() -> None:
    told: dict[str, set[str]] = {name: set() for name in COMMANDS}
    for spellings, of, _ in table(COMMANDS_PAGE, "option", "of", "meaning"):
        for name in code(of):
            told[name] |= {word.split()[0] for word in code(spellings)}
    assert told == {name: options(command) for name, command in commands().items()}


def test_every_metric_is_there_with_its_labels() -> None:
    text = Metrics(Engine(Policies()), VirtualClock()).render().decode()
    names = set(re.findall(r"^# TYPE containerd_reconciler_(\S+) ", text, re.MULTILINE))
    rows = {
        code(name)[0]: set(code(labels))
        for name, labels, _ in table(METRICS_PAGE, "metric", "labels", "meaning")
    }
    assert rows.keys() == {name for name in names if not name.endswith("_created")}
    for name, labels in PROMISED.items():
        assert rows[name.removesuffix("_count")] == labels, name


def test_the_output_of_the_demo_is_that_of_the_demo() -> None:
    for role in fixtures():
        row = re.search(rf"^{role.key} +{re.escape(role.story)} +(.*?) +yes$", README, re.MULTILINE)
        assert row is not None, role
        assert row[1] == role.promise.value
