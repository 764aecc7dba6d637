"""Whose is a process, beyond doubt? Every way to be in doubt, alone and together."""

import itertools
from collections.abc import Callable

import pytest

from reconciler.decide.ownership import (
    Claim,
    Evidence,
    Group,
    Member,
    Proven,
    Record,
    Unproven,
    prove,
)

pytestmark = pytest.mark.safety

BUNDLE = "/run/containerd/io.containerd.runtime.v2.task/default/web"
PIDS, FREEZER = Group("/cg/pids", "/default/web"), Group("/cg/freezer", "/default/web")
GROUPS = frozenset({PIDS, FREEZER})
INIT, OTHER = Member(7, 500, GROUPS), Member(8, 600, GROUPS)
RECORD = Record(BUNDLE, 7, 500, GROUPS, carries_id=True)
OWN = Evidence(frozenset({BUNDLE}), RECORD, members=(INIT, OTHER))

Resync = Callable[[Evidence], Evidence]


def record(**changes: object) -> Resync:
    return lambda e: e._replace(record=Record(**{**e.record._asdict(), **changes}))


def claim(*paths: str, init: int | None = None) -> Resync:
    new = Claim("default/other", frozenset(paths), init)
    return lambda e: e._replace(claims=(*e.claims, new))


def changed(member: Member, **changes: object) -> Member:
    return Member(**{**member._asdict(), **changes})


def other(**changes: object) -> Resync:
    """Change the last member alone."""
    return lambda e: e._replace(members=(*e.members[:-1], changed(e.members[-1], **changes)))


def silent(evidence: Evidence) -> Evidence:
    return evidence._replace(claims=(*evidence.claims, Claim("default/torn", None)))


DOUBTS: dict[str, tuple[Resync, str]] = {
    "the state is another bundle's": (record(bundle=BUNDLE + "2"), "is that of"),
    "the state does not say whose it is": (record(bundle=None), "which bundle"),
    "no cgroup is named": (record(groups=frozenset()), "no cgroup"),
    "a cgroup does not carry the id": (record(carries_id=False), "carry the id"),
    "a cgroup cannot be asked": (record(answered=False), "could not be asked"),
    "the start of init is not known": (record(start=None), "when its init started"),
    "another has the same cgroup": (claim("/default/web"), "default/other"),
    "another has one below it": (claim("/default/web/deep/down"), "default/other"),
    "another has one above it": (claim("/default"), "default/other"),
    "one of them is another's init": (claim("/elsewhere", init=8), "default/other"),
    "another cannot be asked": (silent, "default/torn"),
    "another containerd has one of its name": (
        lambda e: e._replace(elsewhere="another containerd has it"),
        "another containerd",
    ),
    "one is under a living shim": (other(shim=99), "pid 8 belongs to a living shim (pid 99)"),
    "one has ancestors that cannot be asked": (other(descent_known=False), "pid 8"),
    "one's start is not known": (other(start=None), "pid 8"),
    "one is in one cgroup alone": (other(groups=frozenset({PIDS})), "pid 8 is not in"),
    "one is in none of them": (other(groups=frozenset()), "pid 8 is not in"),
    "one is older than the container": (other(start=499), "pid 8 started before"),
    "one has the pid of init, reused": (other(pid=7, start=501), "pid 7 is not the init"),
}


def test_everybody_in_cgroups_that_are_its_alone_is_its_own() -> None:
    assert prove(OWN) == Proven(frozenset({7, 8}))


def test_members_outlive_their_init() -> None:
    """In a container with the host's pids they do."""
    assert prove(OWN._replace(members=(OTHER,))) == Proven(frozenset({8}))


def test_neighbours_beside_it_do_not_matter() -> None:
    beside = claim("/default/web2", "/default/we", "/k8s.io/web", init=9)
    assert prove(beside(OWN)) == Proven(frozenset({7, 8}))


@pytest.mark.fault("I15")
@pytest.mark.parametrize(("doubt", "why"), DOUBTS.values(), ids=DOUBTS)
def test_one_doubt_is_enough_and_is_named(doubt: Resync, why: str) -> None:
    found = prove(doubt(OWN))
    assert isinstance(found, Unproven)
    assert why in found.why


@pytest.mark.fault("I15")
def test_no_doubt_makes_up_for_another() -> None:
    """Nobody is ever proven under any two or three doubts."""
    for number in (2, 3):
        for resyncs in itertools.permutations(DOUBTS.values(), number):
            evidence = OWN
            for doubt, _ in resyncs:
                evidence = doubt(evidence)
            assert isinstance(prove(evidence), Unproven)


@pytest.mark.fault("I15")
def test_nothing_but_the_bundle_s_own_state_names_it() -> None:
    """Each of pid, start time and place alone, and any two of them, are also a stranger's."""
    right = {"pid": 7, "start": 500, "groups": GROUPS}
    wrong = {"pid": 70, "start": 400, "groups": frozenset({PIDS})}
    for choice in itertools.product((True, False), repeat=3):
        told = {
            name: (right if ok else wrong)[name] for name, ok in zip(right, choice, strict=True)
        }
        found = prove(OWN._replace(members=(changed(INIT, **told),)))
        assert isinstance(found, Proven) is (choice[1] and choice[2])
