"""The page at `/`: what it shows, and that nothing hostile becomes markup."""

import base64
import hashlib
import re
from html import unescape

import pytest
from msgspec.structs import replace

from reconciler.model.evidence import Labels
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import Layout
from reconciler.model.observations import Guard, GuardsChecked, Listed, Looked, Refusal, Seen
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result
from reconciler.model.policy import Match, Policies, Rule
from reconciler.present import page, status_text, style
from reconciler.present.status import (
    About,
    Attempts,
    ConfigStatus,
    JournalStatus,
    Status,
    gather,
)
from tests.decide.world import ENFORCE, World, dead, key, newborn, orphaned, running
from tests.present.test_every_value import status as everything_wrong

HOSTILE = "<script>alert(1)</script>\\x0a\"'&"


WELL = ConfigStatus(["/etc/containerd-reconciler/config.toml"], 1.0, ok=True, after_restart=[])


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
    found = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert found
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in style.POLICY
    assert "style=" not in html
    assert "unsafe" not in style.POLICY


def test_trouble_is_said_at_the_top() -> None:
    world, attempts = busy_world()
    attempts.observed(
        world.stamp, GuardsChecked((Refusal(Guard.MOUNT_NAMESPACE, "own mount namespace"),))
    )
    broken = ConfigStatus(
        [], 1.0, ok=False, after_restart=[], error="config.toml: mode: must be observe or enforce"
    )
    html = page.render(gather(world.engine, attempts, about(config=broken), world.stamp))
    assert "not acting: own mount namespace" in html
    assert "must be observe or enforce" in html


def test_an_empty_node_says_so() -> None:
    world = World()
    html = page.render(gather(world.engine, Attempts(Layout()), about(), world.stamp))
    assert "Nothing: everything here is alive or in order." in html


def with_pods() -> Status:
    """The same node on Kubernetes: what is blocked and what is lost belong to pods."""
    world, attempts = busy_world()
    for name, look in (("k8s.io/busy", dead(4, age=90_000.0)), ("k8s.io/lost", orphaned(5))):
        pod = Labels(known=True, pod_namespace="shop", pod=f"cart-{name[-4:]}", container="nginx")
        world.look(replace(look, labels=pod), name)
    attempts = Attempts(Layout(), world.engine.labels)
    for name in ("k8s.io/busy", "k8s.io/dead"):
        attempts.observed(world.stamp, Outcome(key(name), Identity(1, 4, 1), Result.CLEANED))
    return gather(world.engine, attempts, about(), world.stamp)


def test_pods_stand_before_ids_wherever_one_is_named() -> None:
    html = page.render(with_pods())
    for name, pod in (("k8s.io/busy", "shop/cart-busy/nginx"), ("k8s.io/lost", "shop/cart-lost")):
        assert re.search(rf"<b>{pod}[^<]*</b> <code>{name}</code>", html)
    results = html.partition("Recent activity")[2]
    assert "<b>shop/cart-busy/nginx</b> <code>k8s.io/busy</code>" in results
    assert '<td class="name"><code>k8s.io/dead</code>' in results, "without a pod it is its id"


def test_a_pod_is_known_after_its_config_json_is_lost() -> None:
    world = World(Policies(default=ENFORCE))
    world.listed(a=1)
    labels = Labels(known=True, pod_namespace="shop", pod="cart-0", container="nginx")
    world.look(replace(running(1), labels=labels))
    world.look(dead(1))
    world.node()
    assert not world.view().look.labels.pod
    told = gather(world.engine, Attempts(Layout()), about(), world.stamp, "cart-0")
    assert [one.pod and one.pod.path for one in told.bundles] == ["shop/cart-0/nginx"]


def test_the_node_is_named(status: Status) -> None:
    html = page.render(replace(status, node="worker-3<b>"))
    assert "<h1>worker-3&lt;b&gt;</h1>" in html
    assert re.search("<title>[^<]*worker-3&lt;b&gt;[^<]*</title>", html)


def test_zero_has_no_colour(status: Status) -> None:
    html = page.render(status)
    assert '<b class="running">2</b>' in html
    assert "<b>0</b>stopped" in html
    assert not re.search('<b class="[^"]*">0', html)


def test_what_is_protected_needs_no_attention() -> None:
    rule = Rule(Match(id="keep"), replace(ENFORCE, name="payments", protect=True))
    world = World(Policies(default=replace(ENFORCE, grace=60.0), rules=(rule,)))
    world.listed(keep=1, lost=2, dead=3, young=4)
    for name, look in (
        ("keep", dead(1)),
        ("lost", orphaned(2)),
        ("dead", dead(3)),
        ("young", newborn(4)),
    ):
        world.look(look, f"ns/{name}")
    world.node()
    told = gather(world.engine, Attempts(Layout()), about(), world.stamp)
    assert [one.id for one in told.bundles] == ["lost", "dead", "young", "keep"]
    attention, _, others = page.render(told).partition("Left alone on purpose")
    assert re.findall("ns/([a-z]+)</code>", attention) == ["lost", "dead"]
    assert re.findall("ns/([a-z]+)</code>", others) == ["young", "keep"]
    assert "rule payments" in others
    for one in ("lost", "dead"):
        world.look(None, f"ns/{one}")
    told = gather(world.engine, Attempts(Layout()), about(), world.stamp)
    assert "Nothing: everything here is alive or in order." in page.render(told)


def test_a_tree_that_cannot_be_read_is_told_until_it_can_be() -> None:
    world, attempts = busy_world()
    for listed, told in (
        (Listed(answered=True, present=True, sandboxes=False), "listing: the tree of sandboxes"),
        (Listed(answered=False, present=True), "listing: the state tree cannot be read"),
        (Listed(answered=True, present=True), ""),
    ):
        attempts.observed(world.stamp, listed)
        lines = status_text.lines(gather(world.engine, attempts, about(), world.stamp))
        assert told in "\n".join(lines)
    assert attempts.unread == ""


def test_page_and_terminal_name_the_same_troubles() -> None:
    told = replace(
        everything_wrong("why"),
        journal=JournalStatus("/var/log/x", 3, "No space left on device"),
        backend_trouble="fs.inotify.max_user_watches",
        listing_trouble="the state tree cannot be read",
    )
    told = replace(told, summary=replace(told.summary, wedged_shims=1))
    lines = list(status_text.lines(told))[2:]
    assert len(lines) >= 10
    assert "the journal misses 3 records: No space left on device" in lines
    shown = re.findall('<p class="alarm" role="alert">(.*?)</p>', page.render(told))
    assert [unescape(one) for one in shown] == lines


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["busy", "lost"]),
        ("CART", ["busy", "lost"]),
        ("shop/cart-lost/nginx", ["lost"]),
        ("k8s.io/bus", ["busy"]),
        ("orphaned", ["lost"]),
        ("mount busy", ["busy"]),
        ("nowhere", []),
    ],
)
def test_only_what_mentions_a_text_is_listed(text: str, found: list[str]) -> None:
    world, attempts = busy_world()
    pod = Labels(known=True, pod_namespace="shop", pod="cart-lost", container="nginx")
    world.look(replace(orphaned(5), labels=pod), "k8s.io/lost")
    pod = replace(pod, pod="cart-busy")
    world.look(replace(dead(4, age=90_000.0), labels=pod), "k8s.io/busy")
    told = gather(world.engine, attempts, about(), world.stamp, text)
    assert [one.id for one in told.bundles] == found
    assert told.omitted == 0
    assert told.summary.bundles == 4, "all are counted"
    html = page.render(told, page.wanted(f"q={text}"))
    attention = html.partition("Recent activity")[0]
    assert ("Nothing that mentions this." in attention) == (not found)
    assert (f"mentions <b>{text}</b>" in html) == bool(text)


def test_a_filter_is_typed_without_a_script_and_without_being_interrupted(status: Status) -> None:
    refresh = 'http-equiv="refresh"'
    assert '<a href="/?filter">' in page.render(status)
    assert page.wanted("") == page.wanted("x=1&&=") == page.ALL
    editing = page.render(status, page.wanted("filter&q=%22%3e%3cb%3e"))
    assert refresh not in editing
    assert 'name="q" value="&quot;&gt;&lt;b&gt;"' in editing
    assert "form-action 'self'" in style.POLICY
    shown = page.wanted("q=+a%26b%3d1+")
    assert shown == page.Filter("a&b=1")
    html = page.render(status, shown)
    assert refresh in html
    (change,) = re.findall('<a href="/[?](filter[^"]*)">Change', html)
    assert page.wanted(unescape(change)) == page.Filter("a&b=1", editing=True)
    assert len(page.wanted("q=" + "x" * 10_000).text) == 256


def test_on_a_narrow_window_each_number_says_what_it_is(status: Status) -> None:
    html = page.render(status)
    assert html.count('<td class="num') == html.count("data-head=")
    assert re.search(r"@media\(max-width:\d+rem\)", style.STYLE)


def test_a_node_with_thousands_of_leftovers_gives_a_small_page() -> None:
    world = World(Policies(default=ENFORCE))
    world.listed(**{f"b{n}": n + 1 for n in range(3000)})
    for n in range(3000):
        world.look(dead(n + 1), f"ns/b{n}")
    world.node()
    status = gather(world.engine, Attempts(Layout()), about(), world.stamp)
    assert status.omitted == 2500
    assert len(page.render(status)) < 400_000
