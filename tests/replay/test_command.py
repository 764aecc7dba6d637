"""`replay` on the command line: its promised JSON, tables, exit codes, and constant memory."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from reconciler.cli.app import app, run
from reconciler.testing.journals import JournalBuilder
from tests.replay.stories import ENFORCE, OBSERVE


class Run(Protocol):
    """Runs `replay` with these words; gives the code, stdout and stderr."""

    def __call__(self, *args: str | Path) -> tuple[int, str, str]: ...


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def call(*args: str | Path) -> tuple[int, str, str]:
        code = run(app, ["replay", *map(str, args)], "containerd-reconciler")
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two crash, one lives; what is dead for a minute is cleaned."""
    path = tmp_path / "run.jsonl"
    with JournalBuilder(path, ENFORCE) as node:
        for name in ("web", "db", "live"):
            node.start(f"default/{name}")
        node.crash("default/web")
        node.wait("10m")
        node.crash("default/db")
        node.wait("20m")
    return path


def test_alike_is_zero(command: Run, journal: Path) -> None:
    code, out, err = command(journal)
    assert code == 0
    assert re.fullmatch(
        r"\d+ observations over 30m.*: \d+ steps compared, all decided alike\n", out
    )
    assert err == ""


def test_json_has_the_promised_shape(command: Run, journal: Path) -> None:
    code, out, _ = command(journal, "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert list(told)[:4] == ["kind", "apiVersion", "node", "time"]
    assert list(told)[-4:] == ["observations", "recorded", "replayed", "differences"]
    assert told["kind"] == "ReplayDiff"
    assert told["journal"] == str(journal)
    assert told["observations"] > 20
    assert told["recorded"] == told["replayed"]
    assert told["differences"] == []
    cleaned = [d for d in told["replayed"] if d["action"] == "clean"]
    assert [list(d) for d in cleaned] == [["at_seconds", "namespace", "id", "action", "reason"]] * 2
    assert [(d["namespace"], d["id"]) for d in cleaned] == [("default", "web"), ("default", "db")]
    assert cleaned[0]["at_seconds"] == pytest.approx(60, abs=1)


def test_a_difference_is_one_and_shows_both_sides_and_the_evidence(
    command: Run, journal: Path
) -> None:
    journal.write_bytes(journal.read_bytes().replace(b'"grace":60', b'"grace":90', 1))
    code, out, err = command(journal)
    assert code == 1
    assert out.startswith("first difference at 0.0s: default/web\n")
    assert re.search(r"recorded .* \(rule 8\); due at 1m00\.\ds\n", out)
    assert re.search(r"replayed .* \(rule 8\); due at 1m30\.\ds\n", out)
    assert "shim         dead" in out
    assert "decided otherwise" in err
    code, out, _ = command(journal, "-o", "json")
    told = json.loads(out)
    assert code == 1
    first = told["differences"][0]
    assert first["recorded"]["action"] == first["replayed"]["action"] == "judge"
    assert first["evidence"]["shim"] == "dead"


def test_another_policy_shows_what_it_would_clean_and_what_changes(
    command: Run, journal: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(
        'mode = "enforce"\n[cleanup]\ngrace = "5m"\n'
        '[[rule]]\nname = "db stays"\nmatch = { id = "db" }\nprotect = true\n'
    )
    code, out, err = command(journal, "--config", other)
    assert code == 0
    assert out.splitlines()[0].split() == ["BUNDLE", "RECORDED", "NOW", "CHANGE"]
    rows = [line.split() for line in out.splitlines()[1:]]
    assert rows == [
        ["default/web", "1m00.0s", "5m00.0s", "4m00.0s", "later"],
        ["default/db", "11m00.0s", "-", "not", "now"],
    ]
    assert "1 bundle cleaned by this configuration, 2 when recorded" in err
    code, out, _ = command(journal, "--config", other, "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert [d["id"] for d in told["recorded"] if d["action"] == "clean"] == ["web", "db"]
    assert [d["id"] for d in told["replayed"] if d["action"] == "clean"] == ["web"]
    assert [(d["id"], "replayed" not in d) for d in told["differences"]] == [
        ("web", False),
        ("db", True),
    ]


def test_an_observing_run_tells_what_enforcing_would_have_removed(
    command: Run, tmp_path: Path
) -> None:
    path, other = tmp_path / "run.jsonl", tmp_path / "other.toml"
    with JournalBuilder(path, OBSERVE) as node:
        node.start("default/web")
        node.start("default/held")
        node.mount("default/held", "extra")
        node.crash("default/web", "default/held")
        node.wait("30m")
    other.write_text('[cleanup]\ngrace = "10m"\n')
    code, out, err = command(path, "--config", other, "-o", "name")
    assert code == 0
    assert "shown as if it said enforce" in err
    assert sorted(out.splitlines()) == ["default/held", "default/web"]
    _, out, _ = command(path, "--config", other, "-o", "json")
    replayed = json.loads(out)["replayed"]
    gone = [d["id"] for d in replayed if d["action"] == "vanish"]
    assert gone == ["web"], "what somebody mounted into is not removed in a dream either"


def test_beyond_the_end_of_a_snapshot_the_world_stands_still(command: Run, tmp_path: Path) -> None:
    path, other = tmp_path / "snapshot.jsonl", tmp_path / "other.toml"
    with JournalBuilder(path, OBSERVE) as node:
        node.start("default/web")
        node.crash("default/web")
    other.write_text('mode = "enforce"\n[cleanup]\ngrace = "10m"\n')
    _, out, _ = command(path, "--config", other, "-o", "name")
    assert out == ""
    _, out, _ = command(path, "--config", other, "--until", "1h")
    assert out.splitlines()[1].split() == ["default/web", "-", "10m00.0s", "only", "now"]


def test_until_ends_early_and_only_tells_about_one(command: Run, journal: Path) -> None:
    _, out, _ = command(journal, "-o", "json", "--until", "5m")
    assert [d["id"] for d in json.loads(out)["replayed"] if d["action"] == "clean"] == ["web"]
    _, out, _ = command(journal, "-o", "json", "--only", "default/db")
    assert {d["id"] for d in json.loads(out)["replayed"]} == {"db"}


def test_speed_plays_line_by_line(command: Run, journal: Path) -> None:
    code, out, _ = command(journal, "--speed", "100000")
    assert code == 0
    assert "default/web  clean  leftover and due, attempt 1\n" in out


# ---------------------------------------------------------------------------- expectations


@pytest.mark.parametrize(
    ("expected", "complaint"),
    [
        ('bundle = "default/live"\ncleaned = "never"', None),
        ('bundle = "default/web"\ncleaned = "50s..70s"', None),
        ('bundle = "default/*"\nverdict = "running"', "default/web: expected verdict running"),
        ('bundle = "default/live"\nverdict = "running"', None),
        ('bundle = "default/web"\ncleaned = "never"', "expected never to be cleaned, was after 1m"),
        (
            'bundle = "default/db"\ncleaned = "..5m"',
            "expected to be cleaned within ..5m, was after 1",
        ),
        ('bundle = "default/live"\ncleaned = "1m.."', "within 1m.., was not"),
        ('bundle = "other/*"\ncleaned = "never"', "the journal shows no such bundle"),
        ('bundle = "other/*"\nabsent = true', None),
        ('bundle = "default/web"\nphase = "cleaned"', None),
    ],
)
def test_expectations_are_met_or_told(
    command: Run, journal: Path, tmp_path: Path, expected: str, complaint: str | None
) -> None:
    file = tmp_path / "expect.toml"
    file.write_text(f"[[expect]]\n{expected}\n")
    code, _, err = command(journal, "--expect", file)
    if complaint is None:
        assert (code, err) == (0, "")
    else:
        assert code == 1
        assert complaint in err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expect"),
        ("expect = 3", "expect"),
        ('[[expect]]\nbundle = "web"', "NAMESPACE/ID"),
        ('[[expect]]\nbundle = "a/b"', "nothing is expected"),
        ('[[expect]]\nbundle = "a/b"\ncleaned = "soon"', "10m..12m"),
        ('[[expect]]\nbundle = "a/b"\ncleaned = "5m..1m"', "ends before it begins"),
        ('[[expect]]\nbundle = "a/b"\nverdict = "dead"', "no such verdict"),
        ('[[expect]]\nbundle = "a/b"\nclean = "never"', "clean"),
        ("\x00", "expect"),
    ],
)
def test_a_bad_expectation_is_a_usage_error_with_its_reason(
    command: Run, journal: Path, tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "expect.toml"
    file.write_text(text)
    code, _, err = command(journal, "--expect", file)
    assert code == 2
    assert complaint in err
    assert "Traceback" not in err


# ------------------------------------------------------------------------------- bad journals


def test_a_damaged_line_and_a_torn_end_are_warnings_and_another_schema_is_65(
    command: Run, journal: Path
) -> None:
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:4], b"oops\n", *lines[5:]]))
    code, _, err = command(journal)
    assert code == 0
    assert f"{journal}, line 5: damaged and left out" in err
    assert "1 record" in err
    journal.write_bytes(whole[:-10])
    code, _, err = command(journal)
    assert code == 0
    assert f"line {len(lines)}: the last line is torn and left out" in err
    for schema, why in ((9, "newer"), (1, "older")):
        journal.write_bytes(whole.replace(b'"schema":2', b'"schema":%d' % schema, 1))
        code, _, err = command(journal)
        assert code == 65
        assert f"line 1: schema {schema} is {why}" in err
        assert "read it with the version that wrote it" in err


_MEASURE = """
import resource, sys
from reconciler.cli.app import app
from reconciler.cli.app import run
code = run(app, ["replay", sys.argv[1], "-o", "json"], "containerd-reconciler")
sys.stderr.write(" " + str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
sys.exit(code)
"""


@pytest.mark.fault("journal of 1 GB")
def test_memory_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    """The same few bundles come and go: ten times the journal, the same memory."""
    peaks = []
    for times in (1, 10):
        path = tmp_path / f"{times}.jsonl"
        with JournalBuilder(path, ENFORCE) as node:
            for turn in range(150 * times):
                node.start(f"default/job-{turn}")
                node.stop(f"default/job-{turn}")
                node.delete(f"default/job-{turn}")
                node.wait("1s")
                node.simulation.seen.clear()
                node.simulation.said.clear()
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(path)], capture_output=True, check=True
        )
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] < peaks[0] * 1.1, f"{peaks} kB"


@pytest.mark.fault("journal of 1 GB")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_gigabyte_is_replayed_in_the_memory_of_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    with JournalBuilder(path, ENFORCE) as node:
        for turn in range(300):
            node.start(f"default/job-{turn}")
            node.crash(f"default/job-{turn}")
            node.wait("2m")
    header, body = path.read_bytes().split(b"\n", 1)
    peaks = []
    for size in (1, 1000):
        large = tmp_path / "large.jsonl"
        with large.open("wb") as file:
            file.write(header + b"\n")
            while file.tell() < size * 10**6:
                file.write(body + b'{"lost":1,"reason":""}\n')
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(large)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        peaks.append(int(done.stderr.splitlines()[-1].split()[-1]))
    assert peaks[1] < peaks[0] * 1.2, f"{peaks} kB"
