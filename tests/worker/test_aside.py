"""What was renamed aside and is not what was judged gets its name back, whatever went wrong."""

import os
from collections.abc import Callable
from errno import EIO, EMFILE
from pathlib import Path

import pytest

from reconciler.model.outcome import BlockReason
from reconciler.worker.blocked import Blocked
from reconciler.worker.objects import Aside
from reconciler.worker.step_log import Kept, Tally


@pytest.mark.safety
@pytest.mark.parametrize(
    "trouble",
    [
        lambda: Kept("another"),
        lambda: Blocked(BlockReason.CHANGED, "it", "is another"),
        lambda: OSError(EIO, "what it is cannot be read"),
        lambda: OSError(EMFILE, "no handle is left to ask with"),
    ],
    ids=["kept", "blocked", "cannot be read", "no handles"],
)
def test_it_gets_its_name_back(tmp_path: Path, trouble: Callable[[], Exception]) -> None:
    (tmp_path / "it").write_text("precious")

    def refuse(name: bytes) -> None:
        if name == b".hidden":
            raise trouble()

    parent = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises((Kept, Blocked, OSError)):
            Aside(parent, b"it", b".hidden", refuse, Tally()).put()
    finally:
        os.close(parent)
    assert os.listdir(tmp_path) == ["it"]
    assert (tmp_path / "it").read_text() == "precious"
