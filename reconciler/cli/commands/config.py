"""`config`: what the configuration says, whether it can be meant, and where a value comes from."""

import click

from reconciler.cli.options import Command, Form, Globals
from reconciler.cli.output import Output, envelope
from reconciler.errors import ExitCode


class Group(Command, click.Group):
    """Takes the options of every command too."""


@click.group(cls=Group, name="config")
def config() -> None:
    """Check, show and describe the configuration; nothing is started."""


@config.command(cls=Command, name="check")
@click.pass_obj
def check(said: Globals) -> int:
    """Say everything that is wrong, a line each; exits with 78 if anything is."""
    from reconciler.cli.setup import load_layers
    from reconciler.settings.problems import SettingsError

    output = Output(quiet=said.quiet)
    try:
        loaded = load_layers(said)
    except SettingsError as error:
        for problem in error.problems:
            output.complain(str(problem))
        return ExitCode.CONFIG
    for hint in loaded.hints:
        output.complain(hint)
    output.say(f"nothing is wrong with {', '.join(loaded.files) or 'the defaults'}")
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
