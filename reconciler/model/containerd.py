"""containerd's own word about the whole node, as one piece of evidence. Pure."""

from msgspec.structs import replace

from reconciler.model.ids import BundleKey
from reconciler.model.values import EMPTY, Value, Word

ShimGroup = tuple[BundleKey, ...]
"""Every name that one shim serves or may serve: its own, and those of the bundles of its pod."""


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
        recorded: Bundles that it was asked about because it lists no task of theirs, and of which,
            or of another name of their shim's group, it has a task, a container or a sandbox.
        unrecorded: Those of which it denied all of that, for every name of the group.
    """

    state: ContainerdState = ContainerdState.NONE
    tasks: frozenset[BundleKey] = EMPTY
    pid: int | None = None
    version: str = ""
    detail: str = ""
    unlisted: frozenset[str] = EMPTY
    absent: frozenset[BundleKey] = EMPTY
    wedged: frozenset[BundleKey] = EMPTY
    recorded: frozenset[BundleKey] = EMPTY
    unrecorded: frozenset[BundleKey] = EMPTY

    def about(self, *keys: BundleKey) -> "Containerd":
        """Give the part of it that speaks about these bundles, which is all a worker must know.

        A key without a namespace stands for its id in whatever namespace.
        What it does not know at all is told of their whole namespaces: others that the same shim
        serves may be among it.
        """
        ids = frozenset(key.id for key in keys if not key.namespace)
        own = frozenset(keys) | {key for key in self.tasks | self.absent if key.id in ids}
        namespaces = self.unlisted if ids else {key.namespace for key in keys}
        spaces = {key.namespace for key in keys}
        unrecorded = frozenset(one for one in self.unrecorded if one.namespace in spaces)
        return replace(
            self,
            tasks=self.tasks & own,
            unlisted=self.unlisted & namespaces,
            absent=self.absent & own,
            wedged=self.wedged & own,
            recorded=self.recorded & own,
            unrecorded=unrecorded,
        )
