"""Play random histories of a simulated node, in virtual time; see `tests.safety.machine`.

    python -m tests.safety.histories                        1,500, half of them in each shard
    python -m tests.safety.histories --count 100000         more of them
    python -m tests.safety.histories --seed 7 --shard 1/2   the second half of a run, again

Its report is one line of JSON. What fails is made as small as possible and printed as a program.
"""

import argparse
import json
import os
import random
import sys
import time
import traceback
from dataclasses import asdict, dataclass

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.safety.machine import NodeMachine
from tests.safety.outside_machine import OutsideMachine
from tests.safety.sandboxes_machine import SandboxesMachine

COUNT = 1_500
"""In a minute; `make soak` plays a hundred thousand."""

A_ROUND = 2_500
"""Histories of one seed: Hypothesis remembers all it has played, and is the slower for it."""
STEPS = 40


@dataclass
class Report:
    """What was played.

    Attributes:
        histories: How many, each to its end.
        steps: Steps after which the promises were compared with the truth.
        seeds: One for each round; ``--seed`` with the first plays the same again.
        lost: Promises that were broken.
        killed: Processes of orphans that were ended.
        debris: Pieces of debris that were removed.
        sandboxes: Sandboxes that were removed.
    """

    histories: int
    steps: int
    seconds: float
    seeds: list[int]
    lost: list[str]
    killed: int = 0
    debris: int = 0
    sandboxes: int = 0


def rules(count: int, *, shrink: bool = True) -> settings:
    """Settings for so many histories."""
    phases = (Phase.generate, *((Phase.shrink,) if shrink else ()))
    return settings(
        max_examples=count,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=phases,
        print_blob=True,
        verbosity=Verbosity.normal,
        suppress_health_check=list(HealthCheck),
    )


def play(count: int, first: int) -> Report:
    """Play so many histories; each round has a seed of its own, counted from the first."""
    began = time.monotonic()
    seeds: list[int] = []
    lost: list[str] = []
    NodeMachine.played = NodeMachine.steps = NodeMachine.killed = OutsideMachine.debris = 0
    SandboxesMachine.sandboxes = 0
    while NodeMachine.played < count and not lost:
        seeds.append(first + len(seeds))
        wanted = min(A_ROUND, count - NodeMachine.played)
        sys.stderr.write(f"seed {seeds[-1]}: {wanted} histories after {NodeMachine.played}\n")
        sys.stderr.flush()
        try:
            run_state_machine_as_test(seed(seeds[-1])(SandboxesMachine), settings=rules(wanted))
        except AssertionError as error:
            told = "".join(traceback.format_exception(error))
            lost.append(f"seed {seeds[-1]}: {told}")
    took = time.monotonic() - began
    done = NodeMachine.killed, OutsideMachine.debris, SandboxesMachine.sandboxes
    return Report(NodeMachine.played, NodeMachine.steps, took, seeds, lost, *done)


def main() -> int:
    """Play one shard and write its report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.safety.histories", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, help="of the first round; a random one if left out")
    parser.add_argument("--shard", default="0/1", help="which part, of how many")
    asked = parser.parse_args()
    shard, of = (int(word) for word in asked.shard.split("/"))
    base = random.randrange(1 << 30) if asked.seed is None else asked.seed  # noqa: S311 -- a seed
    report = play(asked.count // of, base + shard * (asked.count // A_ROUND + 1))
    sys.stdout.write(json.dumps(asdict(report)) + os.linesep)
    return 1 if report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
