"""What containerd's own start leaves of the dead, version by version.

It is what this program exists for, and what all other tests on real containerd build on: a version
that behaves otherwise fails here, with a line that says how.
"""

from typing import Final

import pytest

from tests.e2e.containerd import TASKS
from tests.e2e.node import Node
from tests.e2e.scene import BARE, DAMAGE, EMPTIED, damage
from tests.e2e.snapshot import remains
from tests.e2e.unified import CGROUPS

pytestmark = pytest.mark.containerd

NOTHING: Final = frozenset[str]()
OUTSIDE: Final = frozenset({"cgroups", "runc state"})
MOST: Final = OUTSIDE | {"bundle", "mount"}
ROWS: Final = (*DAMAGE, BARE, EMPTIED)

LEAVES: Final = {
    (1, 6): {"lacks-runtime": MOST, "half-made": MOST, BARE: MOST, EMPTIED: OUTSIDE},
    (1, 7): {"lacks-runtime": MOST, "half-made": MOST, BARE: MOST, EMPTIED: OUTSIDE},
    (2, 1): {EMPTIED: OUTSIDE},
}
"""What stays of each row after a restart, nothing of those that are not named; from this version
on."""


def kinds_left(node: Node, id_: str) -> frozenset[str]:
    """Say what is there of a task."""
    left = remains(node, id_)
    bundle = str(node.bundle(id_))
    told = {
        "bundle": bundle in left,
        "work directory": str(node.root / TASKS / node.namespace / id_) in left,
        "mount": any(one.startswith("mount ") for one in left),
        "runc state": any("/runc/" in one for one in left),
        "cgroups": any(one.startswith(str(CGROUPS)) for one in left),
    }
    return frozenset(kind for kind, is_left in told.items() if is_left)


def test_a_restart_leaves_what_it_is_known_to_leave(node: Node) -> None:
    version = node.containerd.version[:2]
    known = LEAVES[max(since for since in LEAVES if since <= version)]
    dead = node.run_all(ROWS)
    node.crash(*dead)
    for task in dead:
        damage(node, task, task.id)
    node.containerd.start()
    changed = [
        f"containerd {'.'.join(map(str, version))} leaves {sorted(now) or 'nothing'} of the row "
        f"{row!r}, where it left {sorted(known.get(row, NOTHING)) or 'nothing'}"
        for row in ROWS
        if (now := kinds_left(node, row)) != known.get(row, NOTHING)
    ]
    assert not changed, "\n".join(changed)
