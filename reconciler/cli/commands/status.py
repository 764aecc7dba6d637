"""`status`: asks the running daemon over its unix socket."""

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from reconciler.cli.completing import files, full_names
from reconciler.cli.globals import Form, Globals
from reconciler.cli.list_options import Listing, list_options, said_of_list
from reconciler.cli.option_types import name
from reconciler.cli.options import Command
from reconciler.cli.output import Output
from reconciler.errors import ExitCode, NoDaemonError, ReconcilerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.cli.daemon_client import Daemon
    from reconciler.model.ids import BundleKey
    from reconciler.present.status import Status

_INTERVAL = 1.0


@click.command(cls=Command, name="status", params=list_options())
@click.option(
    "-w", "--watch", is_flag=True, help="Show it live until Ctrl-C; -o json: a line each second."
)
@click.option("--reload", is_flag=True, help="Let it load its configuration anew, and wait.")
@click.argument(
    "bundles", metavar="[NAMESPACE/ID|ID-PREFIX]...", nargs=-1, shell_complete=full_names
)
@click.option("--clean", is_flag=True, help="Let it clean these bundles now, if they are due.")
@click.option("--release", is_flag=True, help="Let it release the brake that holds everything.")
@click.option(
    "--npd", is_flag=True, help="One line and 0, 1 or 2, as node-problem-detector wants it."
)
@click.option(
    "--socket", metavar="PATH", shell_complete=files, help="The daemon's socket.  [http.socket]"
)
@click.pass_obj
def status(  # noqa: PLR0913 - the options
    said: Globals,
    *,
    bundles: tuple[str, ...],
    watch: bool,
    reload: bool,
    clean: bool,
    release: bool,
    npd: bool,
    socket: str | None,
) -> int:
    """Show what the running daemon sees and does. Exits with 3 where none runs.

    --clean has it remove the leftovers that are named without waiting any longer. It looks twice
    all the same, and keeps to its guards, policies and brakes.
    """
    from reconciler.cli.daemon_client import Daemon

    listing = said_of_list()
    output = Output(quiet=said.quiet, whole=listing.whole)
    orders = {
        "--watch": watch,
        "--reload": reload,
        "--clean": clean,
        "--release": release,
        "--npd": npd,
    }
    given = [name for name, is_given in orders.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together", "use one of them")
    if clean is not bool(bundles):
        raise UsageError("--clean is for bundles", "name them as NAMESPACE/ID, after --clean")
    is_stream = watch and said.form is Form.JSON
    if watch and not output.on_terminal and not is_stream:
        raise UsageError("--watch needs a terminal", "add -o json, or leave it out")
    if npd:
        return _npd(said, socket, output)
    daemon = Daemon(_socket(said, output) if socket is None else socket)
    if reload:
        return _reload(daemon, output)
    if clean:
        return _clean(daemon, bundles, said, output)
    if release:
        return _release(daemon, output)
    if watch:
        return (_stream if is_stream else _watch)(daemon, said, listing, output)
    return _show(daemon, said, listing, output)


def _socket(said: Globals, output: Output) -> str:
    """Find the daemon's socket: a configuration that is wrong must not hide a running daemon.

    Nor one of another daemon: where none listens at its socket, the files beside the tree's lock
    may tell where one does.
    """
    from reconciler.cli.daemon_beliefs import working_on
    from reconciler.cli.setup import load_layers
    from reconciler.model.layout import DEFAULT_STATE, Layout
    from reconciler.settings.instances import keys_of
    from reconciler.settings.problems import SettingsError
    from reconciler.settings.schema import Http
    from reconciler.setup import Setup, setup_from

    trouble = ""
    try:
        setup = setup_from(load_layers(said))
    except SettingsError as error:
        trouble = str(error)
        named = keys_of(said.instance) if said.instance else {}
        usual = named.get("containerd.state", os.fsdecode(DEFAULT_STATE))
        state = os.path.abspath(said.state or usual)
        socket = named.get("http.socket", Http().socket)
        setup = Setup(Layout(state=os.fsencode(state)), socket=socket)
    path = setup.socket
    if not os.path.exists(path):
        path = next((one.socket for one in working_on(setup) if one.socket), path)
    if trouble:
        output.complain(f"{trouble}; the daemon is looked for at {path}")
    if not path:
        raise NoDaemonError("http.socket is empty, so no daemon can be asked", "set it")
    return path


def _reload(daemon: "Daemon", output: Output) -> int:
    refused, lines = daemon.reload()
    if refused:
        output.complain(f"refused, the old configuration stays in force: {refused}")
        return ExitCode.CONFIG
    for line in lines:
        output.say(line)
    output.say("the configuration was loaded")
    return ExitCode.DONE


def _clean(daemon: "Daemon", typed: "Sequence[str]", said: Globals, output: Output) -> int:
    from reconciler.present import formatting

    reply = daemon.clean(_meant(daemon, typed, said))
    for one in reply.bundles:
        what = formatting.name(one)
        if one.refused:
            output.complain(f"{what} is not cleaned: {one.refused}")
        else:
            output.say(f"{what} is due now for the daemon (pid {reply.pid})")
    if reply.hold:
        output.complain(f"the daemon is held: {reply.hold}")
        return ExitCode.BLOCKED
    return ExitCode.ERROR if any(one.refused for one in reply.bundles) else ExitCode.DONE


def _meant(daemon: "Daemon", typed: "Sequence[str]", said: Globals) -> "list[BundleKey]":
    """Find the bundles that are meant; of what is written whole the daemon knows best.

    Raises:
        ReconcilerError: Something is the beginning of several names, or of none.
    """
    from reconciler.cli.selection import Name, parse_name
    from reconciler.model.ids import TASK_TREE, BundleKey

    asked: list[Name] = []
    for text in typed:
        one = parse_name(text)
        alone = said.namespace[0] if len(said.namespace) == 1 else None
        asked.append(one if one.namespace or alone is None else Name(name(alone), one.id))
    known, keys = _known(daemon), list[BundleKey]()
    for one in asked:
        if one.namespace is not None and not one.among(known):
            keys.append(BundleKey(one.namespace, one.id, one.tree or TASK_TREE))
        else:
            keys.append(one.the_one(known))
    return keys


def _known(daemon: "Daemon") -> "set[BundleKey]":
    """Name the bundles that there are: what the daemon tells of, and what lies in its tree."""
    from reconciler.model.ids import SANDBOX_TREE, TASK_TREE, BundleKey, escape, unescape
    from reconciler.model.layout import Layout

    told = daemon.beliefs()
    known = {one.key for one in told.bundles}
    layout = Layout(state=unescape(told.state))
    for tree in (TASK_TREE, SANDBOX_TREE):
        top = layout.tree(tree)
        with suppress(OSError):  # it may see another tree than we do
            for namespace in os.listdir(top):
                with suppress(OSError):
                    ids = os.listdir(os.path.join(top, namespace))
                    known |= {BundleKey(escape(namespace), escape(id_), tree) for id_ in ids}
    return known


def _release(daemon: "Daemon", output: Output) -> int:
    reply = daemon.release()
    if reply.released:
        output.say(f"the daemon (pid {reply.pid}) has released: {reply.released}")
    if reply.hold and reply.released:
        output.say(f"it went on, and is held again: {reply.hold}")
        return ExitCode.DONE
    if reply.hold:
        output.complain(f"the daemon (pid {reply.pid}) is still held: {reply.hold}")
        return ExitCode.BLOCKED
    output.say(f"nothing holds the daemon (pid {reply.pid}) now")
    return ExitCode.DONE


def _npd(said: Globals, socket: str | None, output: Output) -> int:
    """Answer as a plugin of node-problem-detector: whoever gives no answer is not well or ill."""
    from reconciler.cli.daemon_client import Daemon
    from reconciler.present import status_text

    try:
        whole, _ = Daemon(_socket(said, output) if socket is None else socket).status()
    except (ReconcilerError, OSError) as error:
        answer = status_text.detector_unknown(str(error))
    else:
        answer = status_text.detector_answer(whole)
    output.prose(answer.line)
    return answer.state


def _show(daemon: "Daemon", said: Globals, listing: Listing, output: Output) -> int:
    import msgspec

    from reconciler.present import rows, status_text
    from reconciler.present.envelope import encode

    whole, raw = daemon.status()
    is_table = said.form in (Form.TABLE, Form.WIDE)
    for line in () if is_table else status_text.blindness(whole):
        output.complain(line)
    _check_namespaces(whole, said, output)
    shown = listing.of_status(whole, said.namespace)
    match said.form:
        case Form.JSON:
            asked = msgspec.json.format(raw, indent=2).decode() + "\n"
            output.json(asked if shown is whole else encode(shown))
        case Form.NAME:
            output.data(rows.names(shown.bundles))
        case Form.TABLE | Form.WIDE:
            for line in status_text.lines(shown, blindness_first=True):
                output.prose(line)
            for table in status_text.tables(shown, wide=said.form is Form.WIDE):
                output.data("\n")
                listing.write(table, output)
    return ExitCode.DONE


def _stream(daemon: "Daemon", said: Globals, listing: Listing, output: Output) -> int:
    """Print the status each second, one line each; says once that the daemon is gone."""
    from threading import Event

    from reconciler.cli.garbage import collect_from_now_on
    from reconciler.present.formatting import to_json

    def narrowed(whole: "Status", raw: bytes) -> bytes:
        shown = listing.of_status(whole, said.namespace)
        return raw if shown is whole else to_json(shown)

    collect_from_now_on()
    pause = Event()
    whole, raw = daemon.status()
    _check_namespaces(whole, said, output)
    line, missed = narrowed(whole, raw), ""
    try:
        while True:
            if line:
                output.json(f"{line.decode()}\n")
                output.flush()
            pause.wait(_INTERVAL)
            try:
                line, missed = narrowed(*daemon.status()), ""
            except NoDaemonError as error:
                if not missed:
                    output.complain(str(error))
                line, missed = b"", str(error)
    except KeyboardInterrupt:
        return ExitCode.DONE


def _check_namespaces(shown: "Status", said: Globals, output: Output) -> None:
    """Raise if a namespace that is asked for does not exist where the daemon looks."""
    from reconciler.cli.checks import check_namespaces
    from reconciler.model.ids import unescape
    from reconciler.model.layout import Layout

    if said.namespace:
        names = frozenset(map(name, said.namespace))
        check_namespaces(Layout(state=unescape(shown.state)), names, output)


def _watch(daemon: "Daemon", said: Globals, listing: Listing, output: Output) -> int:
    from threading import Event

    from rich.live import Live

    from reconciler.cli.garbage import collect_from_now_on
    from reconciler.cli.live_status import StatusView

    def ask() -> StatusView:
        whole, _ = daemon.status()
        shown = listing.of_status(whole, said.namespace)
        return StatusView(shown, wide=said.form is Form.WIDE)

    collect_from_now_on()
    pause, view = Event(), ask()
    _check_namespaces(view.shown, said, output)
    try:
        with Live(view, console=output.console(), auto_refresh=False) as live:
            while not pause.wait(_INTERVAL):
                try:
                    view = ask()
                except NoDaemonError as error:
                    view = replace(view, trouble=str(error))
                live.update(view, refresh=True)
    except KeyboardInterrupt:
        pass
    return ExitCode.DONE
