"""Whoever believes a watcher ends up with the truth, whichever backend it is."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.model.ids import BundleKey
from reconciler.model.observations import ResyncKind
from reconciler.watch.select import Choice, Watching
from tests.support.examples import several
from tests.watch.support import Inbox, Mirror, Tree, running, turn

pytestmark = pytest.mark.kernel

BACKENDS: list[Choice] = ["inotify", "watchfiles", "poll", "none"]


def play(tree: Tree) -> set[BundleKey]:
    """Let a day go by in two namespaces; tell which bundles came, went or changed names."""
    here, there = tree.root / "k8s.io", tree.root / "moby"
    for number in range(10):
        tree.bundle(f"pod-{number}", "k8s.io")
    (here / "pod-1").rename(here / "pod-one")
    (here / "pod-2").rename(there / "pod-2")
    (here / "pod-3").rename(here / ".pod-3")
    shutil.rmtree(here / ".pod-3")
    (here / "pod-4").rmdir()
    (here / "pod-4").mkdir()
    (here / "old-1").rmdir()
    (here / "old-2").rename(here / ".old-2")
    (there / "name\nline").mkdir()
    changed = {BundleKey("k8s.io", f"pod-{n}") for n in (0, 4, 5, 6, 7, 8, 9)}
    changed |= {BundleKey("k8s.io", name) for name in ("pod-one", "old-1", "old-2")}
    return changed | {BundleKey("moby", name) for name in ("pod-2", r"name\x0aline")}


@pytest.mark.parametrize("backend", ["inotify", "watchfiles", "poll"])
async def test_the_same_bundles_are_hinted_at(tmp_path: Path, backend: Choice) -> None:
    tree = Tree(tmp_path / "run")
    for name in ("old-1", "old-2", "untouched"):
        tree.bundle(name, "k8s.io")
    tree.namespace("moby")
    watching, inbox = Watching(tree.layout, backend), Inbox()
    async with running(watching, inbox):
        if backend != "inotify":
            await inbox.resync(ResyncKind.BACKEND)
        changed = play(tree)
        await inbox.until(lambda: changed <= set(inbox.hints()))
        tree.bundle("last", "moby")
        await inbox.hint("moby", "last")
    # Names that came and went in between may be told or not; what was not touched never is.
    passing = {BundleKey("k8s.io", f"pod-{n}") for n in (1, 2, 3)}
    assert set(inbox.hints()) - passing == changed | {BundleKey("moby", "last")}


def upheaval(tree: Tree) -> None:
    """Namespaces and the tree itself come, go and change names."""
    play(tree)
    (tree.root / "moby").rename(tree.root / "docker")
    os.makedirs(tree.root / "new" / "c1" / "rootfs")
    shutil.rmtree(tree.root / "k8s.io")
    tree.bundle("c1", "k8s.io")
    (tree.root / "file").touch()
    (tree.root / "link").symlink_to(tree.root / "new")


def replaced(tree: Tree) -> None:
    tree.root.rename(tree.root.with_name("away"))
    upheaval_in_new_tree = tree.root / "k8s.io" / "fresh"
    upheaval_in_new_tree.mkdir(parents=True)


@pytest.mark.fault("I16")
@pytest.mark.parametrize("change", [play, upheaval, replaced])
@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_end_is_the_same(
    tmp_path: Path, backend: Choice, change: Callable[[Tree], object]
) -> None:
    tree = Tree(tmp_path / "run")
    for name in ("old-1", "old-2", "untouched"):
        tree.bundle(name, "k8s.io")
    tree.namespace("moby")
    watching = Watching(tree.layout, backend)
    mirror = Mirror(tree, watching)
    async with anyio.create_task_group() as tasks:
        mirror.relist()
        tasks.start_soon(watching.run, mirror.emit)
        await mirror.until_true()
        await turn()
        change(tree)
        if backend == "none":
            assert mirror.seen != tree.truth()
            mirror.relist()  # what the loop's timer does
        await mirror.until_true()
        tasks.cancel_scope.cancel()


@pytest.mark.fault("I17", "overflow")
async def test_changes_while_nobody_listens_are_found_by_the_relist(tmp_path: Path) -> None:
    """More than the kernel's queue holds, all in one breath of the loop."""
    tree = Tree(tmp_path / "run")
    paths = [tree.bundle(f"pod-{number}", "steady") for number in range(50)]
    watching = Watching(tree.layout)
    mirror = Mirror(tree, watching)
    dice = random.Random(1)  # noqa: S311 -- the same every time
    async with anyio.create_task_group() as tasks:
        mirror.relist()
        tasks.start_soon(watching.run, mirror.emit)
        await mirror.until_true()
        await turn()
        for number in range(20_000):
            path = paths[number % 50] / f"file-{number // 100}"
            (path.touch if number % 100 < 50 else path.unlink)()
            if number % 40 == 0:
                change(tree, dice.randrange(7), dice.randrange(3), dice.randrange(9), number)
        await mirror.until(lambda: ResyncKind.OVERFLOW in mirror.resyncs)
        await mirror.until_true()
        assert watching.backend == "inotify"
        for key in tree.listed():  # every watch is where it belongs
            (tree.root / os.fsdecode(key.namespace) / os.fsdecode(key.id) / "once more").mkdir()
        await mirror.until_true()
        tasks.cancel_scope.cancel()


def change(tree: Tree, what: int, namespace: int, id_: int, number: int) -> None:
    """Do one thing to the tree, if it can be done."""
    directory = tree.root / f"ns{namespace}" if namespace else tree.root / "ns"
    bundle = directory / f"c{id_}"
    try:
        match what:
            case 0:
                bundle.mkdir(parents=True)
            case 1:
                (bundle / f"file-{number}").touch()
            case 2:
                shutil.rmtree(bundle)
            case 3:
                bundle.rename(directory / f"c{id_ + 1}")
            case 4:
                bundle.rename(directory / f".c{id_}")
            case 5 if not id_:
                directory.rename(tree.root / f"ns{(namespace + 1) % 3 or ''}")
            case 6:
                shutil.rmtree(directory)
            case _:
                (bundle / "rootfs" / "deep").mkdir(parents=True)
    except OSError:
        pass  # it cannot be done now


@pytest.mark.fault("I16", "I17")
@settings(
    max_examples=several(30),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 7), st.integers(0, 2), st.integers(0, 3), st.booleans(), st.booleans()
        ),
        max_size=60,
    )
)
def test_any_history_ends_in_the_truth(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, int, int, bool, bool]]
) -> None:
    """Whatever happens, at whatever moment the loop turns, believing the hints is enough."""

    async def live() -> None:
        tree = Tree(tmp_path_factory.mktemp("life") / "run")
        watching = Watching(tree.layout)
        mirror = Mirror(tree, watching)
        async with anyio.create_task_group() as tasks:
            mirror.relist()
            tasks.start_soon(watching.run, mirror.emit)
            for number, (what, namespace, id_, turns, checks) in enumerate(history):
                change(tree, what, namespace, id_, number)
                if turns:
                    await turn()
                if checks:
                    await mirror.until_true()
            await mirror.until_true()
            for key in tree.listed():  # every watch is where it belongs
                path = tree.root / os.fsdecode(key.namespace) / os.fsdecode(key.id)
                (path / "once more").mkdir()
                await mirror.until_true()
            tasks.cancel_scope.cancel()

    anyio.run(live)
