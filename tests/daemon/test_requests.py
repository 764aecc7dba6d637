"""What root may ask of a daemon over its private socket, and that nothing goes round the engine."""

from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import msgspec
import pytest
from msgspec.structs import replace

from reconciler.daemon.requests import Requests
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.model.debris import DebrisKind
from reconciler.model.decisions import Phase
from reconciler.model.evidence import Answer
from reconciler.model.observations import (
    CleanRequested,
    Guard,
    GuardsChecked,
    Observation,
    Refusal,
    ReleaseRequested,
)
from reconciler.model.policy import Brakes, Policies
from reconciler.present.beliefs import Asked, Beliefs, Reply, hold_of
from reconciler.telemetry.http import Request, Response
from tests.decide.debris_world import DebrisWorld, place
from tests.decide.world import ENFORCE, World, dead, running

SLOW = replace(ENFORCE, grace=600.0)
ROOT = 0, 4242


@dataclass
class Asking:
    """An engine on a clock, and what is asked of it."""

    world: World = field(default_factory=lambda: World(Policies(default=SLOW)))
    delivered: list[Observation] = field(default_factory=list)

    def __post_init__(self) -> None:
        world = self.world
        world.listed(a=1, b=2)
        world.look(dead())
        world.look(running(2), "ns/b")
        world.node()
        world.wait(60.0)
        whoami = "1.2", "enforce", 17, "/run/containerd"
        self.routes = Requests(
            world.engine, self._deliver, lambda: whoami, list, lambda: world.stamp
        ).routes()

    async def _deliver(self, observation: Observation) -> None:
        self.delivered.append(observation)
        self.world.observe(observation)

    async def __call__(self, method: str, path: str, query: str = "") -> Response:
        return await self.routes[method, path](Request(method, path, query, ROOT))


@pytest.fixture
def asking() -> Asking:
    return Asking()


async def test_it_tells_what_it_believes_of_whatever_has_a_phase(asking: Asking) -> None:
    told = msgspec.json.decode((await asking("GET", "/bundles")).body, type=Beliefs)
    assert (told.version, told.mode, told.pid, told.state) == (
        *("1.2", "enforce"),
        *(17, "/run/containerd"),
    )
    (one,) = told.bundles
    assert (one.key.id, one.verdict, one.enforce) == ("a", "leftover", True)
    assert one.phase is Phase.WAITING
    assert one.due_in_seconds == pytest.approx(540.0)
    assert asking.delivered == []


async def test_of_a_bundle_that_is_asked_for_it_tells_in_any_case(asking: Asking) -> None:
    answer = await asking("GET", "/bundles", "key=ns%2Fb&key=ns/nothing&x=y")
    told = msgspec.json.decode(answer.body, type=Beliefs)
    assert [(one.key.id, one.verdict, one.phase.value) for one in told.bundles] == [
        ("b", "running", "")
    ]


async def test_of_debris_it_tells_which_object_waits_for_how_long() -> None:
    socket = place(DebrisKind.SHIM_SOCKET, "/run/s/a b", names=("", ""))
    unsure = place(path="/ns/unsure", owned=Answer.NONE)
    world = DebrisWorld(Policies(default=SLOW))
    asking = Asking(world)
    world.there += [socket, unsure]
    world.inventory()
    world.pass_time(60.0)
    told = msgspec.json.decode((await asking("GET", "/bundles")).body, type=Beliefs)
    assert told.bundles
    (one,) = told.debris
    assert (one.key, one.identity) == (socket.key, socket.identity)
    assert (one.phase, one.verdict) == (Phase.WAITING, DebrisVerdict.DEBRIS)
    assert one.due_in_seconds == pytest.approx(540.0, abs=0.1)
    assert one.objection == "debris of the kind shim-socket is only reported"
    asked = "place=shim-socket%3A%2Frun%2Fs%2Fa+b&place=nothing&place=cgroup:/ns/unsure"
    told = msgspec.json.decode((await asking("GET", "/bundles", asked)).body, type=Beliefs)
    assert {one.key for one in told.debris} == {socket.key, unsure.key}
    assert not told.bundles
    told = msgspec.json.decode((await asking("GET", "/bundles", "key=ns/a")).body, type=Beliefs)
    assert (len(told.bundles), told.debris) == (1, [])


async def test_a_cleanup_that_is_asked_for_is_an_observation_with_who_asked(
    asking: Asking,
) -> None:
    answer = await asking("POST", "/-/clean", "key=ns/a&key=ns/b&key=ns/a&key=ns/c")
    told = msgspec.json.decode(answer.body, type=Reply)
    assert told.bundles == [
        Asked("ns", "a"),
        Asked("ns", "b", "it is running: shim and init live"),
        Asked("ns", "c", "there is no such bundle"),
    ]
    (asked,) = asking.delivered
    assert isinstance(asked, CleanRequested)
    assert [key.id for key in asked.keys] == ["a", "b", "c"]
    assert (asked.uid, asked.pid) == ROOT
    assert asking.world.cleans() == ["ns/a"]


async def test_a_cleanup_without_a_name_is_a_mistake(asking: Asking) -> None:
    assert (await asking("POST", "/-/clean")).status == 400
    assert (await asking("POST", "/-/clean", "keys=ns/a")).status == 400
    assert asking.delivered == []


async def test_what_holds_after_a_release_is_told(asking: Asking) -> None:
    refused = Refusal(Guard.KERNEL, "no openat2")
    asking.world.observe(GuardsChecked((refused,)))
    told = msgspec.json.decode((await asking("POST", "/-/release")).body, type=Reply)
    assert told == Reply(17, "guards: no openat2")
    assert asking.delivered == [ReleaseRequested(*ROOT)]
    cleaned = await asking("POST", "/-/clean", "key=ns/a")
    assert msgspec.json.decode(cleaned.body, type=Reply).hold == "guards: no openat2"
    assert asking.world.phase() is Phase.HELD


async def test_a_brake_that_lets_one_more_go_and_holds_again_was_released() -> None:
    policies = Policies(default=ENFORCE, brakes=Brakes(max_per_minute=1))
    asking = Asking(World(policies))
    world = asking.world
    names = {name: number for number, name in enumerate("cdefg", 3)}
    world.listed(**names)
    for name, number in names.items():
        world.look(dead(number), f"ns/{name}")
    world.node()
    world.wait(30.0)
    begun = len(world.cleans())
    held = "max_per_minute: 1 cleanups in the last minute"
    assert hold_of(world.engine) == held
    told = msgspec.json.decode((await asking("POST", "/-/release")).body, type=Reply)
    assert told == Reply(17, held, released=held)
    assert len(world.cleans()) == begun + 1
    refused = GuardsChecked((Refusal(Guard.KERNEL, "no openat2"),))
    world.observe(refused)
    told = msgspec.json.decode((await asking("POST", "/-/release")).body, type=Reply)
    assert told == Reply(17, "guards: no openat2")
    world.observe(GuardsChecked(()))
    assert hold_of(world.engine) == held
    world.wait(600.0)
    told = msgspec.json.decode((await asking("POST", "/-/release")).body, type=Reply)
    assert told == Reply(17)


async def test_a_name_is_the_one_that_is_shown(asking: Asking) -> None:
    answer = await asking("POST", "/-/clean", "key=ns%2Fa%FF%5Cx0a&key=%zz")
    told = msgspec.json.decode(answer.body, type=Reply)
    assert [(one.namespace, one.id) for one in told.bundles] == [("ns", r"a\xff\x0a"), ("%zz", "")]


async def test_the_loop_gets_its_turn_while_many_are_told_of() -> None:
    asking, turns = Asking(), 0
    count = 3000
    asking.world.listed(**{f"b{number}": number + 1 for number in range(count)})
    for number in range(count):
        asking.world.look(dead(number + 1), f"ns/b{number}")
    asking.world.node()

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turn)
        answer = await asking("GET", "/bundles")
        tasks.cancel_scope.cancel()
    assert len(msgspec.json.decode(answer.body, type=Beliefs).bundles) == count
    assert turns >= count // 500
