"""Promises: what the demo tells of its bundles, and whether each was kept.

A listener remembers what each bundle is judged as; the story waits and kills; the tree is compared
before and after. Reads only; what differs flows out.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
from typing_extensions import override

from reconciler.demo.fixtures import Fixture, Promise
from reconciler.demo.node import DemoNode
from reconciler.model.decisions import Decision, Judged, Vanished, Verdict
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.model.observations import Observation, Stamp
from reconciler.model.outcome import Outcome, Result
from reconciler.ports import Clock, Listener

Picture = dict[str, tuple[int, int, int, bytes]]
"""Mode, inode, modification time and content (or target) of everything below a directory."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Whether one promise was kept.

    Attributes:
        role: The bundle.
        broken: What is not as promised; empty if all is.
        pending: It was ended before this could come true.
    """

    fixture: Fixture
    broken: str
    pending: bool = False


def picture(top: Path) -> Picture:
    """Take a picture of a directory; empty if there is none."""
    found: Picture = {}
    for path in (top, *sorted(top.rglob("*"))):
        try:
            seen = path.lstat()
        except FileNotFoundError:
            continue
        content = b""
        if stat.S_ISREG(seen.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(seen.st_mode):
            content = os.fsencode(path.readlink())
        name = str(path.relative_to(top))
        found[name] = (seen.st_mode, seen.st_ino, seen.st_mtime_ns, content)
    return found


def pictures(node: DemoNode) -> dict[BundleKey, Picture]:
    """Take a picture of every bundle of the demo."""
    return {fixture.key: picture(_path(node.layout, fixture.key)) for fixture in node.fixtures}


def compare(
    node: DemoNode, before: dict[BundleKey, Picture], verdicts: dict[BundleKey, set[Verdict]]
) -> Iterator[Kept]:
    """Tell for each bundle whether it ended as promised.

    Args:
        node: The tree as it is now.
        before: The pictures from the beginning.
        verdicts: What each bundle was judged as, at any time.
    """
    for fixture in node.fixtures:
        faults = list(_faults(node, fixture, before[fixture.key], verdicts.get(fixture.key, set())))
        yield Kept(fixture, ", ".join(faults))


def _faults(
    node: DemoNode, fixture: Fixture, before: Picture, judged: set[Verdict]
) -> Iterator[str]:
    layout = node.layout
    after = picture(_path(layout, fixture.key))
    if fixture.verdict not in judged:
        yield f"never judged {fixture.verdict.value}"
    if fixture.promise is Promise.CLEANED:
        if after:
            yield "still there"
        yield from _left(layout, fixture.key)
        return
    if after != before:
        yield "changed"
    if fixture.promise is Promise.KEPT:
        # Before every witness has spoken a bundle may be unknown, which harms nothing.
        others = judged - {fixture.verdict, Verdict.UNKNOWN}
        if others:
            yield f"judged {', '.join(sorted(one.value for one in others))}"
        if not node.living(fixture):
            yield "a process is gone"


def _left(layout: Layout, key: BundleKey) -> Iterator[str]:
    for what, top in (("work dir", layout.work), ("runc state", layout.runc_root)):
        if os.path.lexists(top + b"/" + key.path):
            yield f"{what} still there"


def _path(layout: Layout, key: BundleKey) -> Path:
    return Path(os.fsdecode(layout.bundle(key)))


_HALF: Final = 0.4
_PATIENCE: Final = 20.0
"""How much longer than asked a slow machine may take to keep the promises, in seconds."""


@dataclass(slots=True)
class PromiseListener(Listener):
    """Remembers what the promises are about.

    Attributes:
        fixtures: Whom it watches.
        verdicts: What each bundle was judged as, at any time.
        killed_at: When the victims were killed, on the monotonic clock.
        noticed_at: When the first victim was judged a leftover.
        cleaned: Bundles that were removed.
        blocked: Bundles that were left where they are because something is in the way.
    """

    fixtures: tuple[Fixture, ...]
    verdicts: dict[BundleKey, set[Verdict]] = field(default_factory=dict)
    killed_at: float | None = None
    noticed_at: float | None = None
    cleaned: set[BundleKey] = field(default_factory=set)
    blocked: set[BundleKey] = field(default_factory=set)

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Remember what came of cleanups."""
        if isinstance(observation, Outcome) and observation.result is Result.BLOCKED:
            self.blocked.add(observation.key)

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Remember verdicts."""
        if isinstance(decision, Vanished) and decision.cleaned:
            self.cleaned.add(decision.key)
        if not isinstance(decision, Judged):
            return
        verdict = decision.judgement.verdict
        self.verdicts.setdefault(decision.key, set()).add(verdict)
        if verdict is not Verdict.LEFTOVER or self.killed_at is None:
            return
        victim = any(fixture.killed and fixture.key == decision.key for fixture in self.fixtures)
        if victim and self.noticed_at is None:
            self.noticed_at = stamp.mono

    def waits_for(self, fixture: Fixture) -> bool:
        """Whether what is promised of a bundle has not happened yet."""
        match fixture.promise:
            case Promise.CLEANED:
                return fixture.key not in self.cleaned
            case Promise.BLOCKED:
                return fixture.key not in self.blocked
            case Promise.KEPT:
                return fixture.verdict not in self.verdicts.get(fixture.key, set())

    @property
    def is_over(self) -> bool:
        """Whether everything that was to happen has happened."""
        removed = {fixture.key for fixture in self.fixtures if fixture.promise is Promise.CLEANED}
        stuck = {fixture.key for fixture in self.fixtures if fixture.promise is Promise.BLOCKED}
        return removed <= self.cleaned and stuck <= self.blocked


async def run_story(
    node: DemoNode, listener: PromiseListener, clock: Clock, seconds: float | None
) -> None:
    """Kill the victims half way, and return when the time is over.

    Args:
        node: Where they live.
        listener: Remembers what happens.
        clock: Times it.
        seconds: How long it lasts; None for ever.
    """
    begun = clock.monotonic()
    half = _HALF * (10.0 if seconds is None else seconds)
    await _until(clock, begun + half)
    listener.killed_at = clock.monotonic()
    node.kill_victims()
    if seconds is None:
        await anyio.sleep_forever()
        return
    await _until(clock, begun + seconds)
    while not listener.is_over and clock.monotonic() < begun + seconds + _PATIENCE:
        await _until(clock, clock.monotonic() + 0.1)


async def _until(clock: Clock, when: float) -> None:
    await clock.wait(anyio.Event(), when)
