"""Debris: removes what is left outside of bundles. Nothing of it is removed yet."""

from reconciler.model.debris import DebrisResult
from reconciler.model.outcome import Result
from reconciler.worker.context import WorkerContext
from reconciler.worker.messages import DebrisJob


def clean(_context: WorkerContext, job: DebrisJob) -> tuple[DebrisResult, ...]:
    """Leave every place as it is."""
    return tuple(
        DebrisResult(one.key, one.identity, Result.SKIPPED, detail="not yet") for one in job.places
    )
