"""Removal under attack loses nothing; and the same race catches every remover that would.

RECONCILER_RACE_MOUNTS and RECONCILER_RACE_SECONDS make it longer; as a command it has no end:
`python -m tests.safety.race --mounts 0`.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.safety.race import EVERY_ATTACK, Report, race
from tests.safety.removers import REMOVERS
from tests.support.mountns import in_private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

SEED = 1  # which moves are made; when each of them comes is up to the kernel
AT_LEAST = 20_000
MOUNTS = int(os.environ.get("RECONCILER_RACE_MOUNTS", "100000"))
SECONDS = float(os.environ.get("RECONCILER_RACE_SECONDS", "45"))


def run(
    top: Path,
    remover: str,
    *,
    attacks: frozenset[str] = EVERY_ATTACK,
    mounts: int = 1 << 40,
    seconds: float = 45,
    at_least: int = 0,
) -> Report:
    report = in_private_mounts(
        lambda: race(
            top,
            REMOVERS[remover],
            mounts=mounts,
            seconds=seconds,
            at_least=at_least,
            seed=SEED,
            attacks=attacks,
        ),
        timeout=4 * seconds + 30,
    )
    sys.stdout.write(f"{remover}: {report}\n")  # shown by -rP, and where the test fails
    return report


@pytest.mark.fault("I1", "I8", "mount or symlink appearing mid-walk")
@pytest.mark.timeout(4 * SECONDS + 60)
def test_nothing_is_lost_to_mounts_symlinks_and_exchanges_at_any_moment(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report = run(tmp_path, "ours", mounts=MOUNTS, seconds=SECONDS, at_least=AT_LEAST)
    record_property("mounts", report.mounts)
    record_property("swaps", report.swaps + report.exchanges)
    record_property("losses", len(report.lost))
    assert report.lost == []
    assert report.mounts >= AT_LEAST, "too slow to prove anything"
    assert report.removed > 100, "the attackers let nothing be removed, so nothing was raced"
    assert report.swaps > 0
    assert report.exchanges > 0
    assert report.blocked["foreign mount"] > 0


def control(remover: str, attacks: set[str], fault: str) -> ParameterSet:
    return pytest.param(remover, attacks, marks=pytest.mark.fault(fault), id=remover)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("remover", "attacks"),
    [
        control("rmtree", {"mount"}, "control: shutil.rmtree"),
        control("detach-first", {"mount"}, "control: lazy detach first"),
        control("device-check", {"mount"}, "control: st_dev only"),
        control("any-object", {"exchange"}, "control: any object of that name"),
        control("look-then-open", {"mount", "swap"}, "control: look for a mount, then open"),
    ],
)
def test_the_race_catches_a_remover_that_loses(
    tmp_path: Path, remover: str, attacks: set[str]
) -> None:
    report = run(tmp_path, remover, attacks=frozenset(attacks))
    assert report.lost, f"{remover} lost nothing: this race proves nothing"
