"""The configuration in force: loaded at start, loaded again on request, never half.

A load that fails changes nothing and is remembered, so that status, metric and log can say so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from reconciler.present.status import ConfigStatus
from reconciler.settings.load import Loaded
from reconciler.settings.show import changed

FIXED: Final = ("containerd.", "watch.backend:", "journal.", "http.", "log.")
"""Keys that take effect only at a start: they say what is opened, not what is decided."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a load.

    Attributes:
        trouble: What is wrong, one line for each problem; empty if it is in force.
        changes: What is different now, one line for each key.
        later: Those of the changes that wait for a restart.
    """

    trouble: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    later: tuple[str, ...] = ()


class Configuration:
    """Holds what is in force.

    Args:
        load: Reads all layers anew; raises SettingsError.
        loaded: What ``load`` gave at the start.
        wall: Now, in seconds since the epoch.
    """

    def __init__(self, load: Callable[[], Loaded], loaded: Loaded, wall: float) -> None:
        self._load = load
        self.loaded = loaded
        self.status = ConfigStatus(list(loaded.files), wall, ok=True, error="")

    def read(self) -> Loaded:
        """Read all layers anew; nothing changes yet.

        Raises:
            SettingsError: Anything is wrong with them.
        """
        return self._load()

    def refuse(self, trouble: tuple[str, ...]) -> Reload:
        """Keep what is in force, and remember why nothing else is."""
        old = self.status
        self.status = ConfigStatus(old.files, old.loaded_at, ok=False, error=trouble[0])
        return Reload(trouble=trouble)

    def compare(self, fresh: Loaded) -> Reload:
        """Say what would be different; nothing changes yet."""
        changes = tuple(changed(self.loaded, fresh))
        return Reload(changes=changes, later=tuple(x for x in changes if x.startswith(FIXED)))

    def accept(self, fresh: Loaded, wall: float) -> None:
        """Note that another configuration is in force."""
        self.loaded = fresh
        self.status = ConfigStatus(list(fresh.files), wall, ok=True, error="")
