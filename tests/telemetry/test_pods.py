"""The log names a bundle's pod and container beside its id, also once it is gone."""

import pytest
from msgspec.structs import replace

from reconciler.model.decisions import Phase
from reconciler.model.evidence import Labels
from reconciler.model.ids import Identity
from reconciler.model.observations import Hint, Observation
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policies, Policy
from reconciler.telemetry.logs import LogListener, make_logger
from tests.decide.world import ENFORCE, World, dead, key
from tests.telemetry.test_logs import Lines

LABELS = Labels(known=True, pod_namespace="kube-system", pod="coredns-5d78", container="coredns")
NAMES = {"pod_namespace": "kube-system", "pod": "coredns-5d78", "container": "coredns"}


class Logged:
    """A world whose log is written."""

    def __init__(self, policies: Policies, level: int = 10) -> None:
        self.world, self.lines = World(policies), Lines()
        self.log = LogListener(make_logger(as_json=True, level=level, sink=self.lines))
        self.log.find = self.world.engine.track

    def observe(self, observation: Observation) -> None:
        self.log.observed(self.world.stamp, observation)
        for decision in self.world.observe(observation):
            self.log.decided(self.world.stamp, decision)


def in_a_pod(logged: Logged) -> Identity:
    look = replace(dead(), labels=LABELS)
    for decision in (*logged.world.look(look), *logged.world.node()):
        logged.log.decided(logged.world.stamp, decision)
    return look.identity


def test_pod_and_container_stand_beside_the_id() -> None:
    logged = Logged(Policies(default=replace(ENFORCE, grace=0.0)))
    identity = in_a_pod(logged)
    logged.observe(Hint(key()))
    logged.observe(Outcome(key(), identity, Result.CLEANED))
    logged.observe(Hint(key()))
    events = {str(line["event"]) for line in logged.lines.records}
    assert events >= {"bundle.judged", "hint.received", "bundle.cleaned", "bundle.vanished"}
    for line in logged.lines.records:
        if "id" in line:
            assert {name: line.get(name) for name in NAMES} == NAMES, line
            assert [*line][3:8] == ["namespace", "id", *NAMES]


def test_names_that_are_not_known_are_left_out() -> None:
    logged = Logged(Policies(default=ENFORCE))
    logged.observe(Hint(key()))
    (line,) = logged.lines.records
    assert not NAMES.keys() & line.keys()


def test_how_many_pods_are_remembered_is_bounded() -> None:
    logged = Logged(Policies(default=ENFORCE))
    in_a_pod(logged)
    track = logged.world.engine.track(key())
    assert track is not None
    logged.log.find = lambda _: track
    for n in range(5000):
        logged.log.observed(logged.world.stamp, Hint(key(f"ns/{n}")))
    assert len(logged.log._pods) <= 4096


@pytest.mark.parametrize(
    ("policy", "said"), [(replace(ENFORCE, enforce=False), True), (ENFORCE, False)]
)
def test_at_info_a_leftover_is_said_where_nothing_will_come_of_it(
    policy: Policy, said: bool
) -> None:
    logged = Logged(Policies(default=policy), level=20)
    in_a_pod(logged)
    judged = [line for line in logged.lines.records if line["event"] == "bundle.judged"]
    assert bool(judged) == said
    assert all(line["phase"] == Phase.WAITING.value for line in judged)
