"""The commands as a process, on a real tree of its own: what they print, do, and leave alone."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.demo.fixtures import Promise
from reconciler.demo.node import DemoNode
from reconciler.demo.promises import compare, picture, pictures
from tests.cli.program import (
    SECONDS,
    acts,
    environment,
    program,
    running,
    tree,
    wait_for,
    wait_until_it_catches,
)


def named(demo: DemoNode, rest: str = "") -> str:
    """Write a name of this demo: those that run at a time differ in the namespace."""
    return demo.fixtures[0].key.namespace + rest


def test_scan_says_of_every_bundle_what_it_is(demo: DemoNode) -> None:
    done = program(demo, "scan", "-o", "json", *tree(demo))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = {(one["namespace"], one["id"]): one for one in told["bundles"]}
    for fixture in demo.fixtures:
        one = found.pop((fixture.key.namespace, fixture.key.id))
        assert one["verdict"] == fixture.verdict.value, one
        assert one["containerd"] == "containerd skipped"
        if fixture.missing not in ((), ("*",)):
            names = set(fixture.missing) - {"state.json"}
            assert names <= set(one["missing"])
    assert found == {}
    assert told["summary"]["leftovers"] == sum(
        fixture.verdict.value == "leftover" for fixture in demo.fixtures
    )
    assert "bundles" in done.stderr


def test_scan_changes_nothing(demo: DemoNode) -> None:
    before = picture(Path(os.fsdecode(demo.top)))
    for form in ("table", "wide", "json", "name"):
        assert program(demo, "scan", "-o", form, *tree(demo)).returncode == 0
    assert picture(Path(os.fsdecode(demo.top))) == before


def test_data_goes_to_stdout_and_messages_to_stderr(demo: DemoNode) -> None:
    done = program(demo, "scan", *tree(demo))
    assert done.stdout.splitlines()[0].split() == [
        *(
            "NAMESPACE",
            "ID",
            "POD",
            "CONTAINER",
            "VERDICT",
            "PHASE",
            "DUE",
            "AGE",
            "SIZE",
            "REASON",
        ),
    ]
    assert len(done.stdout.splitlines()) == 1 + len(demo.fixtures)
    assert "\x1b" not in done.stdout + done.stderr
    quiet = program(demo, "scan", "-q", *tree(demo))
    assert quiet.stderr == ""


def test_names_are_what_explain_takes(demo: DemoNode) -> None:
    names = program(demo, "scan", "-o", "name", *tree(demo)).stdout.splitlines()
    assert len(names) == len(demo.fixtures)
    done = program(demo, "explain", names[0], *tree(demo))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{names[0]}: ")


def test_scan_exits_10_where_there_are_leftovers_if_asked(demo: DemoNode) -> None:
    assert program(demo, "scan", "--exit-code", *tree(demo)).returncode == 10
    only = ["-n", named(demo, "-pods")]
    assert program(demo, "scan", "--exit-code", *only, *tree(demo)).returncode == 0


def test_scan_sees_only_the_namespace_it_is_asked_for(demo: DemoNode) -> None:
    done = program(demo, "-n", named(demo, "-pods"), "scan", "-o", "name", *tree(demo))
    assert {name.split("/")[0] for name in done.stdout.splitlines()} == {named(demo, "-pods")}


def test_explain_shows_the_evidence_and_what_happens_next(demo: DemoNode) -> None:
    done = program(demo, "explain", named(demo, "-crashed/no-run"), "-o", "json", *tree(demo))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["bundle"]["id"] == "no-runtime"
    assert told["bundle"]["missing"] == ["runtime"]
    assert "removed" in told["next"]
    pieces = {piece["evidence"]: piece["value"] for piece in told["evidence"]}
    assert pieces["shim"] == "dead"
    assert pieces["init"] == "dead"
    done = program(demo, "explain", named(demo, "/web"), *tree(demo))
    assert f"{named(demo, '/web')}: running, by rule 3" in done.stdout
    assert "nothing: only leftovers are ever removed" in done.stdout


def test_explain_of_nothing_is_an_error_with_a_hint(demo: DemoNode) -> None:
    done = program(demo, "explain", named(demo, "/wbe"), *tree(demo))
    assert done.returncode == 1
    assert done.stderr == (
        f"containerd-reconciler: there is no bundle {named(demo, '/wbe')}; "
        f"did you mean {named(demo, '/web')}?\n"
    )


def test_a_dry_run_changes_nothing_and_says_what_would_go(demo: DemoNode) -> None:
    before = picture(Path(os.fsdecode(demo.top)))
    done = program(demo, "clean", "--dry-run", "-o", "json", *tree(demo))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {one["id"] for one in told["results"]} == {
        fixture.key.id for fixture in demo.fixtures if fixture.verdict.value == "leftover"
    }
    assert {one["result"] for one in told["results"]} == {"planned"}
    assert picture(Path(os.fsdecode(demo.top))) == before


@acts
def test_clean_removes_the_dead_and_nothing_else(demo: DemoNode) -> None:
    before = pictures(demo)
    verdicts = {fixture.key: {fixture.verdict} for fixture in demo.fixtures}
    done = program(demo, "clean", "--yes", "--grace", "0s", "-o", "json", *tree(demo))
    told = json.loads(done.stdout)
    results = {one["id"]: one for one in told["results"]}
    dead = [fixture for fixture in demo.fixtures if fixture.verdict.value == "leftover"]
    for fixture in dead:
        expected = "cleaned" if fixture.promise is Promise.CLEANED else "blocked"
        assert results[fixture.key.id]["result"] == expected, results
    assert len(results) == len(dead)
    assert done.returncode == 75
    assert "has-data blocked" in done.stderr
    for kept in compare(demo, before, verdicts):
        # Nobody was killed here. Where options.json is gone nothing names our own runc root.
        if not kept.fixture.killed and kept.fixture.missing != ("*",):
            assert not kept.broken, kept
    steps = results["complete"]["steps"]
    assert steps[-1]["step"] == "bundle"
    assert all(set(step) >= {"step", "result", "seconds"} for step in steps)

    has_data = Path(os.fsdecode(demo.layout.tasks), named(demo, "-crashed/has-data"))
    (has_data / "rootfs/data").unlink()
    assert program(demo, "clean", "--yes", "--grace", "0s", *tree(demo)).returncode == 0
    again = program(demo, "clean", "--yes", "--grace", "0s", "-o", "json", *tree(demo))
    assert again.returncode == 0
    assert json.loads(again.stdout)["results"] == []


@acts
def test_clean_leaves_what_is_not_old_enough(demo: DemoNode) -> None:
    done = program(
        demo, "clean", "--yes", "--grace", "0s", "--threshold=24h", "-o", "json", *tree(demo)
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["results"] == []
    assert told["summary"]["waiting"] == sum(
        fixture.verdict.value == "leftover" for fixture in demo.fixtures
    )


@acts
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_clean_that_is_interrupted_in_its_grace_says_so(
    demo: DemoNode, number: int, code: int
) -> None:
    before = pictures(demo)
    with running(demo, "clean", "--yes", "--grace", "1h", *tree(demo)) as child:
        for one in (signal.SIGHUP, signal.SIGTERM):  # one after the other, in no promised order
            wait_until_it_catches(child, one)
        child.send_signal(number)
        assert child.stderr is not None
        assert child.stderr.read() == "interrupted; nothing was touched\n"
        assert child.wait(timeout=10) == code
    assert pictures(demo) == before


def test_containerd_cleanup_is_clean(demo: DemoNode) -> None:
    code = "from reconciler.cli import cleanup_main; cleanup_main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--threshold=24h", "--dry-run", *tree(demo)],
        env=environment(demo),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was touched" in done.stderr


@acts
def test_a_second_instance_is_refused(demo: DemoNode) -> None:
    with running(demo, "run", "-v", "--enforce", "--grace", "1h", *tree(demo)) as first:
        wait_for(first, '"event":"bundle.judged"')
        done = program(demo, "clean", "--yes", "--grace", "0s", *tree(demo))
        assert done.returncode == 77
        assert str(first.pid) in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_run_in_order(demo: DemoNode, number: int, code: int) -> None:
    with running(demo, "run", "-v", *tree(demo)) as child:
        wait_for(child, '"event":"bundle.judged"')
        child.send_signal(number)
        assert child.stderr is not None
        rest = child.stderr.read()
        assert child.wait(timeout=10) == code
        assert "Traceback" not in rest


@acts
def test_a_run_enforcing_notices_a_death_and_cleans(demo: DemoNode) -> None:
    with running(demo, "run", "-v", "--enforce", "--grace", "1s", *tree(demo)) as child:
        wait_for(child, '"id":"web","verdict":"running"')
        demo.kill_victims()
        wait_for(child, f'"event":"bundle.cleaned","namespace":"{named(demo)}","id":"victim"')
    assert not os.path.lexists(demo.layout.bundle(next(r.key for r in demo.fixtures if r.killed)))


def test_run_once_observing_looks_and_ends(demo: DemoNode, tmp_path: Path) -> None:
    before = picture(Path(os.fsdecode(demo.top)))
    file = tmp_path / "config.toml"
    file.touch()
    done = program(demo, "run", "--once", "-v", "--config", str(file), *tree(demo))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    records = [json.loads(line) for line in done.stderr.splitlines()]
    read = [one["files"] for one in records if one["event"] == "config.used"]
    assert read == [[str(file)]], "what was read is told where nobody but the log can tell it"
    judged = {one["id"] for one in records if one["event"] == "bundle.judged"}
    assert judged == {fixture.key.id for fixture in demo.fixtures}
    assert picture(Path(os.fsdecode(demo.top))) == before
