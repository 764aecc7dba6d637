"""Looks: which bundles are to be looked at, made in slices or handed to others.

Keys come in, a Looked comes out for each. Our own inspector looks between the loop's turns; where a
pile waits others take handfuls of it, and what ours leave out because it may hang is looked at by
those who can be killed (:mod:`.remote`). Each look says which processes of a bundle
there are, so whose end is watched is settled here, too.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from reconciler.loop.remote import PART, RemoteLooks, Start
from reconciler.model.evidence import UNSEEN, InitState, Look, PartialLook, ProcessScan, ShimState
from reconciler.model.ids import BundleKey
from reconciler.model.observations import HintKind, Looked
from reconciler.ports import BatchInspector, Emit, Stages
from reconciler.supervision import Part

SLICE: Final = 0.02
"""Longest time spent on close looks before the loop turns, in seconds."""


PILE: Final = 1000
"""Looks that wait from which on others help: to start them takes as long as some hundred."""

BATCH: Final = 300
"""Looks a helper is given at a time: enough to keep it busy for some turns of the loop."""

TOGETHER: Final = 32
"""Looks made together and then taken in together, which costs less (`probe.bundle`). Where
they take long each is made alone, and the loop turns after it.
"""

HANDFUL: Final = 64
"""Looks that are taken from the queue's beginning at a time."""

Receive = Callable[[BundleKey, Look | PartialLook | None], None]


class Looks:
    """The looks of one loop.

    ``start`` runs something beside it; ``emit`` receives looks that others made, ``take`` ours.
    """

    def __init__(
        self, stages: Stages, start: Start, emit: Emit, take: Callable[[Looked], None]
    ) -> None:
        self._inspector, self._exits, self._clock = stages.inspector, stages.exits, stages.clock
        self._watch = stages.supervisor
        self._part = self._watch.part(PART)
        self._start = start
        self._emit = emit
        self._take = take
        self._waiting: dict[BundleKey, HintKind] = {}
        self._together = TOGETHER
        self._helpers = Helpers(stages.inspector.others, self._part, self._waiting, self._receive)
        self._remote = RemoteLooks(stages, start, self._receive_remote, self.want)
        self.refusal = self._remote.refusal  # what keeps a bundle from being worked on
        self._known_shims: dict[BundleKey, int] = {}
        self._scanned_shims: dict[BundleKey, int] = {}
        self._sandboxes: set[BundleKey] = set()

    @property
    def is_done(self) -> bool:
        """Whether nobody waits to be looked at."""
        return not self._waiting

    def want(self, key: BundleKey, why: HintKind = HintKind.CHANGED) -> None:
        """Have a bundle looked at."""
        self._waiting.setdefault(key, why)

    def make_some(self) -> None:
        """Make looks for a slice of time, and have others make theirs where there is a pile."""
        for _ in range(self._helpers.missing):
            self._start(self._helpers.help)
        if not self._waiting:
            return
        with self._inspector.moment():
            now = self._clock.monotonic()
            end = now + SLICE
            for keys in self._taken_together():
                began = now
                for key, seen in zip(keys, self._look_each(keys), strict=True):
                    look = self._remote.whole(key, seen)
                    if not isinstance(look, PartialLook):
                        self._expect_exits(key, look)
                        self._take(Looked(key, look))
                now = self._clock.monotonic()
                self._together = TOGETHER if now - began < SLICE / 2 else 1
                if now >= end:
                    break
        if not self._waiting and self._helpers.resting:
            # The emptied one is as large as the listing was.
            self._waiting = self._helpers.waiting = {}

    def _taken_together(self) -> Iterator[list[BundleKey]]:
        """Take those who wait longest out of the queue, some when they are asked for.

        By the handful, for to find the first of a dict passes over all that were taken before it.
        """
        while self._waiting:
            handful = deque(islice(self._waiting, HANDFUL))
            while handful:
                some = [handful.popleft() for _ in range(min(self._together, len(handful)))]
                keys = [key for key in some if self._waiting.pop(key, None) is not None]
                if keys:
                    yield keys

    def _look_each(self, keys: list[BundleKey]) -> Sequence[Look | PartialLook | None]:
        """Look at each; a bundle at which to look fails is not seen, and spoils no other's look."""
        for key in keys:
            self._helpers.overtake(key)
        looks: Sequence[Look | PartialLook | None] | None = None
        with self._part:
            looks = self._inspector.look_each(keys)
        if looks is not None:
            return looks
        return [UNSEEN] if len(keys) == 1 else [self._look_each([key])[0] for key in keys]

    def forget(self, key: BundleKey) -> None:
        """Drop what is known of a bundle that is gone."""
        self._remote.forget(key)
        self._known_shims.pop(key, None)
        self._sandboxes.discard(key)
        self._watch.call("exits", self._exits.forget, key)

    def note_shims(self, scan: ProcessScan) -> None:
        """Look once at every bundle whose shim is seen for the first time, to watch its end."""
        before, now = self._scanned_shims, {shim.key: shim.pid for shim in scan.shims}
        self._scanned_shims = now
        for key in now.keys() - before.keys():
            for one in (key, key.sandbox) if key.sandbox in self._sandboxes else (key,):
                if one not in self._known_shims:
                    self.want(one)

    def _receive(self, key: BundleKey, look: Look | PartialLook | None) -> None:
        look = self._remote.whole(key, look)
        if not isinstance(look, PartialLook):
            self._receive_remote(key, look)

    def _receive_remote(self, key: BundleKey, look: Look | None) -> None:
        self._expect_exits(key, look)
        self._emit(Looked(key, look))

    def _expect_exits(self, key: BundleKey, look: Look | None) -> None:
        """Watch the processes of a bundle.

        Only a living init leads a look to its shim. Once init has ended the shim is the one last
        known, or the one a sweep has shown: its death must not wait for the next listing.
        """
        if look is None:
            return
        if key.tree:
            self._sandboxes.add(key)
        shim = look.shim.pid
        if shim is None and look.shim.state is ShimState.ALIVE:
            group = BundleKey(key.namespace, look.shim.group or key.id)
            scanned = self._scanned_shims
            shim = self._known_shims.get(key) or scanned.get(key) or scanned.get(group)
        if shim is not None:
            self._known_shims[key] = shim
        lives = look.init.state is InitState.ALIVE
        init = look.init.pid if lives else None
        self._watch.call("exits", self._exits.expect, key, init=init, shim=shim)


class Helpers:
    """Those who help with one loop's looks, if there are any, where starting them pays.

    The looks that wait are taken by the handful, what comes back is handed on, and whatever they
    gave no answer about is looked at by ourselves. Where both happened to look at a bundle, the
    later look counts.

    Attributes:
        waiting: The looks to be made, and why; we begin at its beginning, they at its end. To be
            replaced only while they are :attr:`resting`: whatever they took and give no answer
            about comes back to it.
    """

    def __init__(
        self,
        lookers: BatchInspector | None,
        part: Part,
        waiting: dict[BundleKey, HintKind],
        receive: Receive,
    ) -> None:
        self._lookers = lookers
        self._part = part
        self.waiting = waiting
        self._receive = receive
        self._taken: dict[BundleKey, HintKind] = {}
        self._at_work = 0

    @property
    def missing(self) -> int:
        """How many more should :meth:`help`."""
        if self._lookers is None or len(self.waiting) < PILE:
            return 0
        return self._lookers.many - self._at_work

    @property
    def resting(self) -> bool:
        """Whether nobody is helping."""
        return not self._at_work

    def overtake(self, key: BundleKey) -> None:
        """We are about to look at it ourselves: an earlier look that is under way is void."""
        self._taken.pop(key, None)

    async def help(self) -> None:
        """Look at handfuls until there is no pile any more, or one of them was not answered."""
        if self._lookers is None:
            return
        self._at_work += 1
        try:
            while len(self.waiting) > BATCH:
                if not await self._take_handful(self._lookers):
                    break
        finally:
            self._at_work -= 1

    async def _take_handful(self, lookers: BatchInspector) -> bool:
        taken = dict(self.waiting.popitem() for _ in range(BATCH))
        self._taken |= taken
        looks: Sequence[Look | PartialLook | None] | None = None
        with self._part:
            looks = await lookers.look(tuple(taken))
        if looks is None:
            self._lookers = None  # what hung once may hang again
            for key, why in taken.items():
                if self._taken.pop(key, None) is not None:
                    self.waiting.setdefault(key, why)
            return False
        for key, look in zip(taken, looks, strict=True):
            if self._taken.pop(key, None) is not None:
                self._receive(key, look)
        return True
