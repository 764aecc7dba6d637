"""What the whole program calls, counted and compared: by strace, from its start to its end."""

import os
import re
import signal
import subprocess
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.clock import SystemClock
from reconciler.decide.engine import Engine
from reconciler.model.ids import escape, is_identifier
from reconciler.model.observations import Stamp
from reconciler.model.outcome import Outcome, Result
from reconciler.model.policy import Policies
from reconciler.probe.tree import TreeInspector
from reconciler.telemetry.metrics import Metrics
from tests.safety import straced
from tests.safety.ground import NOW, REPOSITORY, Ground, Ran, environment, ground, wait_for
from tests.safety.straced import Call
from tests.safety.working import working
from tests.support.bundles import Bundle, listen
from tests.support.inline import InlineWorker
from tests.support.mountns import private_mounts

pytestmark = [pytest.mark.safety, pytest.mark.kernel]

DESTRUCTIVE = straced.FILES - {"mkdir", "mkdirat", "ftruncate", "pidfd_send_signal"}
"""Without what the program does to its own lock file, its own memory and its own workers."""
OPENS = {"open", "openat", "openat2", "creat"}
LOCK = re.compile(r'\d+, "tree-[0-9a-f]+-\d+\.lock", ')
"""The lock of the tree, in a directory of the program's own that is open already."""

OWN = ("/run/containerd-reconciler", "/dev/null", "/dev/tty")
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")


def traced(on: Ground, names: set[str] | frozenset[str], *said: str) -> tuple[Ran, list[Call]]:
    """Run the program under strace from its start to its end, all its processes included."""
    straced.needed()
    to = on.site.base / "trace"
    words = ("strace", "-f", "-qq", "-o", str(to), "-e", f"trace={','.join(sorted(names))}")
    ran = on.run(*said, before=words, seconds=100)
    return ran, straced.read(to)


def changes(calls: list[Call]) -> list[Call]:
    """The calls that changed something in the world; ours, not the loader's."""
    return [call for call in calls if call.name in DESTRUCTIVE and call.succeeded]


def written(calls: list[Call]) -> list[Call]:
    """Files that were opened to be written, other than the program's own."""
    return [
        call
        for call in calls
        if call.name in OPENS
        and call.succeeded
        and WRITES.search(call.words)
        and not any(f'"{own}' in call.words for own in OWN)
        and not LOCK.match(call.words)
    ]


@pytest.mark.fault("I2", "I12", "I14")
@private_mounts
def test_whatever_is_removed_is_named_relative_to_a_handle(tmp_path: Path) -> None:
    """I2, I14: no path reaches a destructive call, and of cgroups nothing is but removed."""
    with ground(tmp_path) as on:
        bundles = [on.dead(f"dead-{number}") for number in range(3)]
        ran, calls = traced(on, DESTRUCTIVE | OPENS, "clean", *NOW)
        assert ran.code == 0, ran
        made = changes(calls)
        assert len(made) > 3 * 25
        for call in made:
            match call.name:
                case "unlinkat":
                    assert re.match(r'\d+, "[^/"]+"', call.words) or _is_below(call), call
                case "renameat2":
                    assert re.match(r'\d+, "[^/"]+", \d+, "[^/"]+", RENAME_NOREPLACE', call.words)
                case "umount2":
                    assert re.match(r'"/proc/self/fd/\d+/[^/"]+", UMOUNT_NOFOLLOW', call.words)
                case _:
                    pytest.fail(f"not to be used at all: {call}")
        assert written(calls) == []
        assert [one.left() for one in bundles] == [[], [], []]
        assert on.harm() == []


def _is_below(call: Call) -> bool:
    """Of cgroups several levels are removed below one handle, by a relative path."""
    return bool(re.match(r'\d+, "[^/"][^"]*", AT_REMOVEDIR', call.words))


@pytest.mark.fault("I10")
@private_mounts
def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """I10."""
    with ground(tmp_path) as on:
        on.dead("dead")
        assert on.run("clean", *NOW).code == 0
        ran, calls = traced(on, DESTRUCTIVE | OPENS, "clean", *NOW)
        assert ran.code == 0, ran
        assert changes(calls) == []
        assert written(calls) == []
        assert on.harm() == []


LOOKS = {
    "scan": ("scan", "-o", "json"),
    "dry-run": ("clean", "--dry-run", *NOW),
    "observe": ("run", "--once", "--grace", "0s", "--threshold", "0s"),
    "replay": ("replay", str(REPOSITORY / "tests/replay/journals/seed.jsonl")),
}


@pytest.mark.fault("I11", "I25", "FIFO, socket, device")
@pytest.mark.parametrize("look", LOOKS)
@private_mounts
def test_looking_changes_nothing_and_opens_nothing_that_notices(tmp_path: Path, look: str) -> None:
    """I11, I25: not even a lock file; no FIFO, device or socket is opened, only pinned."""
    with ground(tmp_path) as on:
        bundle = on.dead("dead", mounted=False)
        special = ("log", "fifo", "device", "socket", "listening")
        os.mkfifo(bundle.path / "fifo")
        os.mknod(bundle.path / "device", 0o20600, os.makedev(1, 5))
        listen(bundle.path / "socket").close()
        left = bundle.left()
        before = sorted(path.lstat().st_mtime_ns for path in bundle.path.iterdir())
        ran, calls = traced(on, straced.FILES | OPENS, *LOOKS[look])
        assert ran.code == 0, ran
        assert changes(calls) == []
        assert [call for call in calls if call.name.startswith("mkdir") and call.succeeded] == []
        assert written(calls) == []
        opened = [
            call
            for call in calls
            if call.name in OPENS
            and any(re.search(f'["/]{name}"', call.words) for name in special)
            and "O_PATH" not in call.words
            and "O_DIRECTORY" not in call.words  # which opens nothing else (open(2))
        ]
        assert opened == []
        assert bundle.left() == left
        assert sorted(path.lstat().st_mtime_ns for path in bundle.path.iterdir()) == before
        assert on.harm() == []


@pytest.mark.fault("I22")
@private_mounts
def test_calls_records_and_metrics_count_the_same(tmp_path: Path) -> None:
    """I22."""
    straced.needed()
    outcomes: list[Outcome] = []

    async def main(on: Ground) -> int:
        async with working(on, "whole") as work:
            bundles = [await work.bundle(f"counted-{number}") for number in range(3)]
            (bundles[2].rootfs.parent / "extra").mkdir()
            (bundles[2].rootfs.parent / "more").write_text("more")
            to = on.site.base / "trace"
            names = ",".join(sorted(DESTRUCTIVE))
            with straced.attached(await work.worker(), "-e", f"trace={names}", to=to):
                outcomes.extend([await work.do(bundle) for bundle in bundles])
            return len(changes(straced.read(to)))

    with ground(tmp_path) as on:
        called = anyio.run(main, on)
        assert on.harm() == []
    assert [one.result for one in outcomes] == [Result.CLEANED] * 3
    recorded = sum(step.mutations for one in outcomes for step in one.steps)
    clock = SystemClock()
    metrics = Metrics(Engine(Policies()), clock)
    for outcome in outcomes:
        metrics.observed(Stamp(clock.monotonic(), clock.wall()), outcome)
    shown = re.findall(r"^containerd_reconciler_mutations_total\{.*\} (.*)$",
                       metrics.render().decode(), re.MULTILINE)  # fmt: skip
    assert called == recorded == sum(float(value) for value in shown)
    assert called > 75


# ------------------------------------------------------------------------------ who may act


@pytest.mark.fault("I20", "second instance")
@private_mounts
def test_one_instance_acts_on_a_tree_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    """I20."""
    with ground(tmp_path) as on:
        dead, log = on.dead("dead"), on.site.base / "log"
        with log.open("wb") as stderr:
            first = subprocess.Popen(
                on.words("run", "--enforce", "-v"),
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            locks = Path("/run/containerd-reconciler")
            wait_for(lambda: any(locks.glob("tree-*")))
            second = on.run("clean", *NOW)
            assert second.code == 77, second
            assert f"pid {first.pid} already acts" in second.err
            assert dead.path.exists()
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        assert on.run("clean", *NOW).code == 0
        assert dead.left() == []
        assert on.harm() == []


@pytest.mark.fault("I24", "alien shim")
@pytest.mark.parametrize(
    "shim", ["containerd-shim-kata-v2", "containerd-shim-runsc-v1", "containerd-shim-spin-v2"]
)
@private_mounts
def test_the_bundle_of_another_runtime_is_only_looked_at(tmp_path: Path, shim: str) -> None:
    """I24: no init.pid, no options.json, no runtime; its shim says nothing."""
    with ground(tmp_path) as on:
        alien, known = on.dead("alien", "aliens"), on.dead("known")
        (alien.path / "shim-binary-path").write_text(f"/opt/bin/{shim}")
        for name in ("init.pid", "options.json", "runtime", "log.json"):
            (alien.path / name).unlink()
        (alien.path / "shim.pid").write_text("1")
        before = (alien.left(), alien.mounts())
        assert on.run("scan", "-o", "json").verdicts()[alien.path.name] == "unknown"
        assert on.run("clean", *NOW).code == 0
        assert (alien.left(), alien.mounts()) == before
        assert known.left() == []
        assert on.harm() == []


# ------------------------------------------------------------------------------ names are bytes

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: (
        not {b"/", b"\0"} & {name[n : n + 1] for n in range(len(name))}
        and name not in {b".", b".."}
    )
)
ODD = [b"new\nline", b"\xff", b"-rf", b"x" * 255, b"...", b" ", b"*", b"\\", b"a b", b"\x1b[31m"]


@pytest.mark.fault("I23", "odd names")
@private_mounts
def test_names_are_bytes(tmp_path: Path) -> None:
    """I23: any name in a bundle goes with it; any name in the place of an id is only reported."""
    with ground(tmp_path) as on:
        inline = InlineWorker(on.site)
        number = 0

        @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
        @given(st.lists(NAMES | st.sampled_from(ODD), min_size=1, max_size=8, unique=True))
        def check(names: list[bytes]) -> None:
            nonlocal number
            number += 1
            bundle = on.site.bundle(f"named-{number}", mounted=False, cgroups=False)
            _fill(bundle, names)
            outcome = inline.clean(bundle)
            assert outcome.result is Result.CLEANED, (names, outcome)
            assert bundle.left() == []
            _stand_in_for_ids(on, names)

        check()
        assert on.run("scan").code == on.run("clean", *NOW).code == 0
        assert on.harm() == []


def _fill(bundle: Bundle, names: list[bytes]) -> None:
    top = os.fsencode(bundle.path)
    for number, name in enumerate(names):
        path = top + b"/" + name
        if os.path.lexists(path):
            continue
        if number % 3 == 0:
            os.mkdir(path)
            os.mknod(path + b"/" + name)
        elif number % 3 == 1:
            os.mknod(path)
        else:
            os.symlink(b"/", path)


def _stand_in_for_ids(on: Ground, names: list[bytes]) -> None:
    """Make directories of these names among the bundles; nobody but us may remove them."""
    namespace = os.fsencode(on.site.tree / "default")
    visible = [name for name in names if not name.startswith(b".")]
    strange = [name for name in visible if not is_identifier(escape(name))]
    for name in strange:
        os.mkdir(namespace + b"/" + name)
    inspector = TreeInspector(on.site.layout)
    try:
        listed = inspector.list()
        assert {seen.key.id for seen in listed.bundles} >= set(map(escape, strange))
        for seen in listed.bundles:
            inspector.look(seen.key)
    finally:
        inspector.close()
    for name in strange:
        os.rmdir(namespace + b"/" + name)  # ENOENT if anybody else did
