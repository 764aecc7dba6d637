"""Attempt: the steps at one place, and who may use its name by now. Reads; its steps act.

Between the second look at a batch and the turn of one of its places somebody may have begun to use
the name: so whatever can have changed is asked once more, right before the place is touched. Where
a runtime makes things of a name (cgroups, states, work directories) its bundle is there before, so
that is what is asked for: in our tree, and in those to which living shims of others lead.
"""

from collections.abc import Callable

from reconciler import kernel
from reconciler.model.ids import BundleKey, unescape
from reconciler.model.outcome import StepResult
from reconciler.probe.beneath import enter, names, opened
from reconciler.worker.context import WorkerContext
from reconciler.worker.step_log import Kept, Note, Record, Tally
from reconciler.worker.under_removal import stays


class StaysError(Exception):
    """A place stays, on purpose; the message says why."""


class PlaceAttempt:
    """One attempt on one place.

    Attributes:
        context: The worker's.
        record: What was done.
    """

    def __init__(self, context: WorkerContext, note: Note | None = None) -> None:
        self.context = context
        self.record = Record(context.clock, note or context.note, context.stop)

    def do(self, name: str, action: Callable[[Tally], str]) -> None:
        """Do a step without which nothing further is done.

        Raises:
            StaysError: It was kept.
            Blocked: It could not be done.
        """
        self.record.do(name, action)
        last = self.record.steps[-1]
        if last.result is StepResult.WARNING:
            raise StaysError(last.detail)

    def guard(self, look: Callable[[], None]) -> None:
        """Look whether the rest may be done; what is gone by now needs nothing.

        Raises as :meth:`do` does.
        """

        def action(_: Tally) -> str:
            try:
                look()
            except FileNotFoundError:
                raise Kept("it is gone") from None
            return ""

        self.do("guards", action)

    def refuse_bundle(self, key: BundleKey) -> None:
        """Raise Kept if there is a bundle of that name by now, here or at another containerd.

        Also a hidden one, and one that is being removed: that takes along what is its own.

        Raises:
            Kept: There is, or may be.
            OSError: Our tree cannot be read.
        """
        other = self.context.instances.user(key, even_going=True)
        if other is not None:
            raise Kept(other)
        above = self.context.layout.tasks + b"/" + unescape(key.namespace) + b"/"
        name = unescape(key.id)
        if any(stays(kernel.AT_FDCWD, above + one, even_going=True) for one in (name, b"." + name)):
            raise Kept("a bundle of its name has appeared")

    def refuse_id(self, id_: str) -> None:
        """Do the same for what bears an id in whatever namespace."""
        name = unescape(id_)
        with opened(self.context.layout.tasks) as top:
            for namespace in enter(top, names(top)):
                if namespace.fd < 0:
                    raise Kept(f"a namespace that cannot be entered may have a bundle of {id_}")
                both = (name, b"." + name)
                if any(stays(namespace.fd, one, even_going=True) for one in both):
                    raise Kept("a bundle of its id has appeared")
        other = self.context.instances.user_of_id(id_)
        if other is not None:
            raise Kept(other)
