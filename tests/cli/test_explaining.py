"""What `explain` says follows from what it found, also of others that share a shim."""

import pytest
from msgspec.structs import replace

from reconciler.cli.explaining import keeps_shim
from reconciler.model.evidence import Look
from reconciler.model.policy import Match, Policies, Policy, Rule, Shims
from tests.decide.world import ENFORCE, World, stopped

KILL = replace(ENFORCE, shims=Shims.KILL)


def serves(ino: int, group: str) -> Look:
    look = stopped(ino)
    shim = replace(look.shim, group=group, socket=f"/run/containerd/s/{group}")
    return replace(look, shim=shim)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (KILL, ""),
        (replace(KILL, protect=True), "protects it"),
        (replace(KILL, shims=Shims.REPORT), "only reported"),
        (replace(KILL, enforce=False), "only be observed"),
    ],
)
@pytest.mark.parametrize("group", ["a", "other"])
def test_whoever_shares_a_shim_keeps_it(policy: Policy, why: str, group: str) -> None:
    rule = Rule(Match(id="b"), replace(policy, name="db"))
    policies = Policies(default=KILL, rules=(rule,))
    world = World(policies)
    world.listed(a=1, b=2)
    world.look(serves(1, "a"))
    world.look(serves(2, group), "ns/b")
    world.node()
    kept = keeps_shim(world.view("ns/a"), world.engine.views(world.stamp.mono), policies)
    assert kept.startswith("ns/b may share it: ") is (bool(why) and group == "a")
    assert why in kept or group != "a"


def test_where_nothing_is_enforced_only_what_would_keep_it_counts() -> None:
    observing = replace(KILL, enforce=False)
    for protect in (True, False):
        rule = Rule(Match(id="b"), replace(observing, protect=protect, name="db"))
        policies = Policies(default=observing, rules=(rule,))
        world = World(policies)
        world.listed(a=1, b=2)
        world.look(serves(1, "a"))
        world.look(serves(2, "a"), "ns/b")
        world.node()
        views = world.engine.views(world.stamp.mono)
        assert bool(keeps_shim(world.view("ns/a"), views, policies)) is protect
