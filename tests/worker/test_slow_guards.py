"""Guards that are slow: which part was, for how long, and what is asked again."""

from pathlib import Path

from msgspec.structs import replace
from typing_extensions import override

from reconciler.clock import SystemClock
from reconciler.model.observations import is_unsure
from reconciler.worker.guards import NodeGuards, Preflight, refusals
from reconciler.worker.messages import PreflightReport, Progress
from reconciler.worker.preflight import SLOW, Timed
from tests.worker.test_guards import HERE, NO, NONE, layout_at


class Steps(SystemClock):
    """A clock that is put forward by hand."""

    now = 0.0

    @override
    def monotonic(self) -> float:
        return self.now


def test_a_part_that_took_long_is_named_with_how_long() -> None:
    clock, noted = Steps(), list[Progress]()
    timed = Timed(clock, noted.append)
    for name, took in (("the pass over /proc", 4.25), ("the mount table", SLOW / 2)):
        with timed.part(name):
            assert noted[-1] == Progress(name), "should it never end, that is where it hangs"
            clock.now += took
    assert timed.slow == ["the pass over /proc took 4.2 s"]


async def test_what_was_slow_is_said_until_the_next_check(tmp_path: Path) -> None:
    answers: list[PreflightReport | str] = [
        replace(HERE, slow=("the pass over /proc took 4.2 s",)),
        HERE,
        "it died",
    ]

    async def stand() -> PreflightReport | str:
        return answers.pop(0)

    guards = NodeGuards(layout_at(tmp_path), stand, None)
    seen = [(bool(await guards.check()), guards.slow) for _ in range(3)]
    assert seen == [(False, ("the pass over /proc took 4.2 s",)), (False, ()), (True, ())]


def test_a_question_without_an_answer_is_asked_again_and_a_finding_is_not() -> None:
    silent = replace(HERE, same_pids=NONE, same_time=NONE, same_mounts=NONE, shared_tree=NONE)
    for stood, unsure in (
        (silent, True),
        (replace(HERE, fstype=""), True),
        (replace(HERE, same_pids=NO), False),
        (replace(silent, openat2=False), False),
    ):
        refused = refusals(Preflight(stood, b"/run/containerd", allow_disk=False))
        assert refused
        assert is_unsure(refused) == unsure, refused
