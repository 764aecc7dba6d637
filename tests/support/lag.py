"""How long something held us up, without the time in which others had the processor."""

import time
from pathlib import Path


def waited_for_a_processor() -> float:
    """Seconds this thread could have run while others did: that is the machine's lag."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


class Stopwatch:
    """Seconds since it was made, less those in which this thread waited for a processor."""

    def __init__(self) -> None:
        self._waited = waited_for_a_processor()
        self._began = time.perf_counter()

    def read(self) -> float:
        took = time.perf_counter() - self._began
        return took - (waited_for_a_processor() - self._waited)
