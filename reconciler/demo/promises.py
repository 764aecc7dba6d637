"""Promises: compares the demo's tree before and after. Reads only; what differs flows out."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reconciler.demo.fixtures import Fixture, Promise
from reconciler.demo.node import DemoNode
from reconciler.model.decisions import Verdict
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout

Picture = dict[str, tuple[int, int, int, bytes]]
"""Mode, inode, modification time and content (or target) of everything below a directory."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Whether one promise was kept.

    Attributes:
        role: The bundle.
        broken: What is not as promised; empty if all is.
        pending: It was ended before this could come true.
    """

    fixture: Fixture
    broken: str
    pending: bool = False


def picture(top: Path) -> Picture:
    """Take a picture of a directory; empty if there is none."""
    found: Picture = {}
    for path in (top, *sorted(top.rglob("*"))):
        try:
            seen = path.lstat()
        except FileNotFoundError:
            continue
        content = b""
        if stat.S_ISREG(seen.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(seen.st_mode):
            content = os.fsencode(path.readlink())
        name = str(path.relative_to(top))
        found[name] = (seen.st_mode, seen.st_ino, seen.st_mtime_ns, content)
    return found


def pictures(node: DemoNode) -> dict[BundleKey, Picture]:
    """Take a picture of every bundle of the cast."""
    return {fixture.key: picture(_path(node.layout, fixture.key)) for fixture in node.fixtures}


def compare(
    node: DemoNode, before: dict[BundleKey, Picture], verdicts: dict[BundleKey, set[Verdict]]
) -> Iterator[Kept]:
    """Tell for each bundle whether it ended as promised.

    Args:
        node: The tree as it is now.
        before: The pictures from the beginning.
        verdicts: What each bundle was judged as, at any time.
    """
    for fixture in node.fixtures:
        faults = list(_faults(node, fixture, before[fixture.key], verdicts.get(fixture.key, set())))
        yield Kept(fixture, ", ".join(faults))


def _faults(
    node: DemoNode, fixture: Fixture, before: Picture, judged: set[Verdict]
) -> Iterator[str]:
    layout = node.layout
    after = picture(_path(layout, fixture.key))
    if fixture.verdict not in judged:
        yield f"never judged {fixture.verdict.value}"
    if fixture.promise is Promise.CLEANED:
        if after:
            yield "still there"
        yield from _left(layout, fixture.key)
        return
    if after != before:
        yield "changed"
    if fixture.promise is Promise.KEPT:
        # Before every witness has spoken a bundle may be unknown, which harms nothing.
        others = judged - {fixture.verdict, Verdict.UNKNOWN}
        if others:
            yield f"judged {', '.join(sorted(one.value for one in others))}"
        if not node.living(fixture):
            yield "a process is gone"


def _left(layout: Layout, key: BundleKey) -> Iterator[str]:
    for what, top in (("work dir", layout.work), ("runc state", layout.runc_root)):
        if os.path.lexists(top + b"/" + key.path):
            yield f"{what} still there"


def _path(layout: Layout, key: BundleKey) -> Path:
    return Path(os.fsdecode(layout.bundle(key)))
