"""The report in a real browser: what it shows, that filters filter, that 10,000 lanes are drawn."""

import base64
import gzip
import html
import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.journal.reader import Journal
from reconciler.journal.replay import Repeater
from reconciler.model.decisions import Clean, Judged, Judgement, Phase, Vanished, Verdict
from reconciler.model.evidence import Labels
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Looked
from reconciler.present import report
from reconciler.present.records import MARKS
from reconciler.testing.journals import JournalBuilder
from tests.decide.world import dead
from tests.replay.stories import ENFORCE
from tests.support.browser import Browser, browser

NASTY = "</script><img src=x onerror=document.title=1>"


@pytest.fixture
def chromium(tmp_path: Path) -> Browser:
    return Browser.within(tmp_path)


def page_of(journal: Path, target: Path) -> Path:
    read = Journal(journal, pytest.fail)
    lanes, header = report.Lanes(read.header.mono), read.header
    for turn in Repeater().play(read.items()):
        lanes.take(turn.stamp.mono - header.mono, turn.observation, turn.replayed)
    page = lanes.page(journal.name, header.host, header.program, header.wall)
    target.write_bytes(report.render(page))
    return target


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of ten bundles in three namespaces."""
    directory = tmp_path_factory.mktemp("report")
    journal = directory / "run.jsonl"
    with JournalBuilder(journal, ENFORCE) as node:
        for number in range(4):
            node.start(f"default/web-{number}")
        node.start("k8s.io/pod", pod="pod")
        node.start("k8s.io/member", pod="pod")
        node.start("kube-system/dns")
        node.start(f"evil/{NASTY.replace('/', '|')}")
        node.wait("1h")
        node.crash("default/web-0")
        node.wait("1h")
        node.kill_init("default/web-1")
        node.containerd("down")
        node.kill_shim("default/web-2")
        node.wait("20m")
        node.containerd("up")
        node.start("default/late")
        node.mount("default/web-3", "extra")
        node.crash("default/web-3")
        node.wait("20h")
    return page_of(journal, directory / "report.html")


FILTERS = {
    "#ns=default": "5 of 9",
    "#ns=k8s.io": "2 of 9",
    "#only=blocked": "1 of 9",
    "#only=orphaned,blocked": "2 of 9",
    "#only=foreign": "1 of 9",
    "#name=web": "4 of 9",
    "#name=default/late&ns=k8s.io": "0 of 9",
    "#from=7800&to=80000&name=web": "3 of 9",
    "#ns=nowhere&from=x&to=-3&order=?": "9 of 9",
}
POINTED_AT = "#only=blocked&at=0,20000"


@pytest.fixture(scope="module")
def doms(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That day in a browser, at each place of the page that is asked about."""
    chromium = Browser.within(tmp_path_factory.mktemp("doms"))
    return chromium.doms(small, ["", POINTED_AT, *FILTERS])


@pytest.fixture(scope="module")
def what_if(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles under other policies; one is of a pod, and has lost its config.json since."""
    labels = Labels(known=True, pod_namespace="shop", pod="cart-0", container="nginx<b>")
    member, plain = BundleKey("k8s.io", "3f7a" * 16), BundleKey("k8s.io", "plain")
    judgement = Judgement(Verdict.LEFTOVER, 8, "shim dead, init dead")
    lanes = report.Lanes(0.0)
    for at, key, look in (
        (0.0, member, replace(dead(1), labels=labels)),
        (1.0, plain, dead(2)),
        (2.0, member, dead(1)),
    ):
        judged = Judged(key, judgement, Phase.BLOCKED, None, "mount busy" * (key == plain))
        lanes.take(at, Looked(key, look), (judged, Clean(key, look.identity, False, 1)))
    page = lanes.page("run.jsonl", "worker-3", "0", 1_700_000_000.0, "other.toml")
    target = tmp_path_factory.mktemp("what-if") / "report.html"
    target.write_bytes(report.render(page))
    return target


@browser
@pytest.mark.kernel
def test_a_what_if_says_so_and_pods_are_named(what_if: Path, chromium: Browser) -> None:
    names = {"cart-0": 1, "MOUNT BUSY": 1, "init dead": 2, "k8s.io/pl": 1}
    places = {f"#name={name.replace(' ', '%20')}": shown for name, shown in names.items()}
    doms = chromium.doms(what_if, ["#order=name&at=0,5", *places])
    dom = doms["#order=name&at=0,5"]
    assert text(dom, "title") == "run.jsonl: what-if with other.toml"
    assert "<title>run.jsonl: what-if with other.toml</title>" in dom
    assert "worker-3" in text(dom, "about")
    assert '<h2>shop/cart-0/nginx&lt;b&gt;</h2><p class="id">k8s.io/3f7a' in dom
    assert "clean: leftover and due, attempt 1" in dom, "the words of `replay`"
    for place, shown in places.items():
        assert text(doms[place], "shown") == f"{shown} of 2 bundles"


@browser
@pytest.mark.kernel
def test_a_legend_names_every_symbol(doms: dict[str, str]) -> None:
    legend = doms[""].split('id="legend"')[1].partition("</details>")[0]
    assert len(re.findall("<li><canvas", legend)) == len(MARKS) + 2
    assert "a shim or an init ended abnormally" in legend


@browser
@pytest.mark.kernel
@pytest.mark.parametrize("width", [390, 1280])
def test_why_stays_on_the_screen(small: Path, chromium: Browser, width: int) -> None:
    boxes = chromium.boxes(small, width, "#tip", POINTED_AT)
    assert boxes.page <= width, "nothing to scroll to"
    (tip,) = boxes.found
    assert tip.left >= 0
    assert tip.right <= width
    assert tip.right - tip.left > 300
    assert tip.bottom <= boxes.height


def data_of(page: Path) -> dict[str, object]:
    packed = page.read_bytes().split(b'type="text/plain">')[1].split(b"<")[0]
    told: dict[str, object] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return told


def text(dom: str, element: str) -> str:
    found = re.search(rf'id="{element}"[^>]*>(.*?)</(?:span|p|h1|div)>', dom, re.DOTALL)
    assert found, f"no {element}"
    return html.unescape(re.sub("<[^>]+>", " ", found[1])).strip()


def test_a_page_holds_everything_itself(small: Path) -> None:
    source = small.read_text()
    assert not re.search(r"(?:src|href)=|@import|url\(|https?://", source)
    assert "default-src 'none'" in source
    assert NASTY not in source
    lanes = data_of(small)["lanes"]
    assert isinstance(lanes, list)
    assert len(lanes) == 9


def test_lanes_overview_and_pointer_have_one_scale(small: Path) -> None:
    """The mark of an end has its room at the right, and what is pointed at is what is drawn."""
    widths = re.findall(r"[wW]idth - labels - (\w+)", small.read_text())
    assert widths == ["EDGE"] * 4


@browser
@pytest.mark.kernel
def test_every_bundle_is_shown_and_nothing_in_a_name_is_run(doms: dict[str, str]) -> None:
    dom = doms[""]
    assert 'data-ready="yes"' in dom
    assert text(dom, "shown") == "9 of 9 bundles"
    assert text(dom, "title") == "run.jsonl"
    assert "<title>run.jsonl: replay</title>" in dom
    chips = dict(re.findall(r"<span>([a-z]+)</span><b>(\d+)</b>", dom))
    assert chips["blocked"] == "1"
    assert chips["orphaned"] == "1"
    assert int(chips["running"]) >= 7


@browser
@pytest.mark.kernel
@pytest.mark.parametrize(("place", "shown"), FILTERS.items())
def test_namespace_verdict_and_name_filter(doms: dict[str, str], place: str, shown: str) -> None:
    assert text(doms[place], "shown") == f"{shown} bundles"


@browser
@pytest.mark.kernel
def test_hovering_shows_the_evidence(doms: dict[str, str]) -> None:
    dom = doms[POINTED_AT]
    tip = text(dom, "tip").split("</div>")[0]
    told = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", dom.split('id="tip"')[1])))
    assert "default/web-3" in tip
    assert "leftover, blocked: foreign mount" in told
    assert "(rule 8)" in told
    assert re.search(r"shim\s+dead", told)
    assert re.search(r"containerd\s+not listed", told)


@browser
@pytest.mark.kernel
def test_light_and_dark_are_both_drawn(small: Path, chromium: Browser) -> None:
    light = chromium.picture(small, "", "--blink-settings=preferredColorScheme=1")
    dark = chromium.picture(small, "", "--blink-settings=preferredColorScheme=0")
    assert light.startswith(b"\x89PNG")
    assert len(light) > 20_000
    assert light != dark


# ------------------------------------------------------------------------------- many bundles


def many(directory: Path, bundles: int) -> Path:
    """A day of so many bundles, each crashing and going at some time."""
    lanes = report.Lanes(0.0)
    day = 86400.0
    running = Judgement(Verdict.RUNNING, 3, "shim and init live")
    dead = Judgement(Verdict.LEFTOVER, 8, "shim dead, init dead")
    turns: list[tuple[float, Judged | Vanished]] = []
    for number in range(bundles):
        key = BundleKey("k8s.io", "%064x" % (number * 2654435761 % 2**256))
        begin = day * (number % 977) / 1200
        turns.append((begin, Judged(key, running, Phase.NONE, None)))
        if number % 3:
            end = min(day, begin + 3600 + number % 20_000)
            turns.append((end, Judged(key, dead, Phase.WAITING, Verdict.RUNNING, "", end + 600)))
            turns.append((end + 600, Judged(key, dead, Phase.CLEANING, Verdict.LEFTOVER)))
            turns.append((end + 601, Vanished(key, Verdict.LEFTOVER, cleaned=True)))
    for at, decision in sorted(turns, key=lambda turn: turn[0]):
        lanes.take(at, None, (decision,))
    target = directory / "many.html"
    page = lanes.page("many.jsonl", "node", "0", 1_700_000_000.0)
    target.write_bytes(report.render(page))
    return target


@browser
@pytest.mark.kernel
def test_ten_thousand_bundles_of_a_day_are_small_and_drawn(
    tmp_path: Path, chromium: Browser
) -> None:
    page = many(tmp_path, 10_000)
    assert page.stat().st_size < 2_000_000
    dom = chromium.dom(page)
    assert text(dom, "shown") == "10,000 of 10,000 bundles"
    assert len(dom) < page.stat().st_size + 200_000, "rows are drawn, not made into elements"
    assert len(chromium.picture(page)) > 20_000
    far = chromium.dom(page, "#order=begin&at=9000,80000")
    assert '<div id="tip" style' in far, "what is pointed at by the address is shown, far down too"
