"""The Debian package: lintian agrees, and it starts nothing, loses nothing and leaves nothing."""

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contrib.test_systemd import SERVICES
from tests.e2e.booted import Booted
from tests.e2e.kinds import needs_version_2
from tests.packages.fresh import Fresh

pytestmark = pytest.mark.timeout(300)  # dpkg and lintian take their time on a busy machine

NAME = "containerd-reconciler"
SERVICE = f"{NAME}.service"
TIMER = "containerd-cleanup.timer"
CONFIG = f"/etc/{NAME}/config.toml"
TOP = Path(__file__).resolve().parents[2]

BOOKKEEPING = re.compile(
    r"/(var/(lib/(dpkg|apt|systemd)|cache/(apt|debconf|ldconfig)|log/(dpkg|apt|journal))|tmp|run|proc"
    r"|sys|dev)(/|$)"
)
"""Where Debian writes down what it did."""


def run(*words: str | Path, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_lintian_has_nothing_to_say(deb: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("not installed: lintian")
    told = run("lintian", "--allow-root", "--fail-on", "error,warning", deb)
    assert "E:" not in told
    assert "W:" not in told


def test_the_same_wheels_give_the_same_bytes(
    dist: Path, deb: Path, pyz: Path, tmp_path: Path
) -> None:
    for kind in ("debian", "pyz"):
        run(TOP / "contrib" / kind / "build", sys.executable, dist / "wheelhouse", tmp_path)
    for made in (deb, pyz):
        assert (tmp_path / made.name).read_bytes() == made.read_bytes(), made.name


def test_its_units_are_those_of_the_repository_in_another_place(deb: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--extract", deb, tmp_path)
    for name in SERVICES:
        unit = (tmp_path / "lib/systemd/system" / name).read_text()
        assert "/usr/local" not in unit
        for command in re.findall(r"(?m)^Exec\w+=(\S+)", unit):
            assert os.access(tmp_path / command.lstrip("/"), os.X_OK)
        ((page, number),) = re.findall(r"(?m)^Documentation=man:(\S+)\((\d)\)$", unit)
        assert (tmp_path / f"usr/share/man/man{number}/{page}.{number}.gz").is_file()


class Host(Booted):
    """A booted Debian with its package manager.

    Attributes:
        place: A directory that has the same name outside.
    """

    def __init__(self, place: Path, root: Path) -> None:
        super().__init__(f"deb-{uuid.uuid4().hex[:8]}", place, root)
        self.place = place

    def add(self, deb: Path) -> None:
        """Install a package, or another version of it."""
        self.run("dpkg", "--force-confold", "--install", deb, timeout=120)

    def files(self) -> set[str]:
        """Name everything that is there, but what Debian writes down about itself."""
        found = self.run("find", "/", "-xdev").stdout.splitlines()
        return {path for path in found if not BOOKKEEPING.match(path)}

    def state(self, unit: str = SERVICE) -> tuple[str, str]:
        """Say whether a unit runs, and whether it is started at boot."""
        found = self.show(unit, "ActiveState", "UnitFileState")
        return found["ActiveState"], found["UnitFileState"]


@pytest.fixture(scope="module")
def host(debian: Path, deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A Debian with systemd, which runs, and nothing of ours."""
    needs_version_2()
    directory = tmp_path_factory.mktemp("deb")
    below = str(debian)
    if not (debian / "lib/systemd/systemd").exists():
        layer = Fresh(directory, debian)
        install = "apt-get -qq update && apt-get -qq install --no-install-recommends systemd"
        done = layer.run(install, network=True)
        assert done.returncode == 0, done
        below = f"{layer.written}:{debian}"
    place = directory / "shared"
    place.mkdir()
    made = Host(place, Path(below))
    try:
        yield made
    finally:
        made.belongings.end()
        made.close()
        made.belongings.disband()


def newer(deb: Path, place: Path) -> Path:
    """Make the next version of a package, which differs in nothing else."""
    run("dpkg-deb", "--raw-extract", deb, place / "next")
    control = place / "next/DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", r"\g<0>+next", control.read_text()))
    run("dpkg-deb", "--root-owner-group", "--build", place / "next", place / "next.deb")
    return place / "next.deb"


def test_a_life_of_the_package(host: Host, deb: Path, tmp_path: Path) -> None:
    """One after the other, as an administrator does it: each step begins where the last ended."""
    now, following = host.place / "now.deb", host.place / "next.deb"
    shutil.copy(deb, now)
    shutil.copy(newer(deb, tmp_path), following)
    before = host.files()

    # It is there, and does nothing by itself.
    host.add(now)
    assert host.state() == ("inactive", "disabled")
    assert host.state(TIMER) == ("inactive", "disabled")
    assert host.run(NAME, "config", "check").stderr.endswith(f"nothing is wrong with {CONFIG}\n")
    assert host.run(NAME, "config", "show").stdout.startswith('mode = "observe"')
    assert host.run("containerd-cleanup", "--version").stdout.startswith("containerd-cleanup ")

    # An administrator starts it, and has an opinion about its configuration.
    host.run("mkdir", "-p", "/run/containerd/io.containerd.runtime.v2.task/k8s.io")
    host.systemctl("start", SERVICE)
    assert host.show(SERVICE, "StatusText")["StatusText"].startswith("observe: ")
    mine = f"# mine\n{host.path(CONFIG).read_text()}"
    host.path(CONFIG).write_text(mine)

    # The next version takes over what ran, enabled or not, and leaves alone what did not.
    pid = host.show(SERVICE, "MainPID")
    host.add(following)
    assert host.state() == ("active", "disabled")
    assert host.show(SERVICE, "MainPID") != pid
    assert host.state(TIMER) == ("inactive", "disabled")
    assert host.path(CONFIG).read_text() == mine
    host.systemctl("stop", SERVICE)
    host.systemctl("enable", SERVICE, f"{NAME}@k3s.service")
    host.add(now)
    assert host.state() == ("inactive", "enabled")

    # Removed, the program is gone, and what the administrator wrote is not.
    host.systemctl("start", SERVICE)
    host.run("dpkg", "--remove", NAME, timeout=120)
    assert host.show(SERVICE, "ActiveState")["ActiveState"] == "inactive"
    assert host.path(CONFIG).read_text() == mine
    assert not host.path(f"/usr/lib/{NAME}").exists()
    assert host.path(f"/var/lib/{NAME}").exists()

    # Purged, there is nothing that was not there before.
    host.run("dpkg", "--purge", NAME)
    assert host.files() - before == set()
    assert before - host.files() == set()
