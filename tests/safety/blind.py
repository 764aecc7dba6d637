"""A worker that skips the second look: it believes what it was told. A negative control.

`python -m tests.safety.blind FD` is to the program's pool what `reconciler.worker` is.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from reconciler.model.decisions import Judgement, Verdict
from reconciler.model.evidence import Facts
from reconciler.worker import client, forkserver, second_look
from tests.safety.ground import REPOSITORY


def believe(facts: Facts, *, young: bool) -> Judgement:
    """Judge nothing: it was called dead, so dead it is."""
    return Judgement(Verdict.LEFTOVER, 8, "so it was said")


def launch(theirs: socket.socket) -> "subprocess.Popen[bytes]":
    """Start a fork server of such workers, as the client starts its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.safety.blind", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "HOME": "/"},
        start_new_session=True,
    )


@contextmanager
def blind_workers() -> Iterator[None]:
    """Let every pool that starts meanwhile have such workers."""
    with mock.patch.object(client, "_launch", launch):
        yield


if __name__ == "__main__":
    with mock.patch.object(second_look, "judge", believe):
        forkserver.main()
