"""``python -m tests.bench``: prints a row as soon as it is measured, then the table.

The same figures are left as JSON, by default in ``build/bench.json``.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

from tests.bench.figure import REPOSITORY, Plan, Row, table

FIGURES = ("clean", "scan", "watch", "verdict", "memory", "start", "daemon", "replay", "debris")
"""Each is measured by the module ``bench_<name>``."""

LONG: Final = frozenset({"memory"})
"""Takes minutes, and the daemon is measured in the same way: with ``--large``, or by name."""


def main() -> int:
    """Measure what was asked for."""
    options = _options()
    plan = Plan(options.rounds, options.pile, options.large)
    before = os.getloadavg()[0]
    rows: list[tuple[str, Row]] = []
    took: dict[str, float] = {}
    for name in dict.fromkeys(_names(options.figures, large=options.large)):
        began = time.monotonic()
        module = import_module(f"tests.bench.bench_{name}")
        for row in module.measure(plan):
            print(f"{name}: {row.work}: {row.ours}  {row.peer}  {row.ratio}", file=sys.stderr)
            rows.append((name, row))
        took[name] = round(time.monotonic() - began, 1)
    print(table(row for _, row in rows))
    print()
    for note in (note for _, row in rows for note in row.notes):
        print(f"- {note}")
    where = f"{_machine()}; load {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"- {where}")
    print(f"- Measuring took {sum(took.values()):.0f} s: {_listed(took)}")
    found = [{"figure": name, "work": row.work, **row.values} for name, row in rows if row.values]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    told = {"machine": where, "seconds": took, "figures": found}
    options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("figures", nargs="*", choices=(*FIGURES, "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="measure so often, tell the median")
    parser.add_argument("--pile", type=int, default=40, help="bundles of the real pile")
    parser.add_argument("--large", action="store_true", help="100,000 bundles too: minutes, 8 GB")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build" / "bench.json")
    return parser.parse_args()


def _names(asked: str | list[str], *, large: bool) -> Iterator[str]:
    everything = [name for name in FIGURES if large or name not in LONG]
    for name in [asked] if isinstance(asked, str) else asked:
        yield from everything if name == "all" else (name,)


def _listed(took: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.0f}" for name, seconds in took.items())


def _machine() -> str:
    said = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=False)
    version = said.stdout.split()[2] if said.returncode == 0 else "none"
    return (
        f"Linux {platform.release()}, {os.cpu_count()} processors, Python "
        f"{platform.python_version()}, containerd {version}"
    )


if __name__ == "__main__":
    sys.exit(main())
