"""From words to a setup: all layers of the configuration and the options as one value.

The order is the promise: what is said on the command line wins over the environment, which wins
over the files, which win over the defaults (:mod:`reconciler.settings.load`).
"""

import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from reconciler.cli.globals import Globals
from reconciler.cli.option_types import name
from reconciler.cli.output import Output
from reconciler.errors import UsageError
from reconciler.settings import instances
from reconciler.settings.load import COMMAND_LINE, Flag, Loaded, load
from reconciler.settings.problems import SettingsError
from reconciler.settings.schema import Mode
from reconciler.settings.units import parse_duration

if TYPE_CHECKING:
    from reconciler.setup import Setup
    from reconciler.worker.client import ForkServerClient

_UNIX: Final = "unix://"


class Changes(msgspec.Struct, frozen=True):
    """What one command's own options say; None leaves it to the configuration.

    Attributes:
        enforce: Whether leftovers are removed.
        grace, threshold, settle: Durations as they were typed. No rule and no budget of a file
            makes the first two shorter.
        backend: How to watch.
        logs: Standard error takes log lines where it is no terminal, and nothing else then.
        once: A single pass: then the brake on the rate would only leave work undone.
    """

    enforce: bool | None = None
    grace: str | None = None
    threshold: str | None = None
    settle: str | None = None
    backend: str | None = None
    once: bool = False
    logs: bool = False


NO_CHANGES: Final = Changes()


def make_setup(
    said: Globals,
    changes: Changes = NO_CHANGES,
    *,
    without_containerd: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> "Setup":
    """Join options, environment, files and defaults.

    Raises:
        UsageError: An option's value that cannot be meant.
        SettingsError: The same of a file or the environment.
    """
    # Here, because those that only load the configuration start without it.
    from reconciler.setup import setup_from

    loaded = load_layers(said, changes, environ=environ)
    is_log = changes.logs and not sys.stderr.isatty()
    output = Output(quiet=said.quiet or is_log)
    for hint in loaded.hints:
        output.say(f"containerd-reconciler: {hint}")
    if said.verbose:
        files = ", ".join(loaded.files) or "no file"
        output.say(f"containerd-reconciler: configuration: {files}")
    setup = setup_from(loaded)
    policies = setup.policies.at_least(
        grace=_seconds(changes.grace), threshold=_seconds(changes.threshold)
    )
    if changes.once:
        policies = replace(policies, brakes=replace(policies.brakes, max_per_minute=None))
    namespaces = frozenset(map(name, said.namespace))
    return replace(
        setup, policies=policies, without_containerd=without_containerd, namespaces=namespaces
    )


def _seconds(typed: str | None) -> float | None:
    return None if typed is None else parse_duration(typed)


def start_fork_server(setup: "Setup") -> "ForkServerClient":
    """Start the fork server: it loads what workers need while we load the rest.

    It ends when its client is closed, or we end, however that comes.
    """
    from reconciler.worker.client import ForkServerClient
    from reconciler.worker.messages import WorkerScope

    return ForkServerClient(WorkerScope(setup.layout))


def load_layers(
    said: Globals, changes: Changes = NO_CHANGES, *, environ: Mapping[str, str] = os.environ
) -> Loaded:
    """Read all layers of the configuration, the options last.

    Raises:
        UsageError: An option's value that cannot be meant.
        SettingsError: The same of a file or the environment.
    """
    instance = check_instance(said.instance)
    try:
        return load(said.config, environ=environ, flags=_flags(said, changes), instance=instance)
    except SettingsError as error:
        first = error.problems[0]
        if first.where == COMMAND_LINE:
            raise UsageError(f"{first.key}: {first.reason}", first.hint) from None
        raise


def check_instance(name: str | None) -> str:
    """Give the name of an instance, empty for the usual one.

    Raises:
        UsageError: It cannot be one.
    """
    try:
        return "" if name is None else instances.check_instance(name)
    except ValueError as error:
        raise UsageError(f"--instance {name!r}: {error}") from None


def _flags(said: Globals, changes: Changes) -> Iterator[Flag]:
    """Name the key of every option; a path may be relative, as paths on command lines are."""
    options = (
        ("--state", "containerd.state", _absolute(said.state)),
        ("--root", "containerd.root", _absolute(said.root)),
        ("--address", "containerd.address", _absolute(said.address)),
        ("--enforce", "mode", Mode.ENFORCE.value if changes.enforce else None),
        ("--grace", "cleanup.grace", changes.grace),
        ("--threshold", "cleanup.threshold", changes.threshold),
        ("--settle", "cleanup.settle", changes.settle),
        ("--backend", "watch.backend", changes.backend),
    )
    for option, key, value in options:
        if value is not None:
            yield Flag(option, key, value)


def _absolute(path: str | None) -> str | None:
    if not path:
        return path
    return os.path.abspath(path.removeprefix(_UNIX))
