"""Killed at any mutating call, before or after it, a second attempt finishes; nothing else goes."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec

import pytest

from reconciler import kernel
from reconciler.model.hidden import parse_hidden
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import Result
from tests.support import canary
from tests.support.bundles import Bundle, Site, identify
from tests.support.inline import InlineWorker, assert_cleaned, inline_worker
from tests.support.mountns import private_mounts

P = ParamSpec("P")

MUTATORS = ((os, "unlink"), (os, "rmdir"), (kernel, "renameat2"), (kernel, "umount2"))


class Counter:
    """Counts mutating calls that succeed, and may end the process at one of them."""

    def __init__(self, end_at: int = 0, *, before: bool = True) -> None:
        self.calls = 0
        self._tries = 0
        self._end_at = end_at
        self._before = before

    @contextmanager
    def installed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module, name in MUTATORS:
                patch.setattr(module, name, self._wrap(getattr(module, name)))
            yield

    def _wrap(self, call: Callable[P, None]) -> Callable[P, None]:
        def counted(*args: P.args, **kwargs: P.kwargs) -> None:
            self._tries += 1
            if self._tries == self._end_at and self._before:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*args, **kwargs)
            self.calls += 1
            if self._tries == self._end_at:
                os.kill(os.getpid(), signal.SIGKILL)

        return counted


def killed_at(inline: InlineWorker, bundle: Bundle, number: int, *, before: bool) -> bool:
    """Clean in a process that ends at a mutating call; false if there are not so many."""
    pid = os.fork()
    if pid == 0:
        with Counter(number, before=before).installed():
            inline.clean(bundle)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}
    return code != 0


def run_again(made: Site, inline: InlineWorker, bundle: Bundle) -> None:
    """Do what the engine does after a restart: the bundle if it is there, what is hidden if not."""
    outcome = inline.clean(bundle)
    assert outcome.result in {Result.CLEANED, Result.SKIPPED}, outcome
    for path in (made.tree / "default").iterdir():
        assert parse_hidden(path.name) is not None, path
        outcome = inline.finish(BundleKey("default", path.name), identify(path))
        assert outcome.result is Result.CLEANED, outcome


@pytest.mark.fault("I9", "SIGKILL anywhere")
@pytest.mark.safety
@pytest.mark.parametrize("before", [True, False])
@private_mounts
def test_killed_anywhere_the_next_run_converges(tmp_path: Path, before: bool) -> None:
    with inline_worker(tmp_path) as (made, inline):
        layers = made.base / "lib" / "layers"
        number, kills = 0, 0
        while True:
            number += 1
            bundle = made.bundle(f"c{number}")
            upper = layers / f"default-{bundle.path.name}" / "upper"
            kept = canary.snapshot(upper)
            if not killed_at(inline, bundle, number, before=before):
                break
            kills += 1
            run_again(made, inline, bundle)
            assert bundle.left() == []
            assert bundle.mounts() == []
            assert list(bundle.socket.parent.iterdir()) == []
            assert canary.snapshot(upper) == kept
        assert kills > 25


@pytest.mark.fault("I22")
@private_mounts
def test_the_records_count_every_mutating_call(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, inline):
        bundle = made.bundle()
        counter = Counter()
        with counter.installed():
            outcome = inline.clean(bundle)
        assert_cleaned(outcome, bundle)
        assert sum(one.mutations for one in outcome.steps) == counter.calls > 25
