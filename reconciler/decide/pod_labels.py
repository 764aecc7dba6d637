"""Pods: which bundles look to their pod's sandbox for what their config.json does not say. Pure.

A sandbox may be looked at after its members, and may be gone before them. So it is known whom its
labels concern, and a member keeps what it once learnt of them.
"""

from collections.abc import Callable

from reconciler.decide.track import Track
from reconciler.model.evidence import NO_LABELS
from reconciler.model.ids import BundleKey, escape
from reconciler.model.labels import Known


class Pods:
    """Members by the sandbox whose labels they asked for.

    Args:
        needed: Whether any rule asks for labels.
    """

    def __init__(self, *, needed: bool) -> None:
        self._needed = needed
        self._members: dict[BundleKey, set[BundleKey]] = {}
        self._sandbox_of: dict[BundleKey, BundleKey] = {}

    def known(self, track: Track, find: Callable[[BundleKey], Track | None]) -> Known:
        """Return what can be known of a bundle's labels, and note whom it asked.

        Args:
            track: The bundle.
            find: Finds another.
        """
        own, key = track.labels, track.key
        sandbox = BundleKey(key.namespace, escape(own.sandbox.encode("utf-8", "replace")))
        self.leave(key)
        if not self._needed or not sandbox.id or sandbox == key.task:
            return Known(own, NO_LABELS, is_sandbox=sandbox == key.task)
        self._sandbox_of[key] = sandbox
        self._members.setdefault(sandbox, set()).add(key)
        pod = find(sandbox) or find(sandbox.sandbox)
        if pod is not None and pod.labels.known:
            track.pod = pod.labels
        return Known(own, track.pod)

    def members(self, sandbox: BundleKey) -> list[BundleKey]:
        """List those that asked for the labels of this one."""
        return sorted(self._members.get(sandbox.task, ()))

    def leave(self, key: BundleKey) -> None:
        """Forget a member that is gone, or asks anew."""
        sandbox = self._sandbox_of.pop(key, None)
        if sandbox is None:
            return
        members = self._members[sandbox]
        members.discard(key)
        if not members:
            del self._members[sandbox]
