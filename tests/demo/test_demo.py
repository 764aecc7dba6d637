"""The demo keeps its promises, as root and as anybody else, and leaves nothing behind."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.demo.fixtures import fixtures
from reconciler.demo.node import _PREFIX

PROGRAM = [sys.executable, "-m", "reconciler", "demo"]

# What an ordinary user lacks, one by one: privileges, and root's name.
PEOPLE = {
    "without capabilities": ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
    "as nobody": ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of its own in which the demo makes its tree: what is left can be seen."""
    place = Path("/dev/shm") / f"t{os.getpid()}"  # a socket's path must be short
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    try:
        yield place
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


def environment(place: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(place)}


def children(text: str) -> set[int]:
    """Name the processes whose command line holds a text."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line:
                found.add(int(entry.name))
    return found


def run(
    place: Path, *args: str, program: Sequence[str] = PROGRAM
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, *args],
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_every_promise_is_kept_and_nothing_is_left(place: Path) -> None:
    done = run(place, "--seconds", "5s")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + len(fixtures())
    assert all(line.endswith("yes") for line in lines[1:])
    assert "every promise was kept; the tree and its processes are gone" in done.stderr
    assert len(done.stderr.splitlines()) <= 25, "what happened, and not how"
    assert list(place.iterdir()) == []
    assert children(str(place)) == set()


def test_two_at_a_time_keep_all_their_promises(place: Path) -> None:
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: run(place, "--seconds", "5s"), range(2)))
    for done in both:
        assert done.returncode == 0, done.stdout + done.stderr
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("who", PEOPLE)
def test_an_ordinary_user_may_run_it(place: Path, who: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("is run by an ordinary user already")
    become = PEOPLE[who]
    # Twice, as the program starts itself again for its workers; the first time setpriv may help.
    again = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'import reconciler'])"
    if (
        subprocess.run(
            [*become, sys.executable, "-c", again], capture_output=True, check=False
        ).returncode
        != 0
    ):
        pytest.skip(f"this Python cannot be run {who}")
    done = run(place, "--seconds", "5s", program=[*become, *PROGRAM])
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(place.iterdir()) == []


def look_as_told(said: list[str], place: Path) -> None:
    """Type what the demo says."""
    (line,) = (line for line in said if "from another terminal: " in line)
    name, *words = shlex.split(line.partition("terminal: ")[2])
    assert name == "containerd-reconciler"
    looked = run(place, *words, "-o", "json", program=PROGRAM[:-1])
    assert looked.returncode == 0, looked.stderr
    verdicts = {one["id"]: one["verdict"] for one in json.loads(looked.stdout)["bundles"]}
    assert verdicts["web"] == "running", looked.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_leaves_nothing(place: Path, number: int, code: int) -> None:
    child = subprocess.Popen(
        [*PROGRAM, "--hold", "-v"],
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    try:
        told = []
        for line in child.stderr:
            told.append(line)
            if '"id":"has-data"' in line:
                break
        assert len(list(place.glob(f"{_PREFIX}*"))) == 1
        look_as_told(told, place)
        child.send_signal(number)
        shown, rest = child.communicate(timeout=20)
        assert child.returncode == code
        assert len(shown.splitlines()) == 1 + len(fixtures())
        assert "no: " not in shown
        assert "the tree and its processes are gone" in rest
    finally:
        child.kill()
        child.communicate()
    assert list(place.iterdir()) == []
    assert children(str(place)) == set()


def test_a_demo_too_short_to_show_anything_is_refused(place: Path) -> None:
    done = run(place, "--seconds", "1s")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert list(place.iterdir()) == []
