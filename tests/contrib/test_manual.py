"""Man pages and completions are those of the program, and of the tools that read them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.settings.check import known_keys
from tests.support import manual

PAGES = sorted((manual.PLACE / "man").glob("*/*"))
FRESH = "run `python -m tests.support.manual --write`"

needs_mandoc = pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")


def text(name: str) -> str:
    """Give a page as it is shown, without the marks of bold letters."""
    (page,) = (page for page in PAGES if page.name == name)
    shown = subprocess.run(
        ["mandoc", "-Tutf8", "-Owidth=500", page], capture_output=True, text=True, check=True
    ).stdout
    return re.sub(".\b", "", shown)


def test_what_is_installed_is_what_the_program_says_today() -> None:
    there = {
        str(path.relative_to(manual.PLACE)): path.read_text()
        for path in manual.PLACE.rglob("*")
        if path.is_file()
    }
    assert there == manual.texts(), FRESH


@needs_mandoc
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_say_about_a_page(page: Path) -> None:
    done = subprocess.run(["mandoc", "-Tlint", page], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@needs_mandoc
def test_a_broken_page_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "broken.8"
    page.write_text(PAGES[0].read_text().replace(".SH NAME", ".SX NAME"))
    done = subprocess.run(["mandoc", "-Tlint", page], capture_output=True, text=True, check=False)
    assert "unknown macro" in done.stdout


@needs_mandoc
def test_every_key_is_on_the_page_of_the_configuration() -> None:
    shown = text("containerd-reconciler.toml.5")
    for key in known_keys():
        assert re.search(rf"(?m)^ +{re.escape(key.rpartition('.')[2])}\b", shown), key


@needs_mandoc
def test_a_reader_sees_what_was_written(tmp_path: Path) -> None:
    page = manual.Page("odd", 8, "says what roff would take for orders")
    page.section("DESCRIPTION")
    page.text(""".TH is "no" order, nor 'br, nor `a\\fBb`.

- neither is --this""")
    page.item("-o, --output", ".5 of it")
    place = tmp_path / "odd.8"
    place.write_text(str(page))
    shown = subprocess.run(
        ["mandoc", "-Tlocale", place], capture_output=True, text=True, check=True
    ).stdout
    plain = re.sub(".\b", "", shown)
    for words in (""".TH is "no" order, nor 'br, nor a\\fBb.""", "- neither is --this", ".5 of it"):
        assert words in plain
