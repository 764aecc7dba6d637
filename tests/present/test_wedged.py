"""A shim that gives containerd no answer is named wherever an operator looks, and nowhere else."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import AskNode, Verdict
from reconciler.model.evidence import Containerd, ContainerdState, Shim, ShimState
from reconciler.model.layout import Layout
from reconciler.model.observations import NodeLooked
from reconciler.model.policy import Policies, Policy
from reconciler.present import explain, observations, rows, shapes, status, status_text
from reconciler.present.records import Level
from reconciler.telemetry.metrics import Metrics
from tests.decide.world import BOOTED, ENFORCE, World, dead, key, newborn, running
from tests.present.test_shapes import ENVELOPE
from tests.support.clock import VirtualClock

ALIVE = Shim(ShimState.ALIVE, "/run/containerd/s/x", "pod", 4711)
WORD = Containerd(
    ContainerdState.UP, pid=7, wedged=frozenset(key(f"ns/{name}") for name in ("pod", "web", "new"))
)
SAYS = "the shim gives containerd no answer"


@pytest.fixture
def world() -> World:
    """A pod of two with a wedged shim; one in creation, a healthy one and a dead one beside it."""
    made = World()
    made.listed(pod=1, web=2, well=3, gone=4, new=5)
    for ino, name in enumerate(("pod", "web"), 1):
        made.look(replace(running(ino), shim=ALIVE), f"ns/{name}")
    made.look(running(3), "ns/well")
    made.look(dead(4), "ns/gone")
    young = newborn(5)
    made.look(replace(young, shim=replace(young.shim, state=ShimState.ALIVE)), "ns/new")
    made.node(WORD)
    return made


def told(world: World) -> status.Status:
    about = status.About(
        "node-1", "1", "enforce", 1, "inotify", 1.0, True, status.ConfigStatus([], 0, True, [])
    )
    return status.gather(world.engine, status.Attempts(Layout()), about, world.stamp)


def test_scan_names_it(world: World) -> None:
    shown = {
        one.id: one for one in (shapes.bundle(v, Layout()) for v in world.engine.views(BOOTED))
    }
    assert [name for name, one in shown.items() if one.shim.wedged] == ["pod", "web"]
    assert shown["pod"].shim.pid == 4711
    assert shown["pod"].verdict == "running"
    table = rows.bundles(list(shown.values()), wide=False).plain()
    assert [line.split()[1] for line in table.splitlines() if SAYS in line] == ["pod", "web"]
    assert shown["new"].verdict == "starting"


def test_explain_names_it(world: World) -> None:
    rows = {
        name: explain.evidence_table(
            explain.explain(
                world.view(f"ns/{name}"), Layout(), Policy(), envelope=ENVELOPE, young=False
            ).evidence
        ).plain()
        for name in ("web", "well")
    }
    assert SAYS in rows["web"]
    assert "pid 4711" in rows["web"]
    assert SAYS not in rows["well"]


def test_status_names_it(world: World) -> None:
    found = told(world)
    assert found.summary.wedged_shims == 1
    assert [one.id for one in found.bundles if one.shim.wedged] == ["pod", "web"]
    (line,) = [one for one in status_text.lines(found) if one.startswith("no answer to")]
    assert line == ("no answer to containerd from 1 shim: ns/pod (pid 4711), ns/web (pid 4711)")
    assert found.omitted == 0


def test_a_metric_counts_it(world: World) -> None:
    text = Metrics(world.engine, VirtualClock(BOOTED)).render().decode()
    assert "\ncontainerd_reconciler_wedged_shims 1.0\n" in text


def test_the_log_tells_of_it_when_it_begins_and_when_it_ends() -> None:
    begun, over = (
        next(one for one in observations.records(NodeLooked(0.0, None, said)))
        for said in (WORD, replace(WORD, wedged=frozenset()))
    )
    assert begun.level is Level.WARNING
    assert begun.fields["wedged"] == ["ns/new", "ns/pod", "ns/web"]
    assert over.level is Level.INFO
    assert begun.repeats != over.repeats


def test_it_is_asked_for_again_soon_for_nothing_tells_when_it_answers(world: World) -> None:
    policies = Policies(default=ENFORCE)
    world.look(None, "ns/gone")
    world.look(running(5), "ns/new")
    world.node(WORD)
    before = len(world.said)
    world.wait(policies.recheck + 1)
    assert any(isinstance(said, AskNode) for said in world.said[before:])
    world.node(replace(WORD, wedged=frozenset()))
    assert told(world).summary.wedged_shims == 0
    before = len(world.said)
    world.wait(3600)
    assert not any(isinstance(said, AskNode) for said in world.said[before:]), "all is well"
    assert world.view("ns/web").judgement.verdict is Verdict.RUNNING
