"""A task as the tests name it, and the words that make one."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e import image
from tests.e2e.apart import Word
from tests.e2e.processes import Process


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it was when it was made.

    Attributes:
        namespace, id: Its name.
        init: Its first process.
        shim: Who looks after it; members of a pod share one.
    """

    namespace: str
    id: str
    init: Process
    shim: Process

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.namespace}/{self.id}"


def run_words(name: str, options: Sequence[Word], command: Sequence[str], pod: str) -> list[Word]:
    """Make the words of `ctr` that run a container; members of a pod name its first one."""
    named = ["--annotation", f"io.kubernetes.cri.sandbox-id={pod}"] if pod else []
    return ["run", "-d", *named, *options, image.NAME, name, *command]
