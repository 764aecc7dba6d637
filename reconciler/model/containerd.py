"""containerd's own word about the whole node, as one piece of evidence. Pure."""

from msgspec.structs import replace

from reconciler.model.ids import BundleKey
from reconciler.model.values import EMPTY, Value
from reconciler.model.words import Word


class ContainerdState(Word):
    """Whether containerd can be asked."""

    UP = "up"
    DOWN = "down"  # proven: its lock file exists and nobody holds it
    SKIPPED = "skipped"
    NONE = "no answer"


class Containerd(Value, frozen=True):
    """containerd's own word about the whole node.

    Where shims do not answer containerd, its list of a namespace's tasks takes seconds for each of
    them. Then it is asked for single bundles, and for the others of that namespace it has given no
    answer.

    Attributes:
        state: Up, proven down, skipped because the caller said so, or no answer.
        tasks: The tasks it lists, or has named when asked alone; meaningful only when up.
        pid: containerd's pid, if known.
        version: As Version answers, or empty.
        detail: Why, for people.
        unlisted: Namespaces whose list did not come. Empty: ``tasks`` are all there are.
        absent: Bundles of those namespaces that it was asked for alone and has not found.
        wedged: Tasks whose state containerd could not learn from their shim.
    """

    state: ContainerdState = ContainerdState.NONE
    tasks: frozenset[BundleKey] = EMPTY
    pid: int | None = None
    version: str = ""
    detail: str = ""
    unlisted: frozenset[str] = EMPTY
    absent: frozenset[BundleKey] = EMPTY
    wedged: frozenset[BundleKey] = EMPTY

    def about(self, key: BundleKey) -> "Containerd":
        """Give the part of it that speaks about one bundle, which is all a worker needs to know."""
        own, namespace = frozenset({key}), frozenset({key.namespace})
        return replace(
            self,
            tasks=self.tasks & own,
            unlisted=self.unlisted & namespace,
            absent=self.absent & own,
            wedged=self.wedged & own,
        )
