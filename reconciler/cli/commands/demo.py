"""`demo`: the reconciler at work on a throw-away tree of real processes and files."""

import click

from reconciler.cli.globals import Globals
from reconciler.cli.option_types import duration
from reconciler.cli.options import Logging
from reconciler.cli.output import Output
from reconciler.clock import SystemClock
from reconciler.demo.node import DemoNode
from reconciler.demo.promises import Kept, PromiseListener, compare, pictures, run_story
from reconciler.errors import ExitCode, UsageError
from reconciler.loop import Loop
from reconciler.model.ids import escape
from reconciler.model.policy import Policies, Policy
from reconciler.present import formatting
from reconciler.present.table import Cell, Column, Table
from reconciler.settings.units import parse_duration
from reconciler.setup import Setup

_GRACE = 2.0
_LEAST = 2.0
_SETTLE = 3600.0
_SIGNALS = 128
"""Codes above tell of a signal, as a shell reports it."""


@click.command(cls=Logging, name="demo")
@click.option(
    "--seconds",
    callback=duration,
    metavar="DURATION",
    default="10s",
    show_default=True,
    help="How long it lasts.",
)
@click.option("--hold", is_flag=True, help="Go on until Ctrl-C.")
@click.pass_obj
def demo(said: Globals, *, seconds: str, hold: bool) -> int:
    """Show all of it on a throw-away tree; no containerd, no root needed.

    Live, stopped, orphaned and dead tasks are made of real processes and files in a temporary
    directory, and the reconciler is let loose on them. Half way a living task is killed. At the
    end nothing is left of it all, and what was promised of each bundle is checked.
    """
    lasts = parse_duration(seconds)
    if lasts < _LEAST:
        raise UsageError(f"--seconds {seconds} is too short", f"use {_LEAST:g}s or more")
    output = Output(quiet=said.quiet)
    with DemoNode(SystemClock().wall()) as node:
        listener = PromiseListener(node.fixtures)
        output.say(f"a tree of its own, without mounts and cgroups: {escape(node.top)}")
        if hold:
            output.say(f"look at it from another terminal: {_scan(node)}")
        before = pictures(node)
        code = _watch(said, node, listener, None if hold else lasts, output)
        is_ended = code > _SIGNALS
        if code not in (ExitCode.DONE, ExitCode.BLOCKED) and not is_ended:
            return code
        kept = list(compare(node, before, listener.verdicts))
    if is_ended:
        kept = [_pending(one, listener) for one in kept]
    gone = node.is_gone
    _report(kept, listener, output, gone=gone)
    if not gone or any(one.broken for one in kept):
        return ExitCode.ERROR
    if hold and code == ExitCode.INTERRUPTED:
        return ExitCode.DONE  # the way to end it
    return code if is_ended else ExitCode.DONE


def _scan(node: DemoNode) -> str:
    places = f"--state {escape(node.layout.state)} --root {escape(node.layout.root)}"
    return f"containerd-reconciler scan {places} --without-containerd"


def _pending(one: Kept, listener: PromiseListener) -> Kept:
    """Tell what is broken from what had no time to come true."""
    is_early = bool(one.broken) and listener.waits_for(one.fixture)
    return Kept(one.fixture, "", pending=True) if is_early else one


def _watch(
    said: Globals, node: DemoNode, listener: PromiseListener, seconds: float | None, output: Output
) -> int:
    from reconciler.cli.session import Foreground, watch

    policy = Policy(name="demo", enforce=True, grace=_GRACE, max_age=None, max_size=None)
    setup = Setup(
        layout=node.layout,
        policies=Policies(default=policy, settle=_SETTLE, node_max_size=None),
        without_containerd=True,
        allow_disk=True,
        own_tree=True,
        locks=node.top + b"/locks",
    )

    async def story(_loop: Loop) -> None:
        await run_story(node, listener, SystemClock(), seconds)

    how = Foreground(
        title="containerd-reconciler demo",
        verbose=said.verbose,
        story=story,
        listeners=(listener,),
    )
    return watch(setup, output, how)


def _report(kept: list[Kept], listener: PromiseListener, output: Output, *, gone: bool) -> None:
    what = Column("WHAT IT IS", gives_way=True)
    table = Table((Column("BUNDLE"), what, Column("PROMISED"), Column("KEPT", gives_way=True)))
    for one in kept:
        fault = Cell("not yet", "yellow") if one.pending else Cell("yes", "green")
        if one.broken:
            fault = Cell(f"no: {one.broken}", "bold red")
        fixture = one.fixture
        table.rows.append(
            [Cell(str(fixture.key)), Cell(fixture.story), Cell(fixture.promise.value), fault]
        )
    output.table(table)
    if listener.killed_at is not None and listener.noticed_at is not None:
        milliseconds = (listener.noticed_at - listener.killed_at) * 1000
        output.say(f"the victim's death was noticed after {milliseconds:.0f} ms")
    broken, pending = sum(bool(one.broken) for one in kept), sum(one.pending for one in kept)
    verdict = "every promise was kept"
    if broken:
        verdict = f"{formatting.plural(broken, 'promise')} broken"
    elif pending:
        verdict = f"no promise was broken, and {pending} had no time to come true"
    left = "the tree and its processes are gone" if gone else "SOMETHING IS LEFT"
    output.say(f"{verdict}; {left}")
