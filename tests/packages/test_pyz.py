"""The single file, in a Debian that has nothing but Python, and no network."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.packages.fresh import Fresh

PLACE = "var/cache/containerd-reconciler"
NOBODY = 65534

FIRST_SCAN = """
/root/it.pyz demo --hold 2>/root/said & demo=$!
look="look at it from another terminal: containerd-reconciler"
until scan=$(sed -n "s/^$look //p" /root/said); [ "$scan" ]; do
    kill -0 $demo
done
/root/it.pyz $scan
kill -INT $demo
wait $demo
cat /root/said >&2
"""


@pytest.fixture(scope="module")
def fresh(debian: Path, pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """A Debian to which the file was copied; nothing of it has run."""
    made = Fresh(tmp_path_factory.mktemp("pyz"), debian)
    target = made.written / "root" / "it.pyz"
    target.parent.mkdir()
    shutil.copy(pyz, target)
    return made


def test_one_file_is_all_it_takes_for_a_first_scan(fresh: Fresh) -> None:
    assert not list(fresh.below.glob("usr/bin/pip*"))
    done = fresh.run(FIRST_SCAN)
    assert done.returncode == 0, done
    assert re.search(r"(?m)^demo\S*-crashed +complete .* leftover ", done.stdout), done
    assert done.stderr.count("unpacking into /var/cache/containerd-reconciler") == 1
    assert "the tree and its processes are gone" in done.stderr
    # That is all it has written, and nobody else can write there.
    files = {path for path in fresh.written.rglob("*") if path.is_file()}
    left = {path for path in files if not path.is_relative_to(fresh.written / PLACE)}
    assert left == {fresh.written / "root" / name for name in ("it.pyz", "said")}
    assert (fresh.written / PLACE).stat().st_mode & 0o777 == 0o700


def test_the_demo_keeps_every_promise(fresh: Fresh) -> None:
    done = fresh.run("/root/it.pyz demo")
    assert done.returncode == 0, done
    assert "every promise was kept" in done.stderr


def test_root_never_runs_what_was_unpacked_by_somebody_else(fresh: Fresh) -> None:
    """Neither where HOME is another's, as some `sudo` leave it, nor where a place is named."""
    assert fresh.run("/root/it.pyz --version").returncode == 0
    (unpacked,) = (fresh.written / PLACE).glob("it.pyz_*")
    home, tmp = fresh.written / "home/mallory", fresh.written / "tmp"
    for prepared in (home / ".cache/containerd-reconciler", home / ".shiv", tmp / "place"):
        program = prepared / unpacked.name / "site-packages/reconciler"
        (program / "cli").mkdir(parents=True)
        (program / "__init__.py").touch()
        (program / "cli/__init__.py").write_text("def main(): print('mallory was here')\n")
    for path in [home, *home.rglob("*"), tmp / "place", *(tmp / "place").rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    done = fresh.run("/root/it.pyz --version", "/home/mallory")
    assert (done.returncode, done.stdout[:22]) == (0, "containerd-reconciler "), done
    for place in ("/home/mallory/.shiv", "/tmp/place"):
        done = fresh.run(f"SHIV_ROOT={place} /root/it.pyz --version")
        assert (done.returncode, done.stdout) == (77, ""), done
        assert "belongs to user 65534, who could change what is run" in done.stderr
