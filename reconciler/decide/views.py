"""Views: what is believed about one bundle, and about all of them in a few numbers. Pure.

For people, metrics, `scan -o json` and the status page. All of them show the same phase: the one
that :func:`shown` gives.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from reconciler.decide.cleanups import Hold
from reconciler.decide.lifecycle import TABLE, Event
from reconciler.decide.nodestate import NodeState
from reconciler.decide.track import SERVED, Track, is_unlisted, is_wedged
from reconciler.decide.verdicts import is_alien_and_dead
from reconciler.model.decisions import BudgetKind, Judgement, Phase, Verdict
from reconciler.model.evidence import NO_LABELS, Containerd, Facts, Labels, Look, Node, ShimState
from reconciler.model.facts import weigh
from reconciler.model.ids import BundleKey
from reconciler.model.policy import Policy

_NOTHING: Final = Containerd()
_BRAKED, _RELEASED = TABLE[Event.BRAKED], TABLE[Event.RELEASED]
_HELD: Final = Phase.HELD


@dataclass(frozen=True, slots=True)
class BundleView:
    """One bundle as the engine sees it.

    Attributes:
        key, look, facts, judgement: What was found and concluded.
        phase, cause: How far it is on its way to removal, and why it is not further.
        policy: Name of the rule that applies.
        age_seconds: Time since the last sign of life.
        due_in_seconds: 0 if due, None if no time is known.
        attempts: Failed attempts so far.
        wedged: Its shim lives and gives containerd no answer.
        unlisted: It runs, and a containerd that answers does not know it.
        labels: All that was ever read of its labels: config.json may be gone by now.
        enforce: Whether the policy lets anything of it be removed.
    """

    key: BundleKey
    look: Look
    facts: Facts
    judgement: Judgement
    phase: Phase
    cause: str
    policy: str
    age_seconds: float
    due_in_seconds: float | None
    attempts: int
    wedged: bool = False
    unlisted: bool = False
    labels: Labels = NO_LABELS
    enforce: bool = False

    def shim_pid(self, pids: Mapping[BundleKey, int]) -> int | None:
        """Tell the pid of its living shim, if the look or the process table has shown it.

        ``pids`` are those of shims, by the bundles they were started for.
        """
        shim, key = self.look.shim, self.key
        if shim.pid is not None or self.facts.shim is not ShimState.ALIVE:
            return shim.pid
        return pids.get(key) or pids.get(BundleKey(key.namespace, shim.group or key.id))


class Summary(msgspec.Struct):
    """Counts at one moment.

    Attributes:
        verdicts: Bundles by namespace and verdict.
        bundles: The same by phase, too.
        phases: Leftovers by phase.
        blocked: Blocked leftovers by cause.
        leftover_bytes: Allocated bytes of all leftovers.
        oldest_leftover_age: Seconds since the last sign of life of the oldest leftover, else 0.
        over_budget: Running tasks over a budget.
        wedged: Tasks whose shim gives containerd no answer, by that shim.
        unlisted: Running tasks that a containerd that answers does not know.
        aliens: Bundles of unknown runtimes of which nothing seems to live.
    """

    verdicts: Counter[tuple[str, Verdict]] = msgspec.field(default_factory=Counter)
    bundles: Counter[tuple[str, Verdict, Phase]] = msgspec.field(default_factory=Counter)
    phases: Counter[Phase] = msgspec.field(default_factory=Counter)
    blocked: Counter[str] = msgspec.field(default_factory=Counter)
    leftover_bytes: int = 0
    oldest_leftover_age: float = 0.0
    over_budget: Counter[BudgetKind] = msgspec.field(default_factory=Counter)
    wedged: Counter[BundleKey] = msgspec.field(default_factory=Counter)
    unlisted: int = 0
    aliens: int = 0


def shown(track: Track, policy: Policy, hold: Hold | None) -> tuple[Phase, str]:
    """Give the phase of a bundle, and its cause.

    A brake holds and releases everything that is due at once, thousands of bundles perhaps, and is
    reported once. So what it holds is read here and not written into each of them.
    """
    phase = (_BRAKED if hold is not None and policy.enforce else _RELEASED)[track.phase]
    if hold is not None and phase is _HELD:
        return phase, f"{hold.brake}: {hold.detail}"
    return phase, track.cause


def announced(track: Track, policy: Policy, hold: Hold | None) -> tuple[Phase, str]:
    """Give phase and cause as listeners are told them: of a brake its name alone."""
    phase, cause = shown(track, policy, hold)
    return phase, hold.brake if hold is not None and phase is _HELD else cause


def view_of(  # noqa: PLR0913 - all that a view shows
    track: Track, said: NodeState, policy: Policy, *, hold: Hold | None, due_at: float, now: float
) -> BundleView | None:
    """Show a track; None before its first look.

    Args:
        track: The bundle.
        said: What the node's witnesses said last. A living bundle is not judged anew at every word
            of theirs; the latest is shown.
        policy: The one that applies.
        hold: The brake that is on.
        due_at: When it is due, if it waits for that.
        now: Monotonic seconds.
    """
    if track.look is None or track.judgement is None or track.facts is None:
        return None
    node, facts = said.about(track.key, track.first_seen), track.facts
    if not said.is_weighed(track):
        facts = weigh(track.key, facts.identifier, track.look, node)
    phase, cause = shown(track, policy, hold)
    times = {Phase.WAITING: due_at, Phase.BLOCKED: track.retry_at, Phase.DUE: now}
    at = times.get(phase)
    return BundleView(
        key=track.key,
        look=track.look,
        facts=facts,
        judgement=track.judgement,
        phase=phase,
        cause=cause,
        policy=policy.name,
        age_seconds=track.age(now),
        due_in_seconds=None if at is None else max(0.0, at - now),
        attempts=track.attempts,
        wedged=is_wedged(track, node.containerd),
        unlisted=is_unlisted(track, node.containerd, now),
        labels=track.labels,
        enforce=policy.enforce,
    )


def summarize(
    tracks: Iterable[Track],
    shown_of: Callable[[Track], tuple[Phase, str]],
    about: Callable[[BundleKey, float], Node],
    now: float,
) -> Summary:
    """Count everything once; one pass over all bundles, so call it per scrape, not per event.

    Args:
        tracks: The bundles.
        shown_of: Gives a bundle's phase and its cause, as :func:`shown` does.
        about: Gives the node's word that counts for a bundle first seen then.
        now: Monotonic seconds.
    """
    summary = Summary()
    for track in tracks:
        verdict = track.verdict
        if verdict is None:
            continue
        on_its_way = track.phase is not Phase.NONE
        phase, cause = shown_of(track) if on_its_way else (Phase.NONE, "")
        summary.verdicts[track.key.namespace, verdict] += 1
        summary.bundles[track.key.namespace, verdict, phase] += 1
        summary.over_budget.update(track.reported)
        said = about(track.key, track.first_seen).containerd if verdict in SERVED else _NOTHING
        summary.aliens += track.facts is not None and is_alien_and_dead(track.facts)
        summary.unlisted += is_unlisted(track, said, now)
        if is_wedged(track, said):
            group = track.look.shim.group if track.look else None
            summary.wedged[BundleKey(track.key.namespace, group or track.key.id)] += 1
        if verdict is not Verdict.LEFTOVER:
            continue
        summary.phases[phase] += 1
        summary.leftover_bytes += track.look.size_bytes if track.look else 0
        summary.oldest_leftover_age = max(summary.oldest_leftover_age, track.age(now))
        if phase is Phase.BLOCKED:
            summary.blocked[cause] += 1
    return summary
