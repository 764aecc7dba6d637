"""Whatever a dead bundle holds, names or points at: nothing but the bundle's own is removed."""

import functools
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.safety.attacks import ATTACKS, BLOCKED, CLEANED, KEPT, UNSEEN, Attack
from tests.safety.ground import NOW, ground
from tests.support.mountns import in_private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]


class Told(NamedTuple):
    """What one `clean` over all of them came to."""

    ends: dict[str, str]
    details: dict[str, str]
    verdicts: dict[str, str]
    code: int
    harm: list[str]


@functools.cache
def attacked() -> Told:
    """Arm a bundle for every attack and clean them all by one run of the program."""
    with tempfile.TemporaryDirectory() as name:
        return in_private_mounts(lambda: _attacked(Path(name)))


def _attacked(base: Path) -> Told:
    with ground(base) as on:
        ids = {}
        for attack in ATTACKS:
            bundle = on.dead(attack.arm.__name__.replace("_", "-"))
            ids[attack.name] = bundle.path.name
            attack.arm(on, bundle)
        on.remember()
        verdicts = on.run("scan", "-o", "json").verdicts()
        ran = on.run("clean", *NOW)
        results = ran.results()
        ends = {}
        for attack in ATTACKS:
            id_ = ids[attack.name]
            default = KEPT if id_ in verdicts else UNSEEN
            ends[attack.name] = results[id_]["result"] if id_ in results else default
        details = {name: str(results.get(id_)) for name, id_ in ids.items()}
        seen = {name: verdicts.get(id_, "-") for name, id_ in ids.items()}
        return Told(ends, details, seen, ran.code, on.harm())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.name.replace(" ", "-"))
def test_the_bundle_ends_as_it_should(attack: Attack) -> None:
    told = attacked()
    assert told.ends[attack.name] == attack.expected, (
        told.verdicts[attack.name],
        told.details[attack.name],
    )


def test_nothing_else_was_harmed() -> None:
    told = attacked()
    assert told.harm == []
    assert {CLEANED, KEPT, BLOCKED, UNSEEN} == set(told.ends.values())
    assert told.code == 75  # something stayed blocked
