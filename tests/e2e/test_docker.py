"""Below a real dockerd with a containerd of its own: the dead go, and their ids start again.

Containers outlive dockerd and containerd there (live-restore). `make versions` runs this, and not
`make test`: Docker's package takes 150 MB. Shown with docker.io 20.10.24, containerd 1.6.20,
runc 1.1.5 and crun 1.8.1, in 5 to 12 s for each on two busy processors.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import product
from tests.e2e.dockerd import CLIENT, CRUN, NAMESPACE, PROGRAM, Docker
from tests.e2e.snapshot import Snapshot, remains, tree
from tests.e2e.task import Task
from tests.support.canary import plant

pytestmark = [pytest.mark.containerd, pytest.mark.safety, pytest.mark.timeout(120)]

UNIFIED: Final = "/sys/fs/cgroup/unified"
GIVEN_UP: Final = ("runtime",)
"""What the bundle lacks for which containerd 1.x gives up on it."""


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Docker]:
    """A node of Docker's on which crun works, too: 1.8 refuses a version 2 beside version 1."""
    missing = [one for one in (PROGRAM, CLIENT, CRUN) if shutil.which(one) is None]
    if missing:
        pytest.skip(f"needs docker.io and crun: {', '.join(missing)}")
    made = Docker(tmp_path)
    if any(row.split()[4] == UNIFIED for row in made.apart.mountinfo()):
        made.apart.run("umount", UNIFIED)
    with made:
        yield made


def everything(docker: Docker, task: Task) -> Snapshot:
    """Take all there is of a container, and what its runtime knows of it."""
    assert docker.known(task).is_dir()
    return Snapshot(Snapshot.take(docker, [task]).things | dict(tree(docker.known(task))))


def left(docker: Docker, task: Task) -> list[str]:
    """Name what is still there of a container."""
    known = docker.known(task)
    return remains(docker, task.id, NAMESPACE) + ([os.fspath(known)] if known.exists() else [])


@pytest.mark.parametrize("runtime", ["runc", "crun"])
@pytest.mark.parametrize("down", [True, False], ids=["dockerd down", "dockerd up again"])
def test_the_dead_of_dockers_go_and_start_again(
    docker: Docker, tmp_path: Path, runtime: str, down: bool
) -> None:
    canary = plant(tmp_path / "data")
    how = ("--runtime", runtime, "--volume", f"{canary.root}:/data")
    keeper, dead = docker.run("keeper", *how), docker.run("dead", *how)
    docker.crash(dead)
    if not down:
        docker.lose(dead, *GIVEN_UP)
        docker.restart(unseen=[dead])
        failed = docker.apart.run(CLIENT, "start", "dead", check=False)
        assert failed.returncode, "it is not in the way of its own id"
    told = product.scan(docker)
    expected = {keeper.id: "running", dead.id: "leftover"}
    assert product.verdicts(told, NAMESPACE) == expected, told["bundles"]
    before = everything(docker, keeper)
    done = product.clean(docker)
    assert product.results(done) == {dead.id: "cleaned"}
    assert before.changes(everything(docker, keeper)) == []
    assert left(docker, dead) == [], json.dumps(done["results"], indent=1)
    assert canary.intact()
    if down:
        docker.containerd.start()
    assert docker.docker("start", "dead").split() == ["dead"]
    assert docker.task(dead.id, NAMESPACE).init.alive
    assert docker.task(keeper.id, NAMESPACE) == keeper  # and so it was through all of this
    for name in ("keeper", "dead"):
        docker.docker("exec", name, "/bin/sh", "-c", "read -r _ </data/link || test -s /data/link")
    assert canary.intact()
