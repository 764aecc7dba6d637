"""The page in a browser as narrow as a phone: nothing is beside the screen."""

from pathlib import Path

import pytest

from reconciler.present import page
from tests.present.test_page import with_pods
from tests.support.browser import Browser, browser

pytestmark = [browser, pytest.mark.kernel]


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    target = tmp_path / "page.html"
    target.write_text(page.render(with_pods()).replace('http-equiv="refresh"', ""))
    return target


@pytest.mark.parametrize("width", [390, 1280])
def test_every_why_is_on_the_screen(shown: Path, tmp_path: Path, width: int) -> None:
    chromium = Browser.within(tmp_path)
    boxes = chromium.boxes(shown, width, "tbody td.why")
    assert len(boxes.found) == 4
    assert boxes.page <= width, "nothing to scroll to"
    for box in boxes.found:
        assert box.left >= 0
        assert box.right <= width
        assert box.right - box.left > 200
    names = chromium.boxes(shown, width, "tbody td.name").found
    below = [why.top >= name.bottom for name, why in zip(names, boxes.found, strict=True)]
    assert all(below) == (width == 390), "stacked on a narrow screen, and there alone"
