"""What another mount namespace has mounted in a bundle is not lost by its removal here."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.model.outcome import BlockReason, Outcome
from reconciler.worker.removal import hide
from reconciler.worker.step_log import Tally
from tests.support import mountns
from tests.support.bundles import Bundle, Site
from tests.support.inline import (
    InlineWorker,
    assert_blocked,
    assert_cleaned,
    assert_untouched,
    inline_worker,
)
from tests.support.mountns import long_table, private_mounts

pytestmark = pytest.mark.safety

SCRIPT = """
mkdir -p "$1" && mount -t tmpfs none "$1" && echo precious > "$1/data" && echo ready && read end
"""


@contextmanager
def elsewhere(script: str, *words: str | Path, own_user: bool = False) -> Iterator[int]:
    """Run a script in a mount namespace of its own; gives its pid once it says so."""
    flags = ("--user", "--map-root-user") if own_user else ()
    command = ("unshare", "--mount", *flags, "sh", "-euc", script, "sh", *words)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            yield running.pid
        finally:
            running.kill()


def seen_from(pid: int, path: Path) -> str:
    """Read a file as a process sees it."""
    try:
        return Path(f"/proc/{pid}/root{path}").read_text()
    except FileNotFoundError:
        return ""


def clean(made: Site, bundle: Bundle) -> Outcome:
    """Clean by a fresh worker, which remembers nothing."""
    return InlineWorker(made).clean(bundle)


@private_mounts
def test_control_the_kernel_takes_it_away_without_a_word(tmp_path: Path) -> None:
    """Without a look into other namespaces it would be lost."""
    place = tmp_path / "bundle"
    place.mkdir()
    with elsewhere(SCRIPT, place) as pid:
        assert seen_from(pid, place / "data") == "precious\n"
        place.rmdir()
        assert seen_from(pid, place / "data") == ""


@pytest.mark.fault("I1", "I13")
@pytest.mark.parametrize("where", ["", "rootfs", "extra", "rootfs/etc"])
@private_mounts
def test_a_tmpfs_of_another_namespace_blocks(tmp_path: Path, where: str) -> None:
    with inline_worker(tmp_path) as (made, _):
        bundle = made.bundle(cgroups=False)
        (bundle.path / "extra").mkdir()
        left, target = bundle.left(), bundle.path / where
        with elsewhere(SCRIPT, target) as pid:
            outcome = clean(made, bundle)
            assert_blocked(outcome, BlockReason.FOREIGN_MOUNT)
            assert f"pid {pid}" in outcome.detail
            assert_untouched(outcome, bundle, left)
            assert seen_from(pid, target / "data") == "precious\n"
        assert_cleaned(clean(made, bundle), bundle)


@private_mounts
def test_a_tmpfs_of_another_namespace_in_the_work_directory_blocks(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, _):
        bundle = made.bundle(cgroups=False)
        left, target = bundle.left(), bundle.work / "below"
        target.mkdir()
        with elsewhere(SCRIPT, target) as pid:
            outcome = clean(made, bundle)
            assert_blocked(outcome, BlockReason.FOREIGN_MOUNT)
            assert_untouched(outcome, bundle, left)
            assert seen_from(pid, target / "data") == "precious\n"
        assert_cleaned(clean(made, bundle), bundle)


@private_mounts
def test_one_that_is_mounted_under_another_path_blocks_too(tmp_path: Path) -> None:
    """A pod sees the state directory below its own root."""
    with inline_worker(tmp_path) as (made, _):
        bundle = made.bundle(mounted=False, cgroups=False)
        pod = tmp_path / "pod"
        pod.mkdir()
        place = f"{pod}/{bundle.path.relative_to(made.run)}"
        script = f"mount --bind {made.run} {pod}\n{SCRIPT}"
        with elsewhere(script, place) as pid:
            assert_blocked(clean(made, bundle), BlockReason.FOREIGN_MOUNT)
            assert seen_from(pid, Path(place) / "data") == "precious\n"


@private_mounts
def test_a_removal_that_was_cut_short_is_not_finished_either(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, _):
        bundle = made.bundle(mounted=False, cgroups=False)
        namespace = os.open(bundle.path.parent, os.O_PATH)
        name = hide(namespace, unescape(bundle.key.id), bundle.identity, Tally())
        os.close(namespace)
        assert name is not None
        key = BundleKey(bundle.key.namespace, escape(name))
        hidden = bundle.path.with_name(name.decode())
        with elsewhere(SCRIPT, hidden) as pid:
            outcome = InlineWorker(made).finish(key, bundle.identity)
            assert_blocked(outcome, BlockReason.FOREIGN_MOUNT)
            assert seen_from(pid, hidden / "data") == "precious\n"


@pytest.mark.parametrize(
    ("script", "own_user"),
    [
        ("echo ready && read end", False),
        ('mount --bind "$2" "$1" && echo ready && read end', False),
        ('mount --bind "$3" "$1" && echo ready && read end', False),
        (SCRIPT, True),
    ],
    ids=["a copy of its overlay", "a disk", "memory that others show", "of its own user"],
)
@private_mounts
def test_what_loses_nothing_holds_nothing_up(tmp_path: Path, script: str, own_user: bool) -> None:
    """The last one: anybody can make such a namespace, and must not keep bundles by it."""
    with inline_worker(tmp_path) as (made, _):
        bundle = made.bundle(cgroups=False)
        disk, memory = tmp_path / "disk", tmp_path / "memory"
        for path in (disk, memory):
            path.mkdir()
        mountns.tmpfs(memory)
        (memory / "kept").mkdir()
        words = (bundle.rootfs, disk, memory / "kept")
        with elsewhere(script, *words, own_user=own_user):
            assert_cleaned(clean(made, bundle), bundle)


@private_mounts
def test_a_mount_table_of_more_than_a_mebibyte_holds_nothing_up(tmp_path: Path) -> None:
    """As thousands of dead bundles make it whose rootfs is still mounted."""
    with inline_worker(tmp_path) as (made, _):
        bundle, other = made.bundle(cgroups=False), made.bundle("c2", cgroups=False)
        (other.path / "extra").mkdir()
        long_table(tmp_path)
        with elsewhere(SCRIPT, other.path / "extra"):
            assert_cleaned(clean(made, bundle), bundle)
            assert_blocked(clean(made, other), BlockReason.FOREIGN_MOUNT)
