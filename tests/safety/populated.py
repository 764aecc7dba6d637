"""Processes in the cgroups of a bundle."""

from pathlib import Path

from reconciler.demo.node import Process
from tests.support.cgroups import join


def populate(groups: tuple[Path, ...]) -> Process:
    """Have a process in all of these."""
    process = Process(["innocent"])
    join(process.pid, groups)
    return process
