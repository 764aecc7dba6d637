"""Handing over: `clean` beside a daemon that acts on the same tree has the daemon remove it.

Two that remove from one tree would be in each other's way, so a guard refuses the second. Here the
second looks, shows its plan and asks; what it was told to remove it asks the daemon for, which
looks twice, and keeps to its own guards, policies and brakes.
"""

from collections.abc import Sequence
from threading import Event
from typing import Final

from reconciler.assembly import Setup
from reconciler.cli.asking import Daemon
from reconciler.cli.output import Output
from reconciler.cli.work import Found
from reconciler.clock import SystemClock
from reconciler.model.decisions import Phase
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Result
from reconciler.present import shapes
from reconciler.present.beliefs import Beliefs

PATIENCE: Final = 60.0
"""Seconds for which its outcomes are waited for; it goes on after that."""

_EVERY: Final = 0.1
_ON_ITS_WAY: Final = frozenset({Phase.WAITING, Phase.DUE, Phase.CLEANING})


def hand_over(
    plan: Found, keys: Sequence[BundleKey], setup: Setup, output: Output
) -> list[shapes.ResultShape]:
    """Ask the daemon for these bundles and wait for what comes of it; gives the results.

    Raises:
        NoDaemonError: It has ended meanwhile.
        KeyboardInterrupt: The operator does not wait; the daemon goes on.
    """
    daemon, clock, pause = Daemon(setup.socket), SystemClock(), Event()
    began, until = clock.wall(), clock.monotonic() + PATIENCE
    reply = daemon.clean(keys)
    output.say(f"the daemon (pid {reply.pid}) was asked to remove what is planned")
    if reply.hold:
        output.complain(f"it is held: {reply.hold}")
    refused = {BundleKey(one.namespace, one.id): one.refused for one in reply.bundles}
    asked = [key for key in keys if not refused[key]]
    told = daemon.beliefs(asked) if asked else None
    while told is not None and _is_at_work(told) and clock.monotonic() < until:
        pause.wait(_EVERY)
        told = daemon.beliefs(asked)
    views = {view.key: view for view in plan.views}
    results = [
        shapes.kept(views[key], setup.layout, Result.PROTECTED, why)
        for key, why in refused.items()
        if why
    ]
    if told is not None:
        results += [_result(key, told, began, plan, setup) for key in asked]
    return results


def _is_at_work(told: Beliefs) -> bool:
    return any(one.phase in _ON_ITS_WAY for one in told.bundles)


def _result(
    key: BundleKey, told: Beliefs, began: float, plan: Found, setup: Setup
) -> shapes.ResultShape:
    """Say what came of one: of its last attempt, or of where it stands."""
    for one in told.recent:
        if (one.result.namespace, one.result.id) == key and one.at >= began:
            return one.result
    view = next(view for view in plan.views if view.key == key)
    belief = next((one for one in told.bundles if one.key == key), None)
    if belief is None:
        return shapes.kept(view, setup.layout, Result.CLEANED, "", "the daemon has removed it")
    result = Result.HELD if belief.phase is Phase.HELD else Result.SKIPPED
    return shapes.kept(view, setup.layout, result, belief.cause or "the daemon goes on with it")
