"""Several bundles that are removed at the same moment leave nothing to each other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from unittest import mock

import pytest

from reconciler.model.outcome import Outcome, Result, StepResult
from reconciler.worker import fifos
from reconciler.worker.messages import Progress
from tests.support.bundles import Bundle, Site
from tests.support.inline import InlineWorker, inline_worker, step
from tests.support.mountns import private_mounts

SANDBOX = "io.kubernetes.cri.sandbox-id"
SHARED = ("cgroup", "shim-socket", "fifo")
"""Steps that ask who else needs a thing."""


def together(made: Site, bundles: list[Bundle], *meet: str) -> list[Outcome]:
    """Remove bundles at the same time, each by a worker of its own; all meet before some steps."""
    outcomes: list[Outcome] = []
    barrier = Barrier(len(bundles))

    def remove(bundle: Bundle) -> None:
        inline = InlineWorker(made)

        def begun(progress: Progress) -> None:
            if progress.began in meet:
                barrier.wait(30)

        inline.place.note = begun
        outcomes.append(inline.clean(bundle))

    threads = [Thread(target=remove, args=[bundle]) for bundle in bundles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def a_pod(made: Site, number: int) -> list[Bundle]:
    """A sandbox and two members, whose files name the sandbox's socket."""
    pod = made.unique(f"pod{number}")
    notes = {SANDBOX: pod}
    sandbox = made.bundle(f"pod{number}", annotations=notes, cgroups=False, mounted=False)
    members = [sandbox]
    for name in ("a", "b"):
        id_ = f"{name}{number}"
        member = made.bundle(id_, annotations=notes, cgroups=False, mounted=False)
        member.socket.unlink()
        (member.path / "address").write_text(f"unix://{sandbox.socket}")
        members.append(member)
    return members


def of_one_id(made: Site, number: int) -> list[Bundle]:
    """The same id in two namespaces: FIFOs do not tell them apart."""
    names = ("default", "other")
    return [
        made.bundle(f"c{number}", name, fifos=True, cgroups=False, mounted=False) for name in names
    ]


def of_one_fifo_directory(made: Site, number: int) -> list[Bundle]:
    """Two clients used the same directory."""
    first = made.bundle(f"a{number}", fifos=True, cgroups=False, mounted=False)
    second = made.bundle(f"b{number}", fifos=True, cgroups=False, mounted=False)
    for fifo in first.fifos.iterdir():
        fifo.rename(second.fifos / fifo.name)
    first.fifos.rmdir()
    return [first, second]


def name_cgroups(made: Site, bundle: Bundle, path: str, groups: list[Path]) -> None:
    spec = json.loads((bundle.path / "config.json").read_text())
    spec["linux"]["cgroupsPath"] = path
    (bundle.path / "config.json").write_text(json.dumps(spec))
    state = json.loads((bundle.runc_state / "state.json").read_text())
    state["cgroup_paths"] = {group.parts[4]: str(group) for group in groups}
    (bundle.runc_state / "state.json").write_text(json.dumps(state))


def of_one_cgroup(made: Site, number: int) -> list[Bundle]:
    """The same id in two namespaces, started with the same cgroup."""
    id_ = made.unique(f"c{number}")
    bundles = [made.bundle(f"c{number}", name, mounted=False) for name in ("default", "other")]
    for group in bundles[1].cgroups:
        group.rmdir()
    for bundle in bundles:
        name_cgroups(made, bundle, f"/{made.cgroup}/default/{id_}", list(bundles[0].cgroups))
    return bundles


def of_nested_cgroups(made: Site, number: int) -> list[Bundle]:
    """One was started below the other's cgroup."""
    outer = made.bundle(f"outer{number}", mounted=False)
    inner = made.bundle(f"inner{number}", mounted=False)
    for group in inner.cgroups:
        group.rmdir()
    groups = [group / inner.path.name for group in outer.cgroups]
    for group in groups:
        group.mkdir()
    path = f"/{made.cgroup}/default/{outer.path.name}/{inner.path.name}"
    name_cgroups(made, inner, path, groups)
    return [outer, inner]


KINDS: list[Callable[[Site, int], list[Bundle]]] = [
    a_pod,
    of_one_id,
    of_one_fifo_directory,
    of_one_cgroup,
    of_nested_cgroups,
]


@pytest.mark.fault("two removed at once that share a thing")
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("meet", [SHARED, ("cgroup",), ()], ids=["in step", "at first", "freely"])
@private_mounts
def test_nothing_that_they_shared_is_left(
    tmp_path: Path, make: Callable[[Site, int], list[Bundle]], meet: tuple[str, ...]
) -> None:
    # Each took its FIFOs an hour ago.
    with inline_worker(tmp_path) as (made, _), mock.patch.object(fifos, "PATIENCE", 0.0):
        for number in range(5):
            bundles = make(made, number)
            outcomes = together(made, bundles, *meet)
            assert {one.result for one in outcomes} == {Result.CLEANED}, outcomes
            assert [bundle.left() for bundle in bundles] == [[] for _ in bundles], outcomes
        tops = [made.tree, made.run / "s", made.run / "runc", made.base / "lib"]
        left = [path for top in tops for path in top.glob("*/*")]
        assert [path for path in left if path.parent.name in {"default", "other", "s"}] == []
        assert list((made.run / "s").iterdir()) == []
        assert not (made.run / "fifo").exists() or list((made.run / "fifo").iterdir()) == []


@pytest.mark.safety
@pytest.mark.parametrize("make", [a_pod, of_one_id, of_one_cgroup])
@private_mounts
def test_what_one_that_stays_needs_is_left_to_it(
    tmp_path: Path, make: Callable[[Site, int], list[Bundle]]
) -> None:
    """Being judged dead, too, is not enough: it must be on its way."""
    with inline_worker(tmp_path) as (made, inline):
        bundles = make(made, 0)
        staying = bundles[0]
        left = staying.left()
        outcome = inline.clean(bundles[-1])
        assert outcome.result is Result.CLEANED, outcome
        assert staying.left() == left
        warned = {one.step for one in outcome.steps if one.result is StepResult.WARNING}
        assert len(warned) == 1, outcome
        shutil.rmtree(staying.path)


@private_mounts
def test_two_that_go_say_no_more_than_one(tmp_path: Path) -> None:
    with inline_worker(tmp_path) as (made, _):
        for outcome in together(made, a_pod(made, 0), *SHARED):
            for name in SHARED:
                assert step(outcome, name).result is not StepResult.WARNING, outcome
