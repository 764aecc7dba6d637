"""Eyes that see only some bundles, for ``--namespace`` and `explain`: unseen means untouched."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from msgspec.structs import replace
from typing_extensions import override

from reconciler.model.evidence import Look, PartialLook
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Listed
from reconciler.ports import Eyes


@dataclass(frozen=True, slots=True)
class NarrowEyes(Eyes):
    """Other eyes with blinkers on.

    Attributes:
        eyes: The eyes that look.
        wanted: Which bundles may be seen.
    """

    eyes: Eyes
    wanted: Callable[[BundleKey], bool]

    @property
    @override
    def others(self) -> None:
        """Let nobody look in our place: others wear no blinkers."""
        return None

    @override
    def list(self, namespace: str | None = None) -> Listed:
        """List what may be seen."""
        listed = self.eyes.list(namespace)
        return replace(
            listed,
            bundles=tuple(seen for seen in listed.bundles if self.wanted(seen.key)),
            hidden=tuple(one for one in listed.hidden if self.wanted(one.key)),
        )

    @override
    def look(self, key: BundleKey) -> Look | PartialLook | None:
        """Look at a bundle if it may be seen."""
        return self.eyes.look(key) if self.wanted(key) else None

    @override
    def moment(self) -> AbstractContextManager[object]:
        """Begin a batch of looks."""
        return self.eyes.moment()
