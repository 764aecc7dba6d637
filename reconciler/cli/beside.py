"""Beside a daemon: what `scan`, `explain` and `clean` take over from the one that runs here.

They look by themselves, so that what they say is so now. Since when a leftover waits, what was
tried, and what holds everything back, the daemon alone knows; without one nobody does, and due
times begin with the command. A daemon of another state directory says nothing about this one.
"""

import os
from collections.abc import Iterable
from dataclasses import replace

from msgspec import structs

from reconciler.cli.output import Output
from reconciler.cli.work import Found
from reconciler.decide.views import BundleView
from reconciler.errors import NoDaemonError, ReconcilerError
from reconciler.model.decisions import Phase
from reconciler.model.ids import BundleKey, escape
from reconciler.present import words
from reconciler.present.beliefs import Belief, Beliefs
from reconciler.setup import Setup


def ask_daemon(setup: Setup, output: Output, keys: Iterable[BundleKey] = ()) -> Beliefs | None:
    """Ask the daemon of this state directory; None if there is none, or none that we may ask."""
    if not setup.socket or not os.path.exists(setup.socket):
        return None
    from reconciler.cli.asking import Daemon

    try:
        told = Daemon(setup.socket).beliefs(keys)
    except (NoDaemonError, PermissionError):
        return None
    except ReconcilerError as error:
        output.complain(str(error))
        return None
    return told if told.state == escape(setup.layout.state) else None


def say_whose(told: Beliefs | None, output: Output) -> None:
    """Say whose phases and due times are shown."""
    if told is None:
        output.say("no daemon: due times start now")
        return
    held = f"; held: {told.hold}" if told.hold else ""
    output.say(f"phases and due times as the daemon (pid {told.pid}, {told.mode}) sees them{held}")


def as_believed(found: Found, told: Beliefs | None) -> Found:
    """Give what was found with the daemon's phases, where it sees the same."""
    if told is None:
        return found
    beliefs = {one.key: one for one in told.bundles}
    views = tuple([_believed(view, beliefs.get(view.key)) for view in found.views])
    return structs.replace(found, views=views)


def _believed(view: BundleView, belief: Belief | None) -> BundleView:
    """Join a look of ours with the daemon's belief.

    1. Both see nothing that would ever be removed.
    2. Both see the same.
    3. They see something else: one of the two looks is older. Nothing is known of when.
    """
    if belief is None and view.phase is Phase.NONE:
        return view
    if belief is None or belief.verdict != view.judgement.verdict.value:
        sees = "does not know it yet" if belief is None else f"sees it as {belief.verdict}"
        return replace(view, cause=f"the daemon {sees}", due_in_seconds=None)
    return replace(
        view,
        phase=belief.phase,
        cause=belief.cause,
        policy=belief.policy,
        enforce=belief.enforce,
        due_in_seconds=belief.due_in_seconds,
        attempts=belief.attempts,
    )


def history(told: Beliefs | None, key: BundleKey, wall: float) -> str:
    """Say what came of the daemon's last attempt on a bundle; empty if it tells of none."""
    for one in [] if told is None else told.recent:
        result = one.result
        if (result.namespace, result.id) == key:
            who = words.holders(result.holders)
            by = f", held by {who}" if who else ""
            when = words.age(max(0.0, wall - one.at))
            why = result.detail or result.reason
            return f"{result.result} {when} ago{f': {why}' if why else ''}{by}"
    return ""
