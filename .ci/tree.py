#!/usr/bin/env python3
"""Check the shape of the tree: module sizes, and words that have no place in a source file.

A module over the limit is two modules. The name of a package registry's host ties a build to one
registry, when the package client already knows its own; a path of the machine a file was written
on means nothing anywhere else.

    .ci/tree.py [DIRECTORY]      prints each finding on a line of its own; exit 1 if there is one
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_LINES = 400

# Assembled from pieces, so that this file passes its own check.
_HOSTS = (
    ("py" + "pi", "org"),
    ("python" + "hosted", "org"),
    ("npm" + "js", "org"),
    ("crates", "io"),
    ("ruby" + "gems", "org"),
    ("ana" + "conda", "org"),
    ("proxy.go" + "lang", "org"),
    ("deb.de" + "bian", "org"),
)
_PLACES = (
    "/" + "work/(?:main|shared|steering|\\.library|\\.mirror)",
    "/" + "farm/",
    "/" + "tmp/(?:team|v)(?![\\w-])",
    "/" + "root/\\.pyenv",
)
FORBIDDEN = (
    (
        "package registry host",
        re.compile("|".join(re.escape(".".join(h)) for h in _HOSTS), re.IGNORECASE),
    ),
    ("path of one machine", re.compile(r"(?<![\w.])(?:" + "|".join(_PLACES) + ")")),
)


def files(top: Path) -> list[Path]:
    """List what git tracks or would track below `top`, or everything where there is no git."""
    asked = subprocess.run(
        ["git", "-C", str(top), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if asked.returncode == 0:
        found = [top / name.decode() for name in asked.stdout.split(b"\0") if name]
    else:
        found = list(top.rglob("*"))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def findings(top: Path) -> Iterator[str]:
    """Yield one line per finding below `top`."""
    for path in files(top):
        text = path.read_bytes().decode("utf-8", "replace")
        shown = path.relative_to(top)
        lines = text.splitlines()
        generated = path.stem.endswith(("_pb2", "_grpc"))
        if path.suffix == ".py" and len(lines) > MAX_LINES and not generated:
            yield f"{shown}: {len(lines)} lines, the limit is {MAX_LINES}"
        for number, line in enumerate(lines, 1):
            for what, pattern in FORBIDDEN:
                if match := pattern.search(line):
                    yield f"{shown}:{number}: {what}: {match.group()}"


def main() -> int:
    """Print the findings and say by the exit code whether there were any."""
    top = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = list(findings(top))
    for line in found:
        sys.stdout.write(line + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
