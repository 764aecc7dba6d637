"""Turn: which one of the demos that run on this machine a demo is.

A name in the abstract namespace of sockets is taken for as long as it lives, and free again however
it ends; nothing lies on disk.
"""

import errno
import itertools
import socket
from typing import Final

_NAME: Final = b"\0containerd-reconciler-demo-%d"


class Turn:
    """Holds the lowest number that no other demo has.

    Attributes:
        number: The number, from 1.
    """

    def __init__(self) -> None:
        self._held = socket.socket(socket.AF_UNIX)
        self.number = next(number for number in itertools.count(1) if self._take(number))

    def close(self) -> None:
        """Let the number go."""
        self._held.close()

    def _take(self, number: int) -> bool:
        try:
            self._held.bind(_NAME % number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True
