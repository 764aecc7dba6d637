"""Node source: asks the witnesses of the whole node for the loop, as fresh as is needed.

Requests flow in, answers flow out. One pass is under way at a time and serves everybody who waits
for it. A containerd that takes seconds to speak about all holds up no cleanup: before one is
sent it is asked for that one bundle.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio

from reconciler.model.containerd import ShimGroup
from reconciler.model.evidence import Containerd, ContainerdState, Node, ProcessScan
from reconciler.model.ids import BundleKey, is_identifier
from reconciler.ports import Clock, NodeSource
from reconciler.supervision import INTERNAL, Supervisor

FRESH: Final = 1.0
"""The node's word must not be older than this, in seconds, when a cleanup is sent."""


class NodeWatch:
    """Asks the witnesses, and remembers what they said last.

    Args:
        clock: Times the answers.
        node_source: Whom to ask.
        watch: Counts its faults.
        about: Whom containerd is asked for one by one where it cannot list a namespace.
        shims: Of which shims it is asked whether it knows them at all.
        check_guards: Checks the guards anew.
        answered: Takes an answer: when it was asked for, and what was said.
    """

    def __init__(  # noqa: PLR0913 - all that it joins
        self,
        clock: Clock,
        node_source: NodeSource,
        watch: Supervisor,
        *,
        about: Callable[[str], Sequence[BundleKey]],
        shims: Callable[[], Sequence[ShimGroup]],
        check_guards: Callable[[], Awaitable[None]],
        answered: Callable[[float, ProcessScan, Containerd], None],
    ) -> None:
        self._clock = clock
        self._node_source = node_source
        self._watch = watch
        self._about = about
        self._shims = shims
        self._check_guards = check_guards
        self._answered = answered
        self._asking = anyio.Lock()
        self._node = Node()
        self._since = float("-inf")
        self._guarded_for: int | None = None

    async def ask(self, not_before: float) -> None:
        """Ask the witnesses unless they were asked since ``not_before``; one asks for all."""
        async with self._asking:
            if self._since >= not_before:
                return
            since = self._clock.monotonic()
            containerd, scan = Containerd(detail=INTERNAL), ProcessScan(answered=False)
            with self._watch.part("containerd"):
                containerd = await self._node_source.containerd(self._about, self._shims)
            with self._watch.part("process scan"):
                scan = await self._node_source.scan()
            await self._guard(containerd)
            self._node, self._since = Node(scan, containerd), since
            self._answered(since, scan, containerd)

    async def fresh_for_all(self) -> Node:
        """Give what is known of the whole node now, good enough to send a batch of debris."""
        await self.ask(self._clock.monotonic() - FRESH)
        return self._node

    async def fresh(self, key: BundleKey, shim: ShimGroup = ()) -> Node:
        """Give what is known of the node now, good enough to send a cleanup to this bundle.

        Or to end its ``shim``, which may serve these names.

        1. containerd lists its namespace in time: the last word, or a new one if that is old.
        2. It does not, or takes so long that its word is old when it comes: what it says of this
           bundle alone, which it answers at once if it has no such task.
        3. It gives no answer at all, or is down: that.
        """
        may_be_task = is_identifier(key.id)  # a removal of ours that was cut short is none
        if not (may_be_task and self._is_unlisted(key)):
            await self.ask(self._clock.monotonic() - FRESH)
        node = self._node
        is_old = self._clock.monotonic() - self._since > FRESH
        answers = node.containerd.state is ContainerdState.UP
        if not (may_be_task and answers and (is_old or self._is_unlisted(key))):
            return node
        containerd = Containerd(detail=INTERNAL)
        with self._watch.part("containerd"):
            containerd = await self._node_source.task(key, shim)
        if containerd.state is not ContainerdState.UP:
            await self.ask(self._clock.monotonic() - FRESH)  # listeners must learn that
            return self._node
        await self._guard(containerd)
        return Node(node.processes, containerd)

    def _is_unlisted(self, key: BundleKey) -> bool:
        return key.namespace in self._node.containerd.unlisted

    async def _guard(self, containerd: Containerd) -> None:
        """Check the guards for another containerd, perhaps in other namespaces, before it counts.

        Not sooner than it answers, since one that is still starting cannot be found at its socket.
        """
        if containerd.state is ContainerdState.UP and containerd.pid != self._guarded_for:
            await self._check_guards()
            self._guarded_for = containerd.pid
