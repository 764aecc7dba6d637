"""One attempt's steps: what an error in one means for its entry and for those after it."""

import errno

import pytest

from reconciler.clock import SystemClock
from reconciler.model.outcome import BlockReason, StepResult
from reconciler.worker.blocked import Blocked
from reconciler.worker.step_log import Record, Tally


def fail(_: Tally) -> str:
    raise OSError(errno.EIO, "Input/output error", b"/run/containerd/s")


def test_a_step_that_fails_at_a_file_keeps_its_own_name() -> None:
    record = Record(SystemClock(), lambda _: None, lambda: False)
    record.do("shim-socket", fail, core=False)
    with pytest.raises(Blocked) as caught:
        record.do("bundle", fail)
    assert caught.value.reason is BlockReason.IO
    results = [(step.step, step.result) for step in record.steps]
    assert results == [("shim-socket", StepResult.WARNING), ("bundle", StepResult.BLOCKED)]
    assert all("/run/containerd/s" in step.detail for step in record.steps)
