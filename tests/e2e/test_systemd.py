"""The program as a service of a running systemd, as the README installs it, on cgroup version 2.

One machine serves all tests; each begins with the service as it is installed and enforcing.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import product
from tests.e2e.apart import REPOSITORY
from tests.e2e.booted import SYSTEMD, UNITS
from tests.e2e.kinds import needs_version_2
from tests.e2e.machine import CONFIG, CONTRIB, SERVICE, Machine
from tests.e2e.processes import Process, kill_all, until
from tests.e2e.snapshot import Snapshot, remains
from tests.e2e.task import Task

pytestmark = [pytest.mark.containerd, pytest.mark.safety]

ENFORCE = """
mode = "enforce"
[cleanup]
grace = "0s"
threshold = "0s"
"""
BLOCKED = 75
DOWN = "--without-containerd"
"""In a pid namespace that is not the first nothing else proves that containerd is down."""
CLEANUP = "containerd-cleanup.service"
TIMER = "containerd-cleanup.timer"
RESCUE = "containerd-rescue.service"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that has booted, with the program installed and none of its units."""
    needs_version_2()
    if not Path(SYSTEMD).exists():
        pytest.skip("not installed: systemd")
    with Machine(tmp_path_factory.mktemp("machine")) as made:
        made.install()
        yield made


@pytest.fixture
def enforcing(machine: Machine) -> Machine:
    """The same with the service running and enforcing."""
    config = machine.booted.path(CONFIG)
    if state(machine)[0] != "active" or config.read_text() != ENFORCE:
        machine.booted.install(CONFIG, ENFORCE)
        machine.install_unit(SERVICE)
        machine.booted.systemctl("restart", SERVICE)
    return machine


def main(machine: Machine) -> Process:
    """Give the daemon's process."""
    return machine.booted.process(int(machine.booted.show(SERVICE, "MainPID")["MainPID"]))


def state(machine: Machine, unit: str = SERVICE) -> tuple[str, str]:
    """Say whether a unit is active, and how it ended last."""
    found = machine.booted.show(unit, "ActiveState", "Result")
    return found["ActiveState"], found["Result"]


def wait_until_gone(machine: Machine, *tasks: Task) -> None:
    """Wait until the bundles of tasks are gone."""
    bundles = [machine.bundle(task.id) for task in tasks]
    until(lambda: not any(bundle.exists() for bundle in bundles), "the dead are removed")


def test_installed_as_the_readme_says_it_is_ready_when_its_start_returns(machine: Machine) -> None:
    text = (REPOSITORY / "README.md").read_text()
    (steps,) = re.findall(r"(?m)^```\n(install -Dm644 [^`]*)^```$", text)
    done = machine.booted.run("sh", "-exc", f"cd {REPOSITORY}\n{steps}")
    assert "ready, observe: /run/containerd, containerd up" in done.stdout, done
    found = machine.booted.show(SERVICE, "SubState", "StatusText", "UnitFileState")
    assert found["SubState"] == "running"
    assert found["StatusText"].startswith("observe: ")
    assert found["UnitFileState"] == "enabled"
    # Any other mount namespace than the host's, and it could not enforce.
    spaces = {os.readlink(f"/proc/{pid}/ns/mnt") for pid in (machine.booted.pid, main(machine).pid)}
    assert len(spaces) == 1
    assert machine.booted.path("/var/log/containerd-reconciler/journal.jsonl").is_file()
    machine.booted.systemctl("disable", "--now", SERVICE)
    assert state(machine) == ("inactive", "success")


def test_a_reload_is_over_when_it_is_in_force_and_fails_if_it_is_refused(
    enforcing: Machine,
) -> None:
    booted, daemon = enforcing.booted, main(enforcing)
    booted.install(CONFIG, 'mode = "observe"\n')
    booted.systemctl("reload", SERVICE)
    assert booted.show(SERVICE, "StatusText")["StatusText"].startswith("observe: ")
    booted.install(CONFIG, 'mode = "sometimes"\n')
    refused = booted.run("systemctl", "reload", SERVICE, check=False)
    assert refused.returncode == 1
    assert booted.show(SERVICE, "StatusText")["StatusText"].startswith("observe: ")
    assert booted.systemctl("is-active", SERVICE) == "active"
    assert main(enforcing) == daemon


@pytest.mark.fault("I6", "live container")
def test_the_service_removes_the_dead_and_leaves_the_living(enforcing: Machine) -> None:
    node = enforcing
    living = [node.run("keeper"), node.run_in_scope("keeper-in-scope")]
    if node.containerd.version < (1, 7):  # later ones take stopped tasks away as they start
        living.append(node.stopped("stopped"))
    dead = [node.run("dead"), node.run_in_scope("dead-in-scope")]
    before = Snapshot.take(node, living)
    node.crash(*dead)
    # systemd takes an empty scope away by itself.
    until(lambda: not node.scope("dead-in-scope").exists(), "the dead one's scope is gone")
    node.restart(unseen=dead)
    wait_until_gone(node, *dead)
    assert [one for task in dead for one in remains(node, task.id)] == []
    assert before.changes(Snapshot.take(node, living)) == []
    assert node.scope("keeper-in-scope").is_dir()


@pytest.mark.fault("I14", "cgroup populated")
def test_a_scope_in_which_somebody_lives_is_left_alone(enforcing: Machine) -> None:
    node = enforcing
    task = node.run_in_scope("left")
    inner = node.scope("left") / "inner"
    inner.mkdir()
    with node.guest() as guest:
        (inner / "cgroup.procs").write_text(str(guest.pid))
        node.crash(task)
        node.restart(unseen=[task])
        orphaned = "shim is dead but its cgroup holds processes"
        until(lambda: orphaned in "\n".join(node.booted.journal(SERVICE)), "it is an orphan")
        assert node.bundle("left").is_dir()
        assert guest.alive
        assert inner.is_dir()
    wait_until_gone(node, task)
    until(lambda: not node.scope("left").exists(), "its scope is gone")


def test_one_that_hangs_is_ended_by_the_watchdog_and_started_again(machine: Machine) -> None:
    machine.booted.install(CONFIG, ENFORCE)
    machine.install_unit(SERVICE, WatchdogSec="1s", RestartSec="100ms")
    machine.booted.systemctl("restart", SERVICE)
    daemon = main(machine)
    os.kill(daemon.pid, signal.SIGSTOP)
    until(lambda: machine.booted.show(SERVICE, "NRestarts")["NRestarts"] == "1", "it is restarted")
    until(lambda: state(machine)[0] == "active", "it is ready again")
    assert not daemon.alive
    assert main(machine) != daemon
    assert any("Watchdog timeout" in line for line in machine.booted.journal(SERVICE))
    machine.booted.systemctl("stop", SERVICE)


def test_a_stop_is_short_and_leaves_no_process(enforcing: Machine) -> None:
    (cgroup,) = (
        top / "host/system.slice" / SERVICE for top in enforcing.booted.belongings.cgroups()
    )
    assert len((cgroup / "cgroup.procs").read_text().split()) > 1
    begun = time.monotonic()
    enforcing.booted.systemctl("stop", SERVICE)
    assert time.monotonic() - begun < 5
    assert state(enforcing) == ("inactive", "success")
    assert not cgroup.exists()


def test_a_scope_that_systemd_has_not_taken_away_yet_is_left_to_it(machine: Machine) -> None:
    """Or systemd would keep the unit, and the next container of that name have no cgroup."""
    machine.booted.systemctl("stop", SERVICE)
    task = machine.run_in_scope("slow")
    machine.containerd.kill()
    with machine.frozen():
        kill_all([task.shim, task.init])
        (told,) = product.clean(machine, DOWN, code=BLOCKED)["results"]
        assert told["detail"].startswith("scope kept by systemd: cri-containerd-slow.scope")
        assert machine.scope("slow").is_dir()
        assert machine.bundle("slow").is_dir()
    until(lambda: not machine.scope("slow").exists(), "systemd has taken it away")
    assert product.results(product.clean(machine, DOWN)) == {"slow": "cleaned"}
    machine.containerd.start()
    machine.ctr("containers", "rm", "slow")
    again = machine.run_in_scope("slow")
    assert str(again.init.pid) in (machine.scope("slow") / "cgroup.procs").read_text().split()
    machine.ctr("tasks", "delete", "--force", "slow")


def test_the_timers_service_removes_what_has_been_dead_for_long(machine: Machine) -> None:
    # Nothing is older than the boot, and that may have been a minute ago.
    start = "/usr/local/bin/containerd-cleanup --threshold=30s --grace=0s --yes"
    machine.install_unit(CLEANUP, ExecStart=start)
    machine.booted.install(f"{UNITS}/{TIMER}", (CONTRIB / TIMER).read_text())
    machine.booted.systemctl("daemon-reload")
    machine.booted.systemctl("enable", "--now", TIMER)
    assert machine.booted.show(TIMER, "NextElapseUSecRealtime")["NextElapseUSecRealtime"]
    keeper, old, young = machine.run_all(("keeper2", "old", "young"))
    machine.crash(old, young)
    machine.restart(unseen=[old, young])
    age = ("-exec", "touch", "-hd", "40 seconds ago", "{}", "+")
    machine.booted.run("find", machine.inside("old"), "-xdev", *age)
    before = Snapshot.take(machine, [keeper, young])
    machine.booted.systemctl("start", CLEANUP)
    assert state(machine, CLEANUP) == ("inactive", "success")
    assert remains(machine, "old") == []
    assert before.changes(Snapshot.take(machine, [keeper, young])) == []
    machine.booted.systemctl("disable", "--now", TIMER)


def test_the_rescue_is_over_before_containerd_starts(machine: Machine) -> None:
    start = f"/usr/local/bin/containerd-reconciler clean --rescue --yes {DOWN}"
    machine.install_unit(RESCUE, ExecStart=start)
    machine.booted.systemctl("enable", RESCUE)
    keeper, dead = machine.run("keeper3"), machine.run("dead3")
    machine.lose(dead, "runtime")
    machine.crash(dead)
    machine.containerd.start()
    assert state(machine, RESCUE) == ("inactive", "success")
    ended = machine.booted.show(RESCUE, "ExecMainExitTimestampMonotonic")
    begun = machine.booted.show("containerd.service", "ExecMainStartTimestampMonotonic")
    assert 0 < int(*ended.values()) < int(*begun.values())
    assert remains(machine, "dead3") == []
    assert keeper.init.alive
    machine.booted.systemctl("disable", RESCUE)
