"""The table of faults says what the tests say, and every fault has a test."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.safety.catalogue import ROWS
from tests.safety.table import BEGIN, END, README, REPOSITORY, Told, block, findings

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_one"><properties>
  <property name="fault" value="I1"/><property name="losses" value="0"/>
  <property name="mounts" value="20000"/></properties></testcase>
<testcase classname="tests.a" name="test_two"><properties>
  <property name="fault" value="control: shutil.rmtree"/></properties></testcase>
<testcase classname="tests.a" name="test_three"><properties>
  <property name="fault" value="immutable file"/></properties>
  <skipped type="pytest.skip" message="no immutable files here"/></testcase>
</testsuite></testsuites>"""


def told(tmp_path: Path, report: str = REPORT) -> Told:
    (tmp_path / "report.xml").write_text(report)
    made = Told()
    made.read([tmp_path / "report.xml"])
    return made


def test_the_table_is_that_of_the_tests() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.safety.table", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_result_is_what_ran(tmp_path: Path) -> None:
    made = told(tmp_path)
    assert made.result("I1") == "1 passed"
    assert made.result("immutable file") == "not shown: no immutable files here"
    assert made.result("I2") == "not shown: no test ran"
    assert (made.figures["mounts"], made.fired, made.failed) == (20_000, 1, [])


def test_a_failure_is_no_result(tmp_path: Path) -> None:
    broken = REPORT.replace("<skipped ", "<failure ")
    assert told(tmp_path, broken).failed == ["tests.a::test_three"]


def test_a_case_that_ran_again_counts_once(tmp_path: Path) -> None:
    for name, text in (("first", REPORT.replace("<skipped ", "<failure ")), ("again", REPORT)):
        (tmp_path / f"{name}.xml").write_text(text)
    made = Told()
    made.read([tmp_path / "first.xml", tmp_path / "again.xml"])
    assert (made.failed, made.figures["mounts"], made.result("I1")) == ([], 20_000, "1 passed")


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda text: text, None),
        (lambda text: text.replace("| 1 passed |", "| 2 passed |", 1), "more has passed"),
        (lambda text: text.replace("none unlinked", "some unlinked"), "another end"),
        (lambda text: text.replace("| immutable file ", "| file "), "rows of the catalogue"),
        (lambda text: text.replace("Version ", "Version 1"), "not of version"),
        (lambda text: text.replace("| not shown: no immutable", "| no"), "no result"),
    ],
)  # fmt: skip
def test_a_table_that_says_something_else_is_noticed(
    tmp_path: Path, change: Callable[[str], str], finding: str | None
) -> None:
    marked = Counter(dict.fromkeys(ROWS, 1))
    found = findings(change(block(told(tmp_path))), marked)
    assert found == [] if finding is None else any(finding in line for line in found)


def test_a_fault_without_a_test_and_a_mark_without_a_fault_are_noticed(tmp_path: Path) -> None:
    marked = Counter({name: 1 for name in ROWS if name != "overflow"} | {"no such fault": 1})
    found = findings(block(told(tmp_path)), marked)
    assert found == ["no test shows: overflow", "not in the catalogue: no such fault"]


def test_the_page_has_one_place_for_it() -> None:
    text = README.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
