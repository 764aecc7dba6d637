"""Processes in the cgroups of a bundle."""

from pathlib import Path

from reconciler.demo.processes import Process


def populate(groups: tuple[Path, ...]) -> Process:
    """Have a process in all of these."""
    process = Process(["innocent"])
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
        if "cpuset" not in group.parts:  # of version 1, which must be set up first
            (group / "cgroup.procs").write_text(str(process.pid))
    return process
