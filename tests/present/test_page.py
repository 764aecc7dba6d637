"""The page at `/`: what it shows, and that nothing hostile becomes markup."""

import base64
import hashlib
import re

import pytest
from msgspec.structs import replace

from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import Layout
from reconciler.model.observations import Guard, GuardsChecked, Listed, Looked, Refusal, Seen
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result
from reconciler.model.policy import Policies
from reconciler.present import page
from reconciler.present.status import About, Attempts, ConfigStatus, Status, gather
from tests.decide.world import ENFORCE, World, dead, key, orphaned, running

HOSTILE = "<script>alert(1)</script>\\x0a\"'&"


WELL = ConfigStatus(["/etc/containerd-reconciler/config.toml"], 1.0, ok=True, error="")


def about(mode: str = "enforce", config: ConfigStatus = WELL) -> About:
    return About("node-1", "1.2.3", mode, 42, "inotify", 3600.0, ready=True, config=config)


def busy_world() -> tuple[World, Attempts]:
    """A node with something of everything."""
    world = World(Policies(default=replace(ENFORCE, grace=60.0)))
    attempts = Attempts(Layout())
    names = ["default/web", "default/db", "k8s.io/dead", "k8s.io/busy", "k8s.io/lost"]
    looks = [running(1), running(2), dead(3), dead(4, age=90_000.0), orphaned(5)]
    seen = tuple(Seen(key(n), look.identity) for n, look in zip(names, looks, strict=True))
    world.observe(Listed(answered=True, present=True, bundles=seen))
    for name, look in zip(names, looks, strict=True):
        world.look(look, name)
    world.node()
    world.wait(61)
    holder = Holder(4711, "tail", "cwd")
    blocked = Outcome(
        key("k8s.io/busy"),
        Identity(1, 4, 1),
        Result.BLOCKED,
        BlockReason.MOUNT_BUSY,
        "rootfs is busy",
        holders=(holder,),
    )
    for outcome in (blocked, Outcome(key("k8s.io/dead"), Identity(1, 3, 1), Result.CLEANED)):
        attempts.observed(world.stamp, outcome)
        world.observe(outcome)
    return world, attempts


@pytest.fixture
def status() -> Status:
    world, attempts = busy_world()
    return gather(world.engine, attempts, about(), world.stamp)


def test_what_needs_attention_is_shown_with_its_reason_and_who_is_in_the_way(
    status: Status,
) -> None:
    html = page.render(status)
    assert "k8s.io/busy" in html
    assert "tail (4711, cwd)" in html
    assert "k8s.io/lost" in html
    assert "containerd cannot manage it" in html
    assert "default/web" not in html, "living bundles are counted, not listed"


def test_it_says_what_comes_next_and_that_an_observer_removes_nothing(status: Status) -> None:
    html = page.render(status)
    assert re.search(r">retry in [\d.]+s<", html), "the blocked one is tried again"
    assert "nothing is removed" not in html
    world = World(Policies(default=replace(ENFORCE, enforce=False, grace=60.0)))
    world.listed(a=1)
    world.look(dead())
    world.node()
    told = gather(world.engine, Attempts(Layout()), about(mode="observe"), world.stamp)
    html = page.render(told)
    assert "<b>observe</b> (nothing is removed)" in html
    assert ">due in 1m<" in html


def test_a_foreign_thing_is_counted_where_there_is_one() -> None:
    world = World(Policies(default=ENFORCE))

    def drawn() -> str:
        return page.render(gather(world.engine, Attempts(Layout()), about(), world.stamp))

    assert '<b class="foreign">' not in drawn()
    world.observe(Looked(BundleKey("ns", HOSTILE), dead()))
    assert '<b class="foreign">1</b>' in drawn()


def test_what_was_cleaned_is_shown(status: Status) -> None:
    assert [one.result.result for one in status.recent] == ["cleaned", "blocked"]
    assert "k8s.io/dead" in page.render(status)


def test_counts_are_complete(status: Status) -> None:
    assert status.summary.bundles == 4
    assert status.summary.verdicts["running"] == 2
    assert status.summary.phases["blocked"] == 1
    assert status.summary.blocked == {"mount busy": 1}


def test_hostile_names_stay_text() -> None:
    world = World(Policies(default=ENFORCE))
    name = BundleKey("ns", HOSTILE)
    world.observe(Listed(answered=True, present=True, bundles=(Seen(name, Identity(1, 1, 1)),)))
    world.observe(Looked(name, dead()))
    world.node()
    html = page.render(gather(world.engine, Attempts(Layout()), about(), world.stamp))
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_nothing_comes_from_outside_and_the_policy_allows_only_its_own_style(
    status: Status,
) -> None:
    html = page.render(status)
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.POLICY
    assert "style=" not in html
    assert "unsafe" not in page.POLICY


def test_trouble_is_said_at_the_top() -> None:
    world, attempts = busy_world()
    attempts.observed(
        world.stamp, GuardsChecked((Refusal(Guard.MOUNT_NAMESPACE, "own mount namespace"),))
    )
    broken = ConfigStatus([], 1.0, ok=False, error="config.toml: mode: must be observe or enforce")
    html = page.render(gather(world.engine, attempts, about(config=broken), world.stamp))
    assert "Not acting: own mount namespace" in html
    assert "must be observe or enforce" in html


def test_an_empty_node_says_so() -> None:
    world = World()
    html = page.render(gather(world.engine, Attempts(Layout()), about(), world.stamp))
    assert "Nothing: everything here is alive or in order." in html


def test_a_node_with_thousands_of_leftovers_gives_a_small_page() -> None:
    world = World(Policies(default=ENFORCE))
    world.listed(**{f"b{n}": n + 1 for n in range(3000)})
    for n in range(3000):
        world.look(dead(n + 1), f"ns/b{n}")
    world.node()
    status = gather(world.engine, Attempts(Layout()), about(), world.stamp)
    assert status.omitted == 2500
    assert len(page.render(status)) < 400_000
