"""Which pids were given out between two moments, and when that is not certain."""

import os
from pathlib import Path

import pytest
from typing_extensions import override

from reconciler.clock import SystemClock
from reconciler.probe import pids
from reconciler.probe.pids import Moment, given_out, moment

pytestmark = pytest.mark.safety

ROUND = 1 << 15


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of few pids."""
    kernel = tmp_path / "sys" / "kernel"
    kernel.mkdir(parents=True)
    (kernel / "pid_max").write_text(f"{ROUND}\n")
    (kernel / "ns_last_pid").write_text("7\n")
    monkeypatch.setattr(pids, "PROC", os.fsencode(tmp_path))
    return kernel


def possible(tmp_path: Path, said: str) -> bytes:
    path = tmp_path / "possible"
    path.write_text(said)
    pids._most.cache_clear()
    return os.fsencode(path)


def between(before: int | None, last: int | None, seconds: float, where: bytes) -> range | None:
    return given_out(Moment(before, 50.0, 60.0), Moment(last, 50.0, 50.0 + seconds), where)


@pytest.mark.parametrize(
    ("before", "last", "seconds", "expected"),
    [
        (5, 5, 0.0, range(0)),
        (5, 8, 0.001, range(6, 9)),
        (5, 8, 0.008, range(6, 9)),
        (8, 5, 0.001, None),
        (5, 8, 0.017, None),
        (5, 5, 0.017, None),
        (None, 5, 0.0, None),
        (5, None, 0.0, None),
    ],
    ids=[
        "nobody",
        "three",
        "three, in a while",
        "they began again",
        "they may have gone round",
        "they may have gone round to the same",
        "it was not told",
        "it is not told",
    ],
)
def test_pids_are_given_out_in_order(
    tmp_path: Path, before: int | None, last: int | None, seconds: float, expected: range | None
) -> None:
    assert between(before, last, seconds, possible(tmp_path, "0-1\n")) == expected


@pytest.mark.parametrize(
    ("said", "longest"),
    [
        ("0\n", 0.032),
        ("0-1\n", 0.016),
        ("0,3\n", 0.008),
        ("0-3,8-63\n", 0.003),
        ("\n", 0.003),
        ("many\n", 0.003),
    ],
)
def test_the_more_processors_there_can_be_the_sooner_they_go_round(
    tmp_path: Path, said: str, longest: float
) -> None:
    where = possible(tmp_path, said)
    assert between(5, 8, longest, where) == range(6, 9)
    assert between(5, 8, longest * 1.1, where) is None
    assert between(5, 8, 0.0035, os.fsencode(tmp_path / "nowhere")) is None


def test_without_a_largest_pid_nothing_is_certain(small: Path, tmp_path: Path) -> None:
    where = possible(tmp_path, "0\n")
    assert between(5, 8, 0.0, where) == range(6, 9)
    (small / "pid_max").write_text("")
    assert between(5, 8, 0.0, where) is None


def test_a_moment_is_as_long_as_it_took_to_tell_it() -> None:
    class Slow(SystemClock):
        now = 0.0

        @override
        def monotonic(self) -> float:
            self.now += 1.0
            return self.now

    assert moment(Slow()) == Moment(7, 1.0, 2.0)
    assert given_out(Moment(7, 1.0, 2.0), Moment(7, 2.0, 2.001)) is None


def test_a_machine_that_does_not_tell_has_no_last_pid(small: Path) -> None:
    (small / "ns_last_pid").unlink()
    assert moment(SystemClock()).last is None
