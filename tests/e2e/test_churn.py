"""Pods come, die and go while containerd is killed at random: what is told is what is left.

`make soak` goes 20 rounds, about a minute. A failure tells its seed; RECONCILER_CHURN_SEED runs it
again. Of seed 7 the dead left 36 sockets, 5 cgroups and a bundle on containerd 1.7.24, and on 2.1.9
27 sockets, 6 cgroups and 4 shims without a bundle, counted at the end of each round.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from reconciler.model.debris import DebrisKind
from tests.e2e.churn import Churn
from tests.e2e.kinds import needs_version_2
from tests.e2e.node import Node

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

AT_ONCE: Final = '[cleanup]\nsettle = "0s"\n' + "\n".join(
    f'[debris.{kind.value}]\nage = "0s"' for kind in DebrisKind
)
"""A configuration by which nothing is too young."""


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Node]:
    """A node for pods with cgroups of its own: theirs lie at the top, as containerd puts them."""
    needs_version_2()
    with Node(tmp_path, cri=True, unified=True) as node:
        yield node


@pytest.mark.parametrize(
    ("rounds", "seed"),
    [
        pytest.param(2, 1, id="short", marks=pytest.mark.timeout(180)),
        pytest.param(20, 2, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(0)]),
    ],
)
def test_scan_tells_what_is_left_of_pods_and_clean_removes_it(
    pods: Node, tmp_path: Path, rounds: int, seed: int
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(AT_ONCE)
    seed = int(os.environ.get("RECONCILER_CHURN_SEED", seed))
    churn = Churn(pods, seed, config)
    for number in range(1, rounds + 1):
        churn.round(clean=number % 2 == 0)
    print(f"seed {seed}: {dict(churn.left)}")  # noqa: T201 - for who looks with -s
    assert churn.left, churn.done
