"""One worker's hands without the process around them, and what to expect of an outcome."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from reconciler.clock import SystemClock
from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.outcome import BlockReason, Outcome, Result, Step, StepResult
from reconciler.worker import steps
from reconciler.worker.context import WorkerContext
from reconciler.worker.messages import CleanJob, CleanupOptions, FinishJob, Progress, WorkerScope
from tests.support.bundles import Bundle, Site, site


class InlineWorker:
    """One worker's hands, without the process around them."""

    def __init__(self, made: Site) -> None:
        self.options = CleanupOptions()
        self.containerd = Containerd(ContainerdState.DOWN)
        self.listed = False
        self.stop = False
        self.patient = False
        self.delete: Callable[[], str | None] = lambda: "not expected"
        self.began: list[str] = []
        self.bind(WorkerScope(made.layout))

    def bind(self, scope: WorkerScope) -> None:
        """Be a worker of this scope from now on."""
        self.place = WorkerContext(
            scope, SystemClock(), self._begin, self._delete, lambda: self.stop
        )

    def clean(self, bundle: Bundle) -> Outcome:
        tasks = frozenset({bundle.key}) if self.listed else frozenset[BundleKey]()
        said = replace(self.containerd, tasks=tasks)
        job = CleanJob(bundle.key, bundle.identity, said, self.options, self.patient)
        return steps.clean(self.place, job)

    def finish(self, key: BundleKey, identity: Identity) -> Outcome:
        return steps.finish(self.place, FinishJob(key, identity))

    def _begin(self, progress: Progress) -> None:
        self.began.append(progress.began)

    def _delete(self) -> str | None:
        return self.delete()


@contextmanager
def inline_worker(base: Path) -> Iterator[tuple[Site, InlineWorker]]:
    with site(base) as made:
        yield made, InlineWorker(made)


def step(outcome: Outcome, name: str) -> Step:
    return next(one for one in outcome.steps if one.step == name)


def assert_cleaned(outcome: Outcome, bundle: Bundle) -> None:
    assert outcome.result is Result.CLEANED, outcome
    assert [one for one in outcome.steps if one.result is StepResult.WARNING] == []
    assert bundle.left() == []
    assert bundle.mounts() == []


def assert_blocked(outcome: Outcome, reason: BlockReason) -> None:
    assert (outcome.result, outcome.reason) == (Result.BLOCKED, reason), outcome


def assert_untouched(outcome: Outcome, bundle: Bundle, left: list[Path]) -> None:
    assert sum(one.mutations for one in outcome.steps) == 0
    assert bundle.left() == left
