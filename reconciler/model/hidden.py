"""The names our own unfinished removals go by.

A bundle is renamed to such a name before it is taken apart. The leading dot makes containerd skip
it; it is never ``.<id>``, containerd's own hidden name, onto which a later rename would fail with
ENOTEMPTY. It carries the inode number, so that a later run can distinguish its own work from a name
that somebody made up: it is ours only if the object behind it has that number.
"""

import re
from typing import Final

_HIDDEN: Final = re.compile(r"\.reconciler-([1-9a-f][0-9a-f]{0,15})-[0-9a-f]{16}\Z")


def hidden_name(ino: int, token: bytes) -> str:
    """Make the hidden name for an inode; ``token`` is eight random bytes."""
    return f".reconciler-{ino:x}-{token.hex()}"


def parse_hidden(name: str) -> int | None:
    """Give the inode number a hidden name of ours carries, None if it does not look like one."""
    match = _HIDDEN.match(name)
    return int(match[1], 16) if match else None
