"""Whatever a dead bundle lacks or holds, it is removed; what that points at is left alone."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.e2e import product
from tests.e2e.node import Node
from tests.e2e.processes import Process
from tests.e2e.snapshot import Snapshot, remains, tree

if TYPE_CHECKING:
    from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

MUCH: Final = 10_000_000
ODD: Final = (b"new\nline", b"\xff\xfe", b"-rf", b"with space", b"back\\slash", b"a" * 255)


@pytest.mark.parametrize("up", [True, False], ids=["containerd up", "containerd down"])
def test_every_single_thing_may_be_missing(node: Node, up: bool) -> None:
    keeper = node.run("keeper")
    entries = sorted(os.listdir(node.bundle("keeper")))
    assert len(entries) == 10, entries
    tasks = dict(zip(entries, node.run_all(f"no-{n}" for n in range(len(entries))), strict=True))
    node.crash(*tasks.values())
    for name, task in tasks.items():
        if name == "rootfs":
            node.apart.run("umount", f"{node.inside(task.id)}/rootfs")
            node.bundle(task.id, task.namespace).joinpath("rootfs").rmdir()
        else:
            node.lose(task, name)
    if up:
        node.restart(unseen=tasks.values())
    before = Snapshot.take(node, [keeper])
    told = product.clean(node)
    assert product.results(told) == {task.id: "cleaned" for task in tasks.values()}
    assert [one for task in tasks.values() for one in remains(node, task.id)] == []
    assert product.clean(node)["results"] == []
    assert before.changes(Snapshot.take(node, [keeper])) == []


def replaced(content: bytes) -> Callable[[Path, Process, Path], None]:
    """Write something else into a file."""
    return lambda file, _bystander, _canary: void(file.write_bytes(content))


def void(_: object) -> None:
    """Forget a result."""


def points_at(file: Path, bystander: Process, _canary: Path) -> None:
    file.write_text(str(bystander.pid))


def is_a_link(file: Path, _bystander: Process, canary: Path) -> None:
    file.unlink()
    file.symlink_to(canary)


def is_a_fifo(file: Path, _bystander: Process, _canary: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def is_a_directory(file: Path, _bystander: Process, _canary: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "below").mkdir()


HOSTILE: Final[dict[str, Callable[[Path, Process, Path], None]]] = {
    "empty": replaced(b""),
    "text": replaced(b"no number\n"),
    "negative": replaced(b"-1"),
    "zero": replaced(b"0"),
    "much": replaced(b"1" * MUCH),
    "bytes": replaced(b"\xff\x00\n"),
    "bystander": points_at,
    "link": is_a_link,
    "fifo": is_a_fifo,
    "directory": is_a_directory,
}
"""What may stand in a bundle in place of `init.pid`."""


@pytest.mark.parametrize("up", [True, False], ids=["containerd up", "containerd down"])
def test_init_pid_may_be_anything(node: Node, up: bool) -> None:
    keeper = node.run("keeper")
    helper = node.occupy(keeper)
    bystander = Process.at(helper.pid)
    canary = node.root / "canary"
    canary.mkdir()
    (canary / "data").write_text(str(keeper.init.pid))
    planted = dict(tree(canary))

    tasks = dict(zip(HOSTILE, node.run_all(HOSTILE), strict=True))
    # One whose runc state is gone too: nothing but the process itself says that it is not ours.
    lost = node.run("bystander-alone")
    dead = [*tasks.values(), lost]
    node.crash(*dead)
    for name, task in tasks.items():
        HOSTILE[name](node.bundle(task.id) / "init.pid", bystander, canary / "data")
    points_at(node.bundle(lost.id) / "init.pid", bystander, canary)
    state = node.apart.path(f"/run/containerd/runc/{node.namespace}/{lost.id}")
    (state / "state.json").unlink()
    if up:
        node.restart(unseen=dead)

    before = Snapshot.take(node, [keeper])
    told = product.clean(node)
    assert product.results(told) == {task.id: "cleaned" for task in dead}
    assert [one for task in dead for one in remains(node, task.id)] == []
    assert bystander.alive
    assert dict(tree(canary)) == planted
    assert before.changes(Snapshot.take(node, [keeper])) == []


def test_names_that_containerd_cannot_have_made_are_told_and_never_touched(node: Node) -> None:
    keeper, dead = node.run("keeper"), node.run("dead")
    node.crash(dead)
    top = os.fsencode(node.bundle("dead").parent)
    for name in ODD:
        os.makedirs(top + b"/" + name + b"/rootfs")
    os.makedirs(os.path.dirname(top) + b"/odd\nnamespace/id")
    planted = dict(tree(node.bundle("dead").parents[1]))
    told = product.scan(node)
    foreign = {row["id"] for row in told["bundles"] if row["verdict"] == "foreign"}
    assert foreign == {
        "new\\x0aline",
        "\\xff\\xfe",
        "-rf",
        "with space",
        "back\\x5cslash",
        "a" * 255,
        "id",
    }
    assert product.results(product.clean(node)) == {"dead": "cleaned"}
    after = dict(tree(node.bundle("dead").parents[1]))
    gone = set(planted.keys() - after.keys())
    assert all(Path(name).is_relative_to(node.bundle("dead")) for name in gone)
    changed = {name for name in after if after[name] != planted.get(name)}
    assert changed <= {str(node.bundle("dead").parent)}
    assert keeper.init.alive


def test_such_a_bundle_is_left_alone_where_its_task_lives(node: Node) -> None:
    """Otherwise the tests above would prove little."""
    task: Task = node.run("lives")
    for how in ("empty", "text", "fifo"):
        path = node.bundle("lives") / "init.pid"
        path.unlink()
        path.touch()
        HOSTILE[how](path, task.init, node.root)
        before = Snapshot.take(node, [task])
        assert product.clean(node)["results"] == []
        assert before.changes(Snapshot.take(node, [task])) == []


def without_its_socket(member: "Task", node: Node) -> None:
    """Lose the spec, and the file of the socket at which the shim listens."""
    bundle = node.bundle(member.id)
    (bundle / "config.json").unlink()
    node.apart.path((bundle / "address").read_text().removeprefix("unix://")).unlink()


def torn_throughout(member: "Task", node: Node) -> None:
    """Tear the spec and the address."""
    for name in ("config.json", "address"):
        file = node.bundle(member.id) / name
        file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize("up", [True, False], ids=["containerd up", "containerd down"])
@pytest.mark.parametrize("damage", [without_its_socket, torn_throughout])
@pytest.mark.fault("I5", "I6", "stopped task", "shared pod shim with a dead member")
def test_a_member_that_no_file_leads_to_its_living_shim_stays(
    node: Node, damage: Callable[["Task", Node], None], up: bool
) -> None:
    node.run("pod", pod="pod")
    member = node.run("member", pod="pod")
    node.stop(member)
    damage(member, node)
    if not up:
        node.containerd.kill()
    product.clean(node)
    assert node.bundle("member").exists()
    assert member.shim.alive
