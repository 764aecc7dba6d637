"""Progress of long work, on a terminal only: how many bundles are looked at, how many cleaned.

A listener and a source: what goes through the loop flows in, a line on standard error flows out a
few times a second. It emits nothing.
"""

import select
import sys
from typing import TYPE_CHECKING, Self

import anyio
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn
from rich.text import Text
from typing_extensions import override

from reconciler.model.decisions import Clean, Decision, Judged, Phase
from reconciler.model.observations import Listed, Looked, Observation, Stamp
from reconciler.model.outcome import Outcome
from reconciler.ports import Emit, Listener, Source

if TYPE_CHECKING:
    from reconciler.model.ids import BundleKey

_INTERVAL = 0.25
_MANY = 200


class _Counts(MofNCompleteColumn):
    """How many of how many; nothing while there is nothing to count: 0/0 is no progress."""

    @override
    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text()


class ProgressLine(Listener, Source):
    """A bar for looking and one for cleaning; a context manager that clears them at the end.

    Attributes:
        bars: What is drawn.
    """

    def __init__(self, console: Console) -> None:
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), _Counts(), console=console
        )
        self._live = Live(self.bars, console=console, transient=True, auto_refresh=False)
        self._looking = self.bars.add_task("looking", total=None, visible=False)
        self._cleaning = self.bars.add_task("cleaning", total=0, visible=False)
        self._begun = 0
        self._ended: set[BundleKey] = set()
        self._drawn = 0.0
        self._poll = select.poll()
        self._poll.register(sys.stderr.fileno(), select.POLLOUT)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Count what was looked at and what was cleaned."""
        match observation:
            case Listed(namespace=None, bundles=bundles):
                many = len(bundles) >= _MANY
                self.bars.update(self._looking, total=len(bundles), completed=0, visible=many)
            case Looked():
                self.bars.advance(self._looking)
            case Outcome(key=key):
                # One that stays is tried again; that is no second one.
                self._ended.add(key)
                self.bars.update(self._cleaning, completed=len(self._ended))
            case _:
                return
        self._draw(stamp.mono)

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Say what is waited for, and count what is to be cleaned."""
        match decision:
            case Judged(phase=Phase.WAITING) if not self._begun:
                what = "waiting for the second look"
                self.bars.update(self._cleaning, description=what, total=None, visible=True)
            case Clean(attempt=1):
                self._begun += 1
                what = "cleaning"
                self.bars.update(self._cleaning, description=what, total=self._begun, visible=True)
            case _:
                return

    @override
    async def run(self, emit: Emit) -> None:
        """Draw now and then while nothing happens."""
        while True:
            await anyio.sleep(_INTERVAL)
            self._refresh()

    def _draw(self, mono: float) -> None:
        if mono - self._drawn >= _INTERVAL:
            self._drawn = mono
            self._refresh()

    def _refresh(self) -> None:
        if any(event & select.POLLOUT for _, event in self._poll.poll(0)):
            self._live.refresh()
