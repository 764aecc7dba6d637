"""While one containerd's dead is being removed, another one starts the same id anew.

It does so between any two steps: the worker is stopped behind a call that changed something, or
waits for a hook, and goes on when the new task runs. Nothing of that one may change.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.e2e import product
from tests.e2e.apart import Word
from tests.e2e.node import Node
from tests.e2e.processes import PATIENCE, until
from tests.e2e.snapshot import Snapshot
from tests.e2e.twins import SHARINGS, Pair, Twin, Twins
from tests.safety import straced

pytestmark = [pytest.mark.containerd, pytest.mark.safety, pytest.mark.timeout(600)]

CALLS: Final = ("umount2", "unlinkat", "renameat2")
"""All by which a cleanup changes anything."""

TRACING: Final = ("strace", "-f", "-qq", "--decode-fds=path")
STOPPED: Final = re.compile(r"^(\d+) +--- stopped by SIGSTOP ---$", re.MULTILINE)
ID: Final = "anew"
HOOK: Final = "#!/bin/sh\n: >{reached}\nread -r _ <{gate}\n"


class Seam(NamedTuple):
    """The place behind the n-th call of a name, and in which directory that removed something."""

    call: str
    number: int
    where: str


def pair(sharing: str, *, stopped: bool) -> Pair:
    """Make a dead one and a new one that have so much in common."""
    (found,) = (one for one in SHARINGS if one.name == sharing)
    return Pair(found, "whole", stopped=stopped, member=False, name=ID)


def tracing(one: Node, record: Path, *options: str) -> list[Word]:
    """Make a `clean` whose calls are traced."""
    words = product.words(one, "clean", "-o", "json", *product.NOW)
    return [*TRACING, "-o", record, "-e", f"trace={','.join(CALLS)}", *options, *words]


def crash(one: Node, hook: Path | None = None) -> None:
    """Leave a dead bundle, with a hook that runs when it is deleted if one is named."""
    task = one.run(ID)
    one.crash(task)
    if hook is not None:
        file = SHARINGS[0].first.runc(one, ID) / "state.json"
        state = json.loads(file.read_text())
        state["config"]["Hooks"]["poststop"] = [{"path": os.fspath(hook)}]
        file.write_text(json.dumps(state))
    one.restart(unseen=[task])
    one.ctr("containers", "delete", ID)  # its bundle is all that is left of it


def seams(one: Node, record: Path) -> list[Seam]:
    """Learn by a cleanup what a cleanup does."""
    crash(one)
    one.apart.run(*tracing(one, record), env=product.environment())
    found: dict[str, int] = {}
    made = []
    for call in straced.read(record):
        if call.name in CALLS and call.succeeded:
            number = found[call.name] = found.get(call.name, 0) + 1
            top = re.search(
                r"/sys/fs/cgroup|/runc/|/containerd/s>|\.reconciler-|rootfs", call.words
            )
            made.append(Seam(call.name, number, top[0] if top else ""))
    return made


def borders(every: list[Seam]) -> list[Seam]:
    """Choose the places where one kind of thing has been removed and the next has not."""
    return [
        one
        for one, after in zip(every, [*every[1:], None], strict=True)
        if after is None or after.where != one.where
    ]


@contextmanager
def stopped_behind(one: Node, seam: Seam, record: Path) -> Iterator[None]:
    """Have a cleanup stop at a place, and go on to its end behind the block."""
    record.write_text("")
    inject = f"inject={seam.call}:signal=STOP:when={seam.number}"
    with in_background(one, tracing(one, record, "-e", inject)):
        until(lambda: bool(STOPPED.search(record.read_text())), f"it stops behind {seam}")
        stopped = STOPPED.search(record.read_text())
        assert stopped is not None
        yield
        os.kill(int(stopped[1]), signal.SIGCONT)


@contextmanager
def in_background(one: Node, words: list[Word]) -> Iterator[None]:
    """Run a cleanup meanwhile, and see that it comes to an end."""
    process = subprocess.Popen(
        one.apart.command(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=product.environment(),
    )
    try:
        yield
        said, _ = process.communicate(timeout=PATIENCE)
        assert json.loads(said)["results"], "it had nothing to do"
    finally:
        process.kill()
        process.communicate()


def start_anew(one: Node, other: Twin, new: Pair) -> Twins:
    """Start the id in the other instance."""
    twins = Twins(one, other, [new])
    twins.run_second()
    return twins


def is_unharmed(twins: Twins, before: Snapshot, seam: Seam | None = None) -> None:
    """See that the new task is as it was, can be used, and that the dead one goes at last."""
    changes = before.changes(twins.second_part())
    assert changes == [], f"behind {seam}"
    twins.use_second()
    product.clean(twins.one, "--settle", "0s")
    assert twins.remains(twins.pairs[0]) == []


@pytest.mark.fault("I8", "an id started anew between any two steps")
@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_task_started_between_two_steps_is_untouched(tmp_path: Path, everywhere: bool) -> None:
    straced.needed()
    record = tmp_path / "record"
    with Node(tmp_path) as one, Twin(one) as other:
        one.run("keeper")
        every = seams(one, record)
        for number, seam in enumerate(every if everywhere else borders(every)):
            crash(one)
            with stopped_behind(one, seam, record):
                # As long as runc's state of the dead one stands runc makes no other.
                is_taken = SHARINGS[0].first.runc(one, ID).exists()
                new = pair("cgroup" if is_taken else "all", stopped=number % 2 == 0)
                twins = start_anew(one, other, new)
                before = twins.second_part()
            is_unharmed(twins, before, seam)


@pytest.mark.fault("I8", "an id started by another containerd while hooks run")
@pytest.mark.parametrize(
    ("sharing", "stopped"),
    [
        pytest.param("all", False, id="in the same cgroup"),
        pytest.param("root", False, id="in another cgroup"),
        pytest.param("all", True, id="and stopped"),
    ],
)
def test_a_task_started_while_a_hook_runs_is_untouched(
    tmp_path: Path, sharing: str, stopped: bool
) -> None:
    """runc has then removed the dead one's state and cgroups, so that their names are free."""
    hook, reached, gate = (tmp_path / name for name in ("hook", "reached", "gate"))
    hook.write_text(HOOK.format(reached=reached, gate=gate))
    hook.chmod(0o755)
    os.mkfifo(gate)
    with Node(tmp_path) as one, Twin(one) as other:
        one.run("keeper")
        crash(one, hook)
        with in_background(one, product.words(one, "clean", "-o", "json", *product.NOW)):
            until(reached.exists, "the hook runs")
            twins = start_anew(one, other, pair(sharing, stopped=stopped))
            before = twins.second_part()
            with gate.open("w") as opened:
                opened.write("go\n")
        is_unharmed(twins, before)
