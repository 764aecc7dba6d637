"""`config`: what the configuration says, whether it can be meant, and where a value comes from."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click
from typing_extensions import override

from reconciler.cli.completing import bundles, files
from reconciler.cli.globals import Form, Globals
from reconciler.cli.options import Command
from reconciler.cli.output import Output, envelope
from reconciler.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from reconciler.model.ids import BundleKey
    from reconciler.model.observations import Listed
    from reconciler.settings.load import Loaded
    from reconciler.settings.problems import Problem


class Group(Command, click.Group):
    """Takes the options of every command too."""

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # click cuts what a command does after so many letters, whatever the window's width.
        whole = [(name, one.get_short_help_str(10_000)) for name, one in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(whole))


@click.group(cls=Group, name="config")
def config() -> None:
    """Check, show and describe the configuration; nothing is started."""


@config.command(cls=Command, name="check")
@click.argument("file", metavar="[FILE]", required=False, shell_complete=files)
@click.pass_obj
def check(said: Globals, *, file: str | None) -> int:
    """Say everything that is wrong, a line each; exits with 78 if anything is.

    With FILE that file alone is read, as with --config FILE. What can be meant and does nothing,
    like a rule for a namespace that is not there now, is noted.
    """
    from reconciler.cli.setup import load_layers
    from reconciler.settings.problems import SettingsError

    if file is not None:
        if said.config not in (None, file):
            raise UsageError(f"both {file} and --config {said.config} are named", "name one")
        said = said._replace(config=file)
    output = Output(quiet=said.quiet)
    try:
        loaded = load_layers(said)
    except SettingsError as error:
        if said.form is Form.JSON:
            return _checked(error.problems, (), (), output)
        for problem in error.problems:
            output.complain(str(problem))
        return ExitCode.CONFIG
    notes = list(_unmatched(loaded))
    if not loaded.compared:
        notes.append("not every two rules could be compared; one may never apply")
    if said.form is Form.JSON:
        return _checked((), (*loaded.hints, *notes), loaded.files, output)
    for hint in loaded.hints:
        output.complain(hint)
    for note in notes:
        output.say(f"note: {note}")
    output.say(f"nothing is wrong with {', '.join(loaded.files) or 'the defaults'}")
    return ExitCode.DONE


def _checked(
    problems: "Sequence[Problem]", notes: "Sequence[str]", files: "Sequence[str]", output: Output
) -> int:
    from reconciler.present.configuration import checked
    from reconciler.present.envelope import encode

    output.json(encode(checked(problems, notes, files, envelope())))
    return ExitCode.CONFIG if problems else ExitCode.DONE


def _unmatched(loaded: "Loaded") -> Iterator[str]:
    """Say which rules are for namespaces that are not there now; nothing where none can be seen."""
    from reconciler.model.ids import escape
    from reconciler.settings.problems import below

    try:
        there = sorted(escape(name) for name in os.listdir(loaded.layout.tasks))
    except OSError:
        return
    for rule in loaded.settings.rule:
        glob = rule.match.namespace
        if glob is not None and there and not any(fnmatchcase(one, glob) for one in there):
            key = below("rule", rule.name)
            yield f'{key}: no namespace fits "{glob}" now; there are {", ".join(there)}'


@config.command(cls=Command, name="test")
@click.argument("bundle", metavar="[NAMESPACE/]ID", shell_complete=bundles)
@click.pass_obj
def test(said: Globals, *, bundle: str) -> int:
    """Say which rule applies to a bundle, and why, from its real labels.

    With --config FILE the rules of that file are asked. An ID, or the beginning of one, will do
    where only one bundle has it.
    """
    from reconciler.cli.checks import check_listing, check_state
    from reconciler.cli.selection import known_of, labels_of, parse_name
    from reconciler.cli.session import look_at
    from reconciler.cli.setup import make_setup
    from reconciler.errors import ReconcilerError
    from reconciler.present import configuration
    from reconciler.present.envelope import encode

    asked = parse_name(bundle)
    setup = make_setup(said, without_containerd=True)  # whether it lives is another question
    check_state(setup.layout)

    def choose(listed: "Listed") -> "BundleKey":
        check_listing(listed, setup.layout)
        return asked.the_one([seen.key for seen in listed.bundles])

    key, found = look_at(setup, choose)
    view = next((view for view in found.views if view.key == key), None)
    if view is None:
        raise ReconcilerError(f"{key} went away while it was looked at")
    known = known_of(view, labels_of(found.views))
    shown = configuration.policy_test(key, known, setup.policies, envelope(found.stamp.wall))
    output = Output(quiet=said.quiet)
    if said.form is Form.JSON:
        output.json(encode(shown))
        return ExitCode.DONE
    output.data(configuration.sentences(shown))
    if shown.rules:
        output.data("\n")
        output.table(configuration.rules_table(shown))
    return ExitCode.DONE


@config.command(cls=Command, name="show")
@click.option("--origin", is_flag=True, help="Say of each value where it comes from.")
@click.pass_obj
def show(said: Globals, *, origin: bool) -> int:
    """Show every value in force, files, environment and options joined."""
    from reconciler.cli.setup import load_layers
    from reconciler.settings.show import shown

    output = Output(quiet=said.quiet)
    loaded = load_layers(said)
    values = shown(loaded)
    if said.form is Form.JSON:
        from reconciler.present.configuration import configuration
        from reconciler.present.envelope import encode

        output.json(encode(configuration(values, loaded.files, envelope())))
        return ExitCode.DONE
    width = max(len(f"{one.key} = {one.text}") for one in values)
    for one in values:
        line = f"{one.key} = {one.text}"
        output.data(f"{line.ljust(width)}  # {one.origin}\n" if origin else f"{line}\n")
    return ExitCode.DONE


@config.command(cls=Command, name="schema")
@click.pass_obj
def schema(said: Globals) -> int:
    """Print the JSON Schema of a configuration file, for editors."""
    from reconciler.settings.schema import json_schema

    Output(quiet=said.quiet).data(json_schema().decode() + "\n")
    return ExitCode.DONE
