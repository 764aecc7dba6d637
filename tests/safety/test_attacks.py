"""Whatever a dead bundle holds, names or points at: nothing but the bundle's own is removed."""

import functools
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.mark import ParameterSet

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


FAULTS = {
    "rootfs is a symlink": ("I12", "symlink inside"),
    "rootfs is a bind of data in memory": ("I1", "same-filesystem bind"),
    "a directory is mounted beside rootfs": ("I13", "foreign mount"),
    "a file is mounted over config json": ("file bind over config.json",),
    "a directory is mounted over the bundle": ("I3",),
    "links lead out of the bundle": ("symlink inside", "odd names"),
    "special files lie in it": ("FIFO, socket, device",),
    "the bundle is a symlink": ("id or namespace replaced by a symlink",),
    "the namespace is a symlink": ("id or namespace replaced by a symlink",),
    "the work directory is a mount": ("I1", "I3"),
    "cgroup paths climb out": ("I14",),
    "cgroup paths name the root": ("I14",),
    "cgroup paths name a live task": ("I14",),
    "init pid is somebody elses": ("init.pid of a reused PID",),
}
"""Which faults of the catalogue an attack shows besides I6."""


def shown(attack: Attack) -> ParameterSet:
    faults = pytest.mark.fault("I6", *FAULTS.get(attack.name, ()))
    return pytest.param(attack, marks=faults, id=attack.name.replace(" ", "-"))


def test_every_attack_that_shows_a_fault_is_there() -> None:
    assert FAULTS.keys() <= {attack.name for attack in ATTACKS}


@pytest.mark.parametrize("attack", [shown(attack) for attack in ATTACKS])
def test_the_bundle_ends_as_it_should(attack: Attack) -> None:
    told = attacked()
    assert told.ends[attack.name] == attack.expected, (
        told.verdicts[attack.name],
        told.details[attack.name],
    )


@pytest.mark.fault("I6", "live container", "stopped task")
def test_nothing_else_was_harmed() -> None:
    told = attacked()
    assert told.harm == []
    assert {CLEANED, KEPT, BLOCKED, UNSEEN} == set(told.ends.values())
    assert told.code == 75  # something stayed blocked
