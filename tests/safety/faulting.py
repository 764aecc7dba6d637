"""Make a worker's system calls fail, one at a time: what does it say, what is left, what is lost?

    python -m tests.safety.faulting               every fault at what acts, one at what looks
    python -m tests.safety.faulting --every       every fault at every call that may meet it
    python -m tests.safety.faulting --shard 1/2   the second half

For each fault, and for the n-th call of each kind that a cleanup makes, a bundle of its own is
cleaned by a worker whose call fails right there. It must say what is in the way in the right word,
and never break. The same worker then gets the same bundle without the fault.

The same is done to looks at live tasks: whatever answer fails, no live task may look dead.
"""

import argparse
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio

from reconciler.decide.verdicts import judge
from reconciler.model.decisions import Verdict
from reconciler.model.evidence import (
    Containerd,
    ContainerdState,
    Node,
    PartialLook,
    ProcessScan,
)
from reconciler.model.facts import weigh
from reconciler.model.ids import BundleKey
from reconciler.model.outcome import BlockReason, Outcome, Result, StepResult
from reconciler.probe.tree import TreeInspector
from tests.safety import straced
from tests.safety.ground import Ground, ground
from tests.safety.working import Kind, Work, working
from tests.support.bundles import Bundle
from tests.support.mountns import in_private_mounts

REASONS = {
    "EIO": BlockReason.IO,
    "EBUSY": BlockReason.MOUNT_BUSY,
    "EROFS": BlockReason.READ_ONLY,
    "EPERM": BlockReason.IMMUTABLE,
    "ENOSPC": BlockReason.NO_SPACE,
    "ENOSYS": BlockReason.IO,
    "EAGAIN": BlockReason.IO,
    "EMFILE": BlockReason.IO,
}
"""Each fault, and what is said of it where it keeps a bundle from going."""

ACTING = frozenset({"openat2", "renameat2", "umount2", "unlinkat"})
LOOKING = frozenset({"fstatfs", "getdents64", "newfstatat", "openat", "read", "readlink", "statx"})
NOT_FOR_LOOKS = frozenset({"close", "exit_group", "mmap", "munmap", "rt_sigtimedwait", "write"})
"""Calls of the test's own, and those whose failure is the interpreter's business."""
SECONDS = 10.0
LOOKS_FAIL = ("EIO",)
"""How calls that only look fail unless every fault is asked for."""
KINDS: tuple[Kind, ...] = ("whole", "hidden")


@dataclass
class Report:
    """What happened.

    Attributes:
        calls: How often a clean run of each kind makes each call.
        faults: Faults injected.
        looks: Those of them that were injected into looks at live tasks.
        results: How the attempts ended, and how often.
        wrong: Ends that are wrong.
        left: What the next attempt left.
        lost: Canaries and live tasks that are not as they were.
    """

    calls: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: int = 0
    looks: int = 0
    results: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


async def _one(work: Work, report: Report, call: str, number: int, fault: str) -> None:
    what = f"{work.kind}-{call}-{number}-{fault}"
    bundle = await work.bundle(what.lower())
    pid = await work.worker()
    inject = f"inject={call}:error={fault}:when={number}"
    with straced.attached(pid, "-e", f"trace={call}", "-e", inject):
        outcome = await work.do(bundle)
    report.faults += 1
    told = outcome.reason.value if outcome.reason else outcome.result.value
    report.results[told] = report.results.get(told, 0) + 1
    report.wrong += [f"{what}: {word}" for word in _wrong(outcome, _reasons(call, fault))]
    kept = _kept(bundle, outcome)
    if outcome.result is not Result.CLEANED:
        again = await _again(work, bundle)
        if again.result is not Result.CLEANED:
            report.left.append(f"{what}: then {again}")
        if await work.worker() != pid:
            report.wrong.append(f"{what}: the worker ended")
        kept |= _kept(bundle, again)
    report.left += [f"{what}: {path}" for path in bundle.left() if str(path) not in kept]
    report.left += [f"{what}: {point}" for point in bundle.mounts()]


async def _again(work: Work, bundle: Bundle) -> Outcome:
    """Try once more; what a worker has learnt wrongly about the node it believes for a second."""
    deadline = anyio.current_time() + SECONDS
    while (outcome := await work.do(bundle)).result is Result.SKIPPED:
        if anyio.current_time() > deadline:
            break
        await anyio.sleep(0.1)
    return outcome


def _reasons(call: str, fault: str) -> set[BlockReason]:
    """What may be said where this keeps a bundle from going."""
    # Without evidence nothing is done, whatever kept it from being read.
    return {REASONS[fault], BlockReason.IO} if call in LOOKING else {REASONS[fault]}


def _wrong(outcome: Outcome, reasons: set[BlockReason]) -> list[str]:
    """Say what is wrong with how it ended."""
    match outcome.result:
        case Result.CLEANED | Result.SKIPPED:
            return []
        case Result.BLOCKED if outcome.reason in reasons and outcome.detail:
            return []
        case _:
            return [str(outcome)]


def _kept(bundle: Bundle, outcome: Outcome) -> set[str]:
    """Name the residue that may stay, because a step says that it could not remove it."""
    of = {
        "cgroup": [str(group) for group in bundle.cgroups],
        "runc-state": [str(bundle.runc_state)],
        "shim-socket": [str(bundle.socket)],
        "work-dir": [str(bundle.work)],
    }
    told = [one.step for one in outcome.steps if one.result is StepResult.WARNING]
    return {path for step in told for path in of.get(step, ())}


async def _work(on: Ground, report: Report, shard: int, of: int, every: bool) -> None:
    for kind in KINDS:
        async with working(on, kind) as work:
            traced = await work.bundle(f"{kind}-traced")
            calls = straced.counted(await work.trace(traced, on.site.base / "trace"))
            counts = {name: calls[name] for name in sorted((ACTING | LOOKING) & calls.keys())}
            report.calls[kind] = counts
            places = [
                (name, number, fault)
                for name, count in counts.items()
                for number in range(1, count + 1)
                for fault in (REASONS if every or name in ACTING else LOOKS_FAIL)
            ]
            for call, number, fault in places[shard::of]:
                await _one(work, report, call, number, fault)


def _fail_looks(on: Ground, report: Report, shard: int, of: int, *, every: bool) -> None:
    """Let each call of a look at a live task fail."""
    for live in on.live:
        to = on.site.base / "look"
        assert _look_fails(on, live.bundle.key, "-o", str(to)) is None
        calls = straced.counted(straced.read(to))
        places = [
            (name, number, fault)
            for name in sorted(calls.keys() - NOT_FOR_LOOKS)
            if straced.injectable(name)  # for the others see tests/probe/test_points
            for number in range(1, calls[name] + 1)
            for fault in (REASONS if every else LOOKS_FAIL)
        ]
        for call, number, fault in places[shard::of]:
            inject = f"inject={call}:error={fault}:when={number}"
            wrong = _look_fails(on, live.bundle.key, "-e", f"trace={call}", "-e", inject)
            report.faults += 1
            report.looks += 1
            if wrong:
                report.wrong.append(f"{live.bundle.key} {call} {number} {fault}: {wrong}")


def _look_fails(on: Ground, key: BundleKey, *options: str) -> str | None:
    """Look in a child under strace, and judge with nobody else to speak for the task."""
    answer, say = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    pid = os.fork()
    if pid == 0:
        try:
            signal.sigwait({signal.SIGUSR1})
            os.write(say, (_verdict(on, key) or "-").encode())
        except BaseException:  # noqa: BLE001 -- whatever it was, the parent reports it
            os.write(say, traceback.format_exc().encode())
        finally:
            os._exit(0)
    try:
        with straced.attached(pid, *options):
            os.kill(pid, signal.SIGUSR1)
            told, _, _ = select.select([answer], [], [], SECONDS)
            said = os.read(answer, 1 << 16).decode() if told else f"nothing in {SECONDS} s"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(answer)
        os.close(say)
    return None if said == "-" else said


def _verdict(on: Ground, key: BundleKey) -> str:
    """Say what is wrong with the verdict on a live task; nothing, if it lives or may live."""
    inspector = TreeInspector(on.site.layout)
    try:
        listed, seen = inspector.list(), inspector.look(key)
    finally:
        inspector.close()
    if seen is None:
        return "there is none"
    # Where the mount table could not be read, nothing beyond the tree was looked at.
    look = seen.look if isinstance(seen, PartialLook) else seen
    if listed.answered and key not in {one.key for one in listed.bundles}:
        return "it is not listed"
    node = Node(ProcessScan(answered=True), Containerd(ContainerdState.DOWN))
    judgement = judge(weigh(key, True, look, node), young=False)
    return judgement.reason if judgement.verdict is Verdict.LEFTOVER else ""


def fail(base: Path, shard: int = 0, of: int = 1, *, every: bool = False) -> Report:
    """Let every call of a shard fail in every way. In private mounts only."""
    straced.needed()
    report = Report()
    with ground(base) as on:
        anyio.run(_work, on, report, shard, of, every)
        _fail_looks(on, report, shard, of, every=every)
        report.lost = on.harm()
    return report


def main() -> int:
    """Run one shard and write its report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.safety.faulting", description=__doc__)
    parser.add_argument("--shard", default="0/1", help="which part, of how many")
    parser.add_argument("--every", action="store_true", help="every fault at every call")
    asked = parser.parse_args()
    shard, of = (int(word) for word in asked.shard.split("/"))
    # The directory is removed out here, where none of those mounts has ever been.
    with tempfile.TemporaryDirectory() as name:
        report = in_private_mounts(
            lambda: fail(Path(name), shard, of, every=asked.every), timeout=3600
        )
    sys.stdout.write(json.dumps(asdict(report)) + os.linesep)
    return 1 if report.wrong or report.left or report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
