"""The table of faults beside this file: which fault, what is expected, what the tests came to.

    python -m tests.safety.table --check              is it what the tests say?
    python -m tests.safety.table --write REPORT...    write it from reports of tests that ran

A report is what `pytest --junitxml` wrote (`make faults` makes one and writes the table), or a
report of `tests.safety.histories` (name it *.json). No result is typed by hand.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from reconciler import __version__
from tests.safety.catalogue import (
    CLIENTS,
    CONTROLS,
    DAEMON,
    HOSTILE,
    INVARIANTS,
    LIVENESS,
    MOUNTS,
    OWNERSHIP,
    POLICY,
    ROWS,
    SICK,
    WATCHING,
)

REPOSITORY: Final = Path(__file__).resolve().parents[2]
README: Final = Path(__file__).with_name("README.md")
BEGIN: Final = "<!-- faults: written by `make faults` -->"
END: Final = "<!-- end of faults -->"
FAULT: Final = "fault"
Rows = Mapping[str, tuple[str, str] | str]
"""Faults, each with what is expected; an invariant has its words besides its number."""
FIGURES: Final = {
    "faults injected into system calls": "faults",
    "kills survived": "kills",
    "racing mounts": "mounts",
    "racing symlink swaps and exchanges": "swaps",
    "histories of a node in virtual time": "histories",
    "steps of them": "steps",
    "losses": "losses",
}
"""What is shown, and the property a test records it by."""
FIRED: Final = "negative controls that fired"
HEADINGS: Final[dict[str, Rows]] = {
    "Invariant": INVARIANTS,
    "Mounts and removal": MOUNTS,
    "Liveness": LIVENESS,
    "Watching": WATCHING,
    "Hostile neighbours": HOSTILE,
    "Sick nodes": SICK,
    "Daemon": DAEMON,
    "Ownership": OWNERSHIP,
    "Hostile clients": CLIENTS,
    "Policy": POLICY,
    "Negative controls": CONTROLS,
}


@dataclass
class Told:
    """What reports told.

    Attributes:
        passed, failed: Cases by fault.
        skipped: Reasons by fault.
        figures: Sums by property.
        fired: Cases of negative controls that passed.
    """

    passed: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    figures: Counter[str] = field(default_factory=Counter)
    fired: int = 0

    def read(self, reports: Sequence[Path]) -> None:
        """Take reports in; of a case that is in several of them the last one counts."""
        cases: dict[tuple[str | None, str | None], ET.Element] = {}
        for report in reports:
            if report.suffix == ".json":
                self._read_histories(json.loads(report.read_text()))
                continue
            for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 -- our own
                cases[case.get("classname"), case.get("name")] = case
        for case in cases.values():
            self._read_case(case)

    def result(self, name: str) -> str:
        """Say what came of a fault, in words for the table."""
        said = [f"{self.passed[name]} passed"] if self.passed[name] else []
        said += [f"not shown: {why}" for why in sorted(self.skipped.get(name, ()))]
        return "; ".join(said) or "not shown: no test ran"

    def _read_case(self, case: ET.Element) -> None:
        properties = [(one.get("name", ""), one.get("value", "")) for one in case.iter("property")]
        faults = [value for name, value in properties if name == FAULT]
        if case.find("failure") is not None or case.find("error") is not None:
            self.failed.append(f"{case.get('classname')}::{case.get('name')}")
            return
        skipped = case.find("skipped")
        if skipped is not None:
            why = skipped.get("message", "").replace("|", "/")
            for name in faults:
                self.skipped[name][why] += 1
            return
        self.passed.update(faults)
        self.fired += any(name in CONTROLS for name in faults)
        known = set(FIGURES.values())
        for name, value in properties:
            if name in known:
                self.figures[name] += int(value)

    def _read_histories(self, report: dict[str, int | list[str]]) -> None:
        lost = report["lost"]
        assert isinstance(lost, list)
        self.failed += lost
        for name in ("histories", "steps"):
            value = report[name]
            assert isinstance(value, int)
            self.figures[name] += value
        self.figures["losses"] += len(lost)


def block(told: Told) -> str:
    """Write everything between the two comments."""
    kernel = platform.release().split("-")[0]
    lines = [f"Version {__version__}, Linux {kernel}:", "", "| figure | measured |", "|---|---|"]
    lines += [f"| {name} | {told.figures[key]:,} |" for name, key in FIGURES.items()]
    lines += [f"| {FIRED} | {told.fired} |", ""]
    lines += ["| fault | expected | result |", "|---|---|---|"]
    for heading, rows in HEADINGS.items():
        lines.append(f"| **{heading}** | | |")
        lines += [
            f"| {fault} | {then} | {told.result(name)} |" for name, fault, then in _rows(rows)
        ]
    return "\n".join([BEGIN, *lines, END])


def _rows(rows: Rows) -> list[tuple[str, str, str]]:
    """Give name, fault and what is expected, as the table shows them."""
    shown = []
    for name, said in rows.items():
        fault, then = (f"{name}: {said[0]}", said[1]) if isinstance(said, tuple) else (name, said)
        shown.append((name, fault, then))
    return shown


def rows_of(text: str) -> dict[str, tuple[str, str]]:
    """Read a table back: expected and result of each fault."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1] and cells[0] not in {"fault", "---"}:
            found[cells[0]] = (cells[1], cells[2])
    return found


def parts(readme: str) -> tuple[str, str, str]:
    """Split the page: before, the block, after."""
    assert readme.count(BEGIN) == readme.count(END) == 1, "the page has no place for the table"
    before, rest = readme.split(BEGIN)
    inner, after = rest.split(END)
    return before, f"{BEGIN}{inner}{END}", after


def findings(readme: str, marked: "Counter[str]") -> list[str]:
    """Say where table, catalogue and marks differ; nothing if all is well.

    Args:
        readme: The page's text.
        marked: How many cases are marked with each fault.
    """
    found = [f"no test shows: {name}" for name in ROWS if not marked[name]]
    found += [f"not in the catalogue: {name}" for name in marked if name not in ROWS]
    text = parts(readme)[1]
    if f"Version {__version__}," not in text:
        found.append(f"the table is not of version {__version__}")
    wanted = [row for rows in HEADINGS.values() for row in _rows(rows)]
    shown = rows_of(text)
    if list(shown) != [fault for _, fault, _ in wanted]:
        found.append("the table does not have the rows of the catalogue")
    for name, fault, then in wanted:
        expected, result = shown.get(fault, ("", ""))
        if expected != then:
            found.append(f"another end is expected of {fault!r}")
        passed = re.match(r"(\d+) passed", result)
        if not passed and not result.startswith("not shown: "):
            found.append(f"no result of {fault!r}")
        elif passed and int(passed[1]) > marked[name]:
            found.append(f"more has passed than there is of {fault!r}")
    return found


def collected() -> "Counter[str]":
    """Count the marks of every test there is, slow ones included, without running any."""
    plugins = ("-p", "no:terminal", "-p", "tests.safety.collecting")
    options = ("-o", "addopts=--import-mode=importlib")  # none that is the terminal's
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-m", FAULT, *options, *plugins],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Counter(json.loads(done.stdout))


def main() -> int:
    """Check or write."""
    parser = argparse.ArgumentParser(prog="python -m tests.safety.table", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--check", action="store_true", help="say where the page and the tests differ"
    )
    what.add_argument("--write", nargs="+", type=Path, metavar="REPORT", help="write the table")
    asked = parser.parse_args()
    if asked.check:
        found = findings(README.read_text(), collected())
        sys.stdout.write("".join(f"{line}\n" for line in found))
        return 1 if found else 0
    told = Told()
    told.read(asked.write)
    if told.failed:
        sys.stderr.write("not written, for this failed:\n" + "\n".join(told.failed) + "\n")
        return 1
    before, _, after = parts(README.read_text())
    README.write_text(before + block(told) + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
