"""The image of contrib/container, built without internet and run as the DaemonSet of a node.

Its base is a Debian of debootstrap; what it runs on has no shell, no pip and no package manager.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.daemon.running import free_port, needs
from tests.e2e import cri, kubelet
from tests.e2e.apart import REPOSITORY, Word
from tests.e2e.node import Node
from tests.e2e.processes import until
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.test_daemonset import MANIFEST, deployed, probe
from tests.e2e.test_daemonset import usual as usual
from tests.support.debian_root import copy

pytestmark = pytest.mark.timeout(900)

CONTAINER: Final = REPOSITORY / "contrib/container"
LARGEST: Final = 40
"""Megabytes that the image may add to its base; the documentation says how many there are."""

PATIENCE: Final = 120.0
"""Seconds: its files are read for the first time, from a disk that was just written to."""

_NOT_THERE: Final = ("sh", "bash", "dash", "rbash", "apt*", "dpkg*", "perl*", "pip*")
_OF_APT: Final = ("var/lib/dpkg", "var/lib/apt", "var/cache/apt")


def buildah(store: Path, *words: Word) -> str:
    """Run it with storage of its own, in a network namespace from which nothing can be reached."""
    places: list[Word] = ["--root", store / "root", "--runroot", store / "run"]
    command = ["unshare", "--net", needs("buildah"), *places, "--storage-driver", "vfs", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=store)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def base(store: Path, root: Path, name: str) -> None:
    """Make an image of a directory."""
    container = buildah(store, "from", "scratch")
    buildah(store, "copy", "--quiet", container, root, "/")
    buildah(store, "commit", "--quiet", "--rm", container, name)


def without_shell(root: Path) -> Path:
    """Take away what a program needs no more once it is installed."""
    for directory in ("usr/bin", "usr/sbin"):
        for pattern in _NOT_THERE:
            for path in (root / directory).glob(pattern):
                path.unlink()
    for directory in ("usr/share/doc", "usr/share/locale", "usr/share/man", *_OF_APT):
        shutil.rmtree(root / directory)
    return root


def tag() -> str:
    """Give the name by which the manifest asks for the image."""
    (container,) = kubelet.read(MANIFEST).containers
    return container.image


@pytest.fixture(scope="module")
def store(debian: Path, dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the image; gives where buildah keeps it."""
    store = tmp_path_factory.mktemp("images")
    base(store, debian, "localhost/python")
    bare = without_shell(copy(debian, store / "bare"))
    base(store, bare, "localhost/bare")
    shutil.rmtree(bare)
    bases = ["--build-arg", "BASE=localhost/python", "--build-arg", "RUNTIME=localhost/bare"]
    build: list[Word] = ["bud", "--quiet", "--isolation", "chroot", "-f", CONTAINER / "Dockerfile"]
    buildah(store, *build, *bases, "-t", tag(), dist)
    return store


@pytest.fixture(scope="module")
def archive(store: Path) -> Path:
    buildah(store, "push", "--quiet", tag(), f"docker-archive:{store}/image.tar:{tag()}")
    os.sync()  # a gigabyte was written, and whoever reads now waits for it
    return store / "image.tar"


def test_it_adds_little_to_its_base_and_needs_no_shell(store: Path) -> None:
    def megabytes(name: str) -> float:
        (one,) = json.loads(buildah(store, "images", "--json", name))
        number, unit = one["size"].split()
        assert unit == "MB"
        return float(number)

    ours = megabytes(tag()) - megabytes("localhost/bare")
    assert ours < LARGEST
    print(f"\n{megabytes(tag())} MB, {ours} of them beside the base")  # noqa: T201 - a figure


def test_a_kubelet_runs_it_as_the_daemonset(usual: Node, archive: Path) -> None:
    node, port, pod = usual, free_port(), kubelet.read(MANIFEST)
    node.import_image(cri.NAMESPACE, archive)
    keeper, dead = (node.run(name) for name in ("keeper", "dead"))
    living = [keeper, *cri.pod(node, "web", members=1)]
    before = Snapshot.take(node, living)
    with deployed(node, pod, port, with_image=True) as daemon:
        until(lambda: probe(pod, port, "ready"), "it is ready", PATIENCE)
        node.crash(dead)
        until(lambda: remains(node, "dead") == [], "the dead one is gone", PATIENCE)
        assert before.changes(Snapshot.take(node, living)) == []
        assert daemon.init.alive
