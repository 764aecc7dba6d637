"""The verdict table, over every combination of evidence there is."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from reconciler.decide import verdicts
from reconciler.decide.verdicts import RULES, judge, may_be_abandoned
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Facts,
    InitState,
    Kind,
    RuntimeState,
    ShimState,
    TaskState,
)
from tests.decide.world import DEAD


def everything() -> Iterator[tuple[Facts, bool]]:
    """Every row there is: 172,800 combinations."""
    columns = (
        Kind, (True, False), Answer, ShimState, InitState, CgroupState, RuntimeState, Answer,
        TaskState, (True, False),
    )  # fmt: skip
    for *row, young in itertools.product(*columns):
        yield Facts(*row), young  # type: ignore[arg-type]  # the columns are Facts' own, in order


def truly_dead(facts: Facts) -> bool:
    """What `leftover` must mean, said once more and in other words than the product says it."""
    return (
        facts.kind is Kind.DIRECTORY
        and facts.identifier
        and facts.helper is Answer.NO
        and facts.shim is ShimState.DEAD
        and facts.init in {InitState.DEAD, InitState.ABSENT}
        and facts.cgroup in {CgroupState.EMPTY, CgroupState.GONE}
        and facts.runtime in {RuntimeState.KNOWN, RuntimeState.UNNAMED}
        and facts.task is not TaskState.NONE
        and not (facts.init is InitState.ABSENT and facts.created is Answer.NONE)
    )


@pytest.mark.fault("I5")
def test_leftover_needs_every_witness_and_nothing_else_is_leftover() -> None:
    in_creation = 0
    for facts, young in everything():
        verdict = judge.__wrapped__(facts, young=young).verdict
        if verdict is Verdict.LEFTOVER:
            assert truly_dead(facts), facts
        elif truly_dead(facts):
            in_creation += 1
            assert verdict is Verdict.STARTING
            assert young, facts
            assert facts.init is InitState.ABSENT
            assert facts.created is Answer.NO
            assert facts.task not in {TaskState.DOWN, TaskState.SKIPPED}
    assert in_creation, "no row is in creation: the table was not walked"


def test_what_lives_or_may_live_is_never_leftover() -> None:
    for facts, young in everything():
        alive = (
            facts.shim is ShimState.ALIVE
            or facts.init is InitState.ALIVE
            or facts.cgroup is CgroupState.POPULATED
            or facts.helper is Answer.YES
        )
        if alive:
            assert judge.__wrapped__(facts, young=young).verdict is not Verdict.LEFTOVER


@pytest.mark.fault("I5")
@pytest.mark.parametrize(
    "silent",
    [
        DEAD._replace(helper=Answer.NONE),
        DEAD._replace(shim=ShimState.NONE),
        DEAD._replace(shim=ShimState.UNNAMED),
        DEAD._replace(init=InitState.NONE),
        DEAD._replace(cgroup=CgroupState.NONE),
        DEAD._replace(cgroup=CgroupState.UNNAMED),
        DEAD._replace(runtime=RuntimeState.NONE),
        DEAD._replace(runtime=RuntimeState.ALIEN),
        DEAD._replace(task=TaskState.NONE),
        DEAD._replace(init=InitState.ABSENT, created=Answer.NONE),
    ],
    ids=lambda facts: "-".join(
        f"{name}={a.value}"
        for name, a, b in zip(Facts._fields, facts, DEAD, strict=True)
        if a is not b
    ),
)
def test_any_one_silent_witness_makes_it_unknown(silent: Facts) -> None:
    assert judge(DEAD, young=False).verdict is Verdict.LEFTOVER
    judgement = judge(silent, young=False)
    assert judgement.verdict is Verdict.UNKNOWN
    assert judgement.rule == 6
    assert judgement.reason


FORGETFUL: dict[str, Callable[[Facts], Facts]] = {
    "helper": lambda facts: facts._replace(helper=Answer.NO),
    "shim": lambda facts: facts._replace(shim=ShimState.DEAD),
    "init": lambda facts: facts._replace(init=InitState.DEAD),
    "cgroup": lambda facts: facts._replace(cgroup=CgroupState.GONE),
    "runtime": lambda facts: facts._replace(runtime=RuntimeState.KNOWN),
    "task": lambda facts: facts._replace(task=TaskState.NOT_LISTED),
    "kind": lambda facts: facts._replace(kind=Kind.DIRECTORY),
    "identifier": lambda facts: facts._replace(identifier=True),
}


@pytest.mark.fault("I5")
@pytest.mark.parametrize("forget", FORGETFUL.values(), ids=FORGETFUL)
def test_a_table_that_forgets_one_witness_is_caught(forget: Callable[[Facts], Facts]) -> None:
    """The mutation check: drop one witness from the product's table, and the proof must fail."""

    def forgetful(facts: Facts, *, young: bool) -> Verdict:
        return judge.__wrapped__(forget(facts), young=young).verdict

    caught = [
        facts
        for facts, young in everything()
        if forgetful(facts, young=young) is Verdict.LEFTOVER and not truly_dead(facts)
    ]
    assert caught


LEAKED = DEAD._replace(shim=ShimState.ALIVE, recorded=Answer.NO)
"""A bundle whose shim lives and, as every witness says, serves nobody."""


def served() -> Iterator[tuple[Facts, bool]]:
    """Every row with a living shim, whatever containerd's records say."""
    for facts, young in everything():
        if facts.shim is ShimState.ALIVE:
            for recorded in Answer:
                yield facts._replace(recorded=recorded), young


def truly_leaked(facts: Facts, young: bool) -> bool:
    """What `abandoned` must mean, said once more and in other words than the product says it."""
    return (
        facts.kind is Kind.DIRECTORY
        and facts.identifier
        and facts.helper is Answer.NO
        and facts.shim is ShimState.ALIVE
        and facts.init in {InitState.DEAD, InitState.ABSENT}
        and facts.cgroup in {CgroupState.EMPTY, CgroupState.GONE}
        and facts.runtime in {RuntimeState.KNOWN, RuntimeState.UNNAMED}
        and facts.task in {TaskState.NOT_LISTED, TaskState.NOT_FOUND}
        and facts.recorded is Answer.NO
        and not (facts.init is InitState.ABSENT and facts.created is Answer.NONE)
        and not young
    )


@pytest.mark.fault("I5")
def test_abandoned_needs_every_witness_and_nothing_else_is_abandoned() -> None:
    found = 0
    for facts, young in served():
        verdict = judge.__wrapped__(facts, young=young).verdict
        assert (verdict is Verdict.ABANDONED) == truly_leaked(facts, young), facts
        found += verdict is Verdict.ABANDONED
    assert found


def test_records_say_nothing_of_a_bundle_whose_shim_is_not_known_to_live() -> None:
    for facts, young in itertools.islice(everything(), 0, None, 7):
        if facts.shim is not ShimState.ALIVE:
            verdict = judge.__wrapped__(facts, young=young)
            denied = facts._replace(recorded=Answer.NO)
            assert judge.__wrapped__(denied, young=young) == verdict


@pytest.mark.fault("I5")
@pytest.mark.parametrize("witness", [*FORGETFUL, "recorded", "young"])
def test_a_table_that_forgets_what_makes_a_shim_abandoned_is_caught(witness: str) -> None:
    lenient = {
        "shim": lambda facts: facts._replace(shim=ShimState.ALIVE),
        "recorded": lambda facts: facts._replace(recorded=Answer.NO),
        "young": lambda facts: facts,
    }
    forget = lenient.get(witness) or FORGETFUL[witness]
    rows = everything() if witness == "shim" else served()
    given = (
        (facts._replace(recorded=Answer.NO) if witness == "shim" else facts, young)
        for facts, young in rows
    )
    assert any(
        judge.__wrapped__(forget(facts), young=young and witness != "young").verdict
        is Verdict.ABANDONED
        and not truly_leaked(facts, young)
        for facts, young in given
    )


@pytest.mark.fault("I5")
@pytest.mark.parametrize(
    ("unsure", "verdict"),
    [
        (LEAKED._replace(helper=Answer.NONE), Verdict.STOPPED),
        (LEAKED._replace(helper=Answer.YES), Verdict.IN_TRANSITION),
        (LEAKED._replace(init=InitState.NONE), Verdict.UNKNOWN),
        (LEAKED._replace(init=InitState.ALIVE), Verdict.RUNNING),
        (LEAKED._replace(cgroup=CgroupState.NONE), Verdict.STOPPED),
        (LEAKED._replace(cgroup=CgroupState.UNNAMED), Verdict.STOPPED),
        (LEAKED._replace(cgroup=CgroupState.POPULATED), Verdict.STOPPED),
        (LEAKED._replace(runtime=RuntimeState.NONE), Verdict.STOPPED),
        (LEAKED._replace(runtime=RuntimeState.ALIEN), Verdict.STOPPED),
        (LEAKED._replace(init=InitState.ABSENT, created=Answer.NONE), Verdict.STOPPED),
        (LEAKED._replace(recorded=Answer.NONE), Verdict.STOPPED),
        (LEAKED._replace(recorded=Answer.YES), Verdict.STOPPED),
        *(
            (LEAKED._replace(task=task), Verdict.STOPPED)
            for task in TaskState
            if task not in {TaskState.NOT_LISTED, TaskState.NOT_FOUND}
        ),
    ],
)
def test_any_witness_that_is_silent_or_objects_leaves_a_shim_to_containerd(
    unsure: Facts, verdict: Verdict
) -> None:
    assert judge(LEAKED, young=False).verdict is Verdict.ABANDONED
    assert judge(LEAKED, young=True).verdict is Verdict.STOPPED
    assert judge(unsure, young=False).verdict is verdict


def test_records_are_asked_for_only_where_nothing_else_is_left_to_ask() -> None:
    for facts, young in itertools.islice(served(), 0, None, 7):
        denied = facts._replace(recorded=Answer.NO)
        assert may_be_abandoned(facts, young=young) == truly_leaked(denied, young)


@pytest.mark.parametrize(
    ("facts", "young", "verdict", "rule"),
    [
        (LEAKED, False, Verdict.ABANDONED, 4),
        (DEAD._replace(kind=Kind.SYMLINK), False, Verdict.FOREIGN, 1),
        (DEAD._replace(kind=Kind.OTHER), False, Verdict.FOREIGN, 1),
        (DEAD._replace(identifier=False), False, Verdict.FOREIGN, 1),
        (DEAD._replace(helper=Answer.YES), False, Verdict.IN_TRANSITION, 2),
        (DEAD._replace(shim=ShimState.ALIVE, init=InitState.ALIVE), False, Verdict.RUNNING, 3),
        (DEAD._replace(shim=ShimState.ALIVE), False, Verdict.STOPPED, 4),
        (DEAD._replace(shim=ShimState.ALIVE), True, Verdict.STOPPED, 4),
        (DEAD._replace(shim=ShimState.ALIVE, init=InitState.ABSENT), True, Verdict.STARTING, 4),
        (DEAD._replace(shim=ShimState.ALIVE, init=InitState.ABSENT), False, Verdict.STOPPED, 4),
        (DEAD._replace(init=InitState.ALIVE), False, Verdict.ORPHANED, 5),
        (DEAD._replace(cgroup=CgroupState.POPULATED), False, Verdict.ORPHANED, 5),
        (DEAD._replace(runtime=RuntimeState.ALIEN), False, Verdict.UNKNOWN, 6),
        (DEAD._replace(init=InitState.ABSENT, created=Answer.NO), True, Verdict.STARTING, 7),
        (DEAD._replace(init=InitState.ABSENT, created=Answer.NO), False, Verdict.LEFTOVER, 8),
        (
            DEAD._replace(init=InitState.ABSENT, created=Answer.NO, task=TaskState.DOWN),
            True,
            Verdict.LEFTOVER,
            8,
        ),
        (DEAD, True, Verdict.LEFTOVER, 8),
    ],
)
def test_each_row_of_the_table(facts: Facts, young: bool, verdict: Verdict, rule: int) -> None:
    judgement = judge(facts, young=young)
    assert (judgement.verdict, judgement.rule) == (verdict, rule)


def test_only_a_leftover_that_containerd_lists_is_claimed() -> None:
    assert judge(DEAD._replace(task=TaskState.LISTED), young=False).claimed
    assert not judge(DEAD, young=False).claimed
    alive = DEAD._replace(task=TaskState.LISTED, init=InitState.ALIVE)
    assert not judge(alive, young=False).claimed


def test_every_verdict_has_a_rule_and_a_reason() -> None:
    assert {rule.verdict for rule in RULES} == set(Verdict)
    for facts, young in everything():
        assert judge.__wrapped__(facts, young=young).reason


def test_the_fallback_assumes_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "RULES", ())
    assert judge.__wrapped__(DEAD, young=False).verdict is Verdict.UNKNOWN
