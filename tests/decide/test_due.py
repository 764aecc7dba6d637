"""What a budget shortens, and what it never does: the verdict and the time between the looks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.model.evidence import Look, ShimState
from reconciler.model.policy import Match, Policies, Policy, Rule
from tests.decide.world import ENFORCE, EPOCH, World, dead, running

HOUR = 3600.0
NAMES = ("ns/a", "ns/b", "other/c", "other/d")
ENOUGH = 10.0 * HOUR

seconds = st.sampled_from([0.0, 1.0, 5.0, 60.0, HOUR])
sizes = st.sampled_from([None, 1, 5_000, 10_000])
waits = st.builds(
    Policy,
    enforce=st.just(value=True),
    grace=seconds,
    threshold=seconds,
    max_age=st.sampled_from([None, 1.0, 60.0, HOUR]),
    max_size=sizes,
    between_looks=seconds,
)
policies = st.builds(
    lambda default, rule, node: Policies(
        default=default,
        rules=(Rule(Match(namespace="other"), replace(rule, name="other")),),
        node_max_size=node,
    ),
    waits,
    waits,
    sizes,
)


def look_at(inode: int) -> st.SearchStrategy[Look]:
    ages = st.sampled_from([0.0, 30.0, HOUR, 1000 * HOUR])
    size = st.sampled_from([0, 4_096, 8_192, 1 << 40])
    return st.builds(dead, st.just(inode), age=ages, size=size) | st.just(running(inode))


looks = st.tuples(*[look_at(inode) for inode, _ in enumerate(NAMES, 1)])


def judged(policies: Policies, tree: tuple[Look, ...]) -> World:
    world = World(policies)
    for name, look in zip(NAMES, tree, strict=False):
        world.look(look, name)
    world.node()
    return world


def policy_of(policies: Policies, name: str) -> Policy:
    return policies.rules[0].policy if name.startswith("other/") else policies.default


def leftovers(tree: tuple[Look, ...]) -> set[str]:
    return {n for n, one in zip(NAMES, tree, strict=True) if one.shim.state is ShimState.DEAD}


@pytest.mark.safety
@given(policies=policies, tree=looks)
def test_no_budget_shortens_the_time_between_the_looks(
    policies: Policies, tree: tuple[Look, ...]
) -> None:
    world = judged(policies, tree)
    for end in sorted({policy_of(policies, name).between_looks for name in NAMES} - {0.0}):
        world.wait(end - 0.1 - world.now)
        early = {name for name in NAMES if policy_of(policies, name).between_looks >= end}
        assert early.isdisjoint(world.cleans())
    world.wait(ENOUGH)
    assert set(world.cleans()) == leftovers(tree)


@pytest.mark.safety
@given(
    policies=policies,
    tree=looks,
    grace=seconds | st.none(),
    threshold=seconds | st.none(),
)
def test_no_rule_and_no_budget_shortens_a_wait_that_was_typed(
    policies: Policies, tree: tuple[Look, ...], grace: float | None, threshold: float | None
) -> None:
    world = judged(policies.at_least(grace=grace, threshold=threshold), tree)
    dying = {n: EPOCH - one.newest_mtime for n, one in zip(NAMES, tree, strict=True)}
    for moment in sorted({grace or 0.0, *((threshold or 0.0) - age for age in dying.values())}):
        if moment > world.now:
            world.wait(moment - 0.1 - world.now)
            early = {n for n in NAMES if moment in (grace, (threshold or 0.0) - dying[n])}
            assert early.isdisjoint(world.cleans())
    world.wait(ENOUGH)
    assert set(world.cleans()) == leftovers(tree)


def test_a_size_budget_makes_the_oldest_due_as_soon_as_two_looks_allow() -> None:
    policy = replace(ENFORCE, grace=HOUR, max_size=1, between_looks=5.0)
    world = judged(Policies(default=policy), (dead(1, age=100.0),))
    world.wait(4.9)
    assert world.cleans() == []
    world.wait(0.2)
    assert world.cleans() == ["ns/a"]
