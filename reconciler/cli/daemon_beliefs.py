"""Beside a daemon: what `scan`, `explain` and `clean` take over from the one that runs here.

They look by themselves, so that what they say is so now. Since when a leftover waits, what was
tried, and what holds everything back, the daemon alone knows; without one nobody does, and due
times begin with the command. A daemon of another state directory says nothing about this one.

It is asked where the configuration says, and else where the files beside the tree's lock say that
it listens: a daemon may have a configuration of its own.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from reconciler.cli.output import Output
from reconciler.cli.passes import Found
from reconciler.decide.debris_track import DebrisView
from reconciler.decide.views import BundleView
from reconciler.errors import NoDaemonError, ReconcilerError
from reconciler.model.debris import PlaceKey
from reconciler.model.decisions import Phase
from reconciler.model.ids import BundleKey, escape
from reconciler.present import formatting
from reconciler.present.beliefs import Belief, Beliefs, DebrisBelief
from reconciler.setup import Setup

if TYPE_CHECKING:
    from reconciler.cli.daemon_client import Daemon
    from reconciler.worker.lock import Listening


def ask_daemon(
    setup: Setup, output: Output, keys: Iterable[BundleKey] = (), place: PlaceKey | None = None
) -> Beliefs | None:
    """Ask the daemon of this state directory; None if there is none, or none that we may ask.

    Of these bundles, of this one piece of debris, or of all that has a phase.
    """
    keys = list(keys)

    def asks(daemon: "Daemon") -> Beliefs:
        return daemon.beliefs(keys) if place is None else daemon.beliefs_of(place)

    told = _ask(setup.socket, setup, output, asks)
    for one in working_on(setup) if told is None else ():
        if told is None and one.socket != setup.socket:
            told = _ask(one.socket, setup, output, asks)
    return told


def working_on(setup: Setup) -> "Iterator[Listening]":
    """Tell who works on the tree, as far as we may know; whoever acts first."""
    from reconciler.kernel import AT_FDCWD, statx
    from reconciler.worker.lock import directory, listening

    with suppress(OSError):
        tree = statx(AT_FDCWD, setup.layout.tasks)
        yield from listening(setup.locks or directory(os.environ), tree.dev, tree.ino)


def _ask(
    socket: str, setup: Setup, output: Output, asks: "Callable[[Daemon], Beliefs]"
) -> Beliefs | None:
    if not socket or not os.path.exists(socket):
        return None
    from reconciler.cli.daemon_client import Daemon

    try:
        told = asks(Daemon(socket))
    except (NoDaemonError, PermissionError):
        return None
    except ReconcilerError as error:
        output.complain(str(error))
        return None
    return told if told.state == escape(setup.layout.state) else None


def say_whose(told: Beliefs | None, output: Output, setup: Setup) -> None:
    """Say whose phases and due times are shown."""
    if told is None:
        for one in (one for one in working_on(setup) if one.is_known):
            who = f"pid {one.pid}" if one.pid else "another process"
            does = "acts on" if one.acts else "watches"
            where = f" on {one.socket}" if one.socket else ""
            output.say(f"{who} {does} this tree and gives no answer{where}: due times start now")
            return
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
    places = {one.key: one for one in told.debris}
    debris = tuple([believed_debris(view, places.get(view.place.key)) for view in found.debris])
    return structs.replace(found, views=views, debris=debris)


def _believed(view: BundleView, belief: Belief | None) -> BundleView:
    """Join a look of ours with the daemon's belief."""
    if belief is None:
        return _joined(view, None, "sees no leftover there yet")
    if belief.verdict != view.judgement.verdict.value:
        return _joined(view, belief, f"sees it as {belief.verdict}")
    return replace(_joined(view, belief, ""), enforce=belief.enforce)


_View = TypeVar("_View", BundleView, DebrisView)


def _joined(view: _View, belief: Belief | DebrisBelief | None, otherwise: str) -> _View:
    """Take over what the daemon believes, unless it sees something else: ``otherwise`` says what.

    1. Both see nothing that would ever be removed.
    2. They see something else: one of the two looks is older. Nothing is known of when.
    3. Both see the same.
    """
    if belief is None and view.phase is Phase.NONE:
        return view
    if belief is None or otherwise:
        return replace(view, cause=f"the daemon {otherwise}", due_in_seconds=None)
    return replace(
        view,
        phase=belief.phase,
        cause=belief.cause,
        policy=belief.policy,
        due_in_seconds=belief.due_in_seconds,
        attempts=belief.attempts,
    )


def agrees(view: DebrisView, belief: DebrisBelief) -> bool:
    """Return whether a daemon sees the same object in a place as we do, and as the same thing."""
    return _is_same(view, belief) and belief.verdict is view.verdict


def _is_same(view: DebrisView, belief: DebrisBelief) -> bool:
    """Return whether both mean the same object; mounts have other numbers where a daemon lives."""
    ours, its = view.place.identity, belief.identity
    return (ours.dev, ours.ino) == (its.dev, its.ino)


def believed_debris(view: DebrisView, belief: DebrisBelief | None) -> DebrisView:
    """Join what an inventory of ours found with the daemon's belief.

    What it sees may also be another object under the same name.
    """
    if belief is None:
        return _joined(view, None, "sees no debris there yet")
    if not _is_same(view, belief):
        return _joined(view, belief, "sees another object there")
    if belief.verdict is not view.verdict:
        return _joined(view, belief, f"sees it as {belief.verdict.value}")
    same = _joined(view, belief, "")
    return replace(same, objection=belief.objection, debris_for=belief.debris_for)


def history(told: Beliefs | None, key: BundleKey, wall: float) -> str:
    """Say what came of the daemon's last attempt on a bundle; empty if it tells of none."""
    for one in [] if told is None else told.recent:
        result = one.result
        if formatting.key_of(result) == key:
            who = formatting.holders(result.holders)
            by = f", held by {who}" if who else ""
            when = formatting.age(max(0.0, wall - one.at))
            why = result.detail or result.reason
            return f"{result.result} {when} ago{f': {why}' if why else ''}{by}"
    return ""
