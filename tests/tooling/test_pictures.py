"""The pictures of the README: small, shown, self-contained; and which screen becomes one."""

import re
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from rich.live import Live

from tests.minute import SHOWN, rewritten
from tests.pictures import PICTURES, chosen, screens_of

TOP = Path(__file__).resolve().parents[2]
README = (TOP / "README.md").read_text()
SHOWN_IN = {
    "dashboard.png": ("contrib/prometheus/README.md", "../pictures"),
    "report.png": ("README.md", "contrib/pictures"),
    "run.svg": ("README.md", "contrib/pictures"),
}
LARGEST = 150_000

BEFORE = "5 running\ndemo/victim running"
WANTED = "4 cleaned 1 blocked\ndemo/victim  waiting in 3s\ndemo/other"
LATER = "5 cleaned 1 blocked"


def shown(*screens: str) -> str:
    """Give what rich writes to a terminal that shows one screen after the other."""
    console = Console(file=StringIO(), force_terminal=True, highlight=False, width=60)
    with Live(screens[0], console=console, auto_refresh=False) as live:
        for screen in screens[1:]:
            live.update(screen, refresh=True)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_each_picture_is_small_and_on_a_page() -> None:
    assert {path.name for path in PICTURES.iterdir()} == SHOWN_IN.keys()
    for name, (page, there) in SHOWN_IN.items():
        assert (PICTURES / name).stat().st_size < LARGEST, name
        assert f"]({there}/{name})" in (TOP / page).read_text()


def test_the_drawing_loads_nothing_from_elsewhere() -> None:
    text = (PICTURES / "run.svg").read_text()
    ET.fromstring(text)  # noqa: S314 -- our own
    assert not re.search(r"@font-face|@import|url\((?!#)|<(image|script|use)", text)


def test_the_screen_with_something_to_see_is_chosen() -> None:
    screens = screens_of(shown(BEFORE, WANTED, LATER))
    assert chosen(screens, "demo/victim").strip() == WANTED


def test_a_run_that_never_showed_it_makes_no_picture() -> None:
    with pytest.raises(LookupError, match="no screen shows demo/victim"):
        chosen(screens_of(shown(BEFORE, LATER)), "demo/victim")


def test_transcripts_are_replaced_and_nothing_else_and_what_removes_is_run_last() -> None:
    page = "a\n```\n# containerd-reconciler clean -y\nold\nold\n```\n```\n# other scan\nold\n```\n"
    page += "```\n# containerd-reconciler explain a/b | head -n 2\nold\n```\nb\n"
    ran: list[list[str]] = []

    def run(words: list[str]) -> str:
        ran.append(words)
        return "1\n2\n3\n"

    assert rewritten(page, run) == (
        "a\n```\n# containerd-reconciler clean -y\n1\n2\n3\n```\n```\n# other scan\nold\n```\n"
        "```\n# containerd-reconciler explain a/b | head -n 2\n1\n2\n```\nb\n"
    )
    assert ran == [["explain", "a/b"], ["clean", "-y"]]


def test_the_readme_has_three_transcripts() -> None:
    assert [found["words"] for found in SHOWN.finditer(README)] == [
        "scan",
        "clean --yes",
        "explain shop/api",
    ]
