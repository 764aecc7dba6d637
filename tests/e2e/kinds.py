"""Kinds of node that a test is run on, one after the other."""

from typing import Final

import pytest

from tests.e2e import unified

_CHOICE: Final = (pytest.param(False, id="as the machine"), pytest.param(True, id="cgroup2 alone"))


def needs_version_2() -> None:
    """Skip where a node cannot have version 2."""
    if unified.mounted() is None:
        pytest.skip("no cgroup version 2 is mounted")


def either(node: str) -> pytest.MarkDecorator:
    """Run a test once with the machine's cgroups and once with version 2 alone.

    Args:
        node: Name of the fixture that makes the node.
    """
    return pytest.mark.parametrize(node, _CHOICE, indirect=True)
