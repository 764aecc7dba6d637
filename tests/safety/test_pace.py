"""A thousand bundles come and a thousand go in a second: the daemon ends up with the truth."""

import time
from functools import partial
from pathlib import Path

import pytest

from tests.daemon.running import NAMESPACE, Daemon, Site, containerd, running, until

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

EACH = 1_000
AT_A_TIME = 50
ROUNDS = 30


def come_and_go(site: Site, a_round: int) -> float:
    """Let so many come and all but the last few go; give how many did in a second."""
    paths = [site.tree / NAMESPACE / f"pod-{a_round}-{number}" for number in range(EACH)]
    begun = time.monotonic()
    for number, path in enumerate(paths):
        path.mkdir()
        if number >= AT_A_TIME:
            paths[number - AT_A_TIME].rmdir()
    return EACH / (time.monotonic() - begun)


def knows(daemon: Daemon, site: Site, count: int) -> bool:
    return daemon.bundles() == count == len(site.left())


@pytest.mark.fault("1,000 creations and deletions a second")
def test_nothing_is_lost_at_a_thousand_creations_and_deletions_a_second(tmp_path: Path) -> None:
    """In rounds, until the machine has had the time for one at that pace; each must come right."""
    site = Site(tmp_path, {"watch.relist": "1h", "log.level": "error"})
    site.make("kept")
    with containerd(site), running(site, ready=False) as daemon:
        until(lambda: daemon.bundles() == 1, "the first is there")
        listed = daemon.metrics()["relist_duration_seconds_count"]
        for a_round in range(ROUNDS):
            pace = come_and_go(site, a_round)
            rest = 1 + AT_A_TIME * (a_round + 1)
            until(partial(knows, daemon, site, rest), "all is known")
            if pace > 1_000:
                break
        else:
            pytest.fail("too slow to show anything")
        assert daemon.metrics()["relist_duration_seconds_count"] <= listed + 2 * (a_round + 1)
        assert daemon.end()[0] == 0
