"""Whatever happens on a node, in whatever order: who lives is untouched, who is dead is removed.

`make soak` runs many seeds; one that fails is run again by its number.
"""

from pathlib import Path

import pytest

from tests.e2e import product
from tests.e2e.chaos import Chaos
from tests.e2e.node import Node
from tests.e2e.snapshot import remains

pytestmark = [pytest.mark.containerd, pytest.mark.safety, pytest.mark.timeout(300)]

INTERRUPTED = 130
CONFIG = """
mode = "enforce"
[cleanup]
grace = "300ms"
[brake]
mass_deaths = 1000
"""
"""Half of the node may die at once here, and that is believed."""

SOAK = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 30)]


@pytest.mark.fault("I6", "live container", "stopped task")
@pytest.mark.parametrize("seed", [0, 1, *SOAK])
def test_chaos(node: Node, tmp_path: Path, seed: int) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    with product.watching(node, "--config", config, "--enforce") as watching:
        watching.wait_ready("up")
        chaos = Chaos(node, seed)
        chaos.steps(40)
        chaos.end()
        assert watching.stop() == INTERRUPTED
        told = [line for line in watching.lines if line["event"] == "bundle.cleaned"]
    cleaned = {line["id"] for line in told}
    # containerd 2.1 cleans up by itself what 1.x cannot; it may leave nothing to us.
    assert cleaned or node.containerd.version >= (2, 1), "nothing was left to do for us"
    assert cleaned <= chaos.books.dead.keys(), chaos.done  # and so nothing that was only stopped
    assert product.verdicts(product.scan(node), node.namespace).keys() == chaos.books.alive.keys()
    for name in chaos.books.dead:
        assert [one for one in remains(node, name) if "/cgroup/" not in one] == [], chaos.done
