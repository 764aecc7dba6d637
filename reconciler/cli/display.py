"""What a foreground run shows: a live view on a terminal, log lines elsewhere.

Chooses and wires listeners; draws nothing itself. Log lines go to standard error also beside a
live view, unless both would share one terminal.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec
from typing_extensions import override

from reconciler.cli.output import Heading, Output
from reconciler.decide.engine import Engine
from reconciler.model.observations import Stamp
from reconciler.ports import Clock, Emit, Listener, Source, Watcher
from reconciler.settings.schema import Log, LogFormat
from reconciler.supervision import Fault

if TYPE_CHECKING:
    from reconciler.cli.live import LiveView
    from reconciler.telemetry.lazy import FilteringBoundLogger
    from reconciler.telemetry.logs import Threshold


class Shown(msgspec.Struct, frozen=True):
    """What the loop is to feed, who tells of a failed part at once, and who asks the engine."""

    listeners: tuple[Listener, ...] = ()
    sources: tuple[Source, ...] = ()
    report: Callable[[Fault], None] | None = None
    engine_made: Callable[[Engine], None] = lambda _: None


@contextmanager
def foreground(  # noqa: PLR0913 - what is shown, and where
    output: Output,
    heading: Heading,
    clock: Clock,
    backend: Callable[[], str],
    *,
    verbose: int = 0,
    wanted: Log | None = None,
    files: Sequence[str] | None = None,
    hints: Sequence[str] = (),
    watcher: Watcher | None = None,
) -> Iterator[Shown]:
    """Show a run for as long as the context is open.

    Args:
        output: Where to.
        heading: What the view says at the top.
        clock: Times the countdowns.
        backend: Names the watch backend in use.
        verbose: How much more to log.
        wanted: What the configuration says of the log; None where there is none.
        files: The files it was read from; None where there is none to speak of.
        hints: What it says that is probably not meant; where people read, they were told both.
        watcher: Whose backend the log tells of.
    """
    from reconciler.present.events import LogEvent
    from reconciler.present.records import Level, Record
    from reconciler.telemetry.logs import LogListener

    log = LogListener(make_log(output, verbose, wanted), watcher)
    viewed = output.on_terminal and not output.quiet
    logged = () if viewed and output.shares_terminal else (log,)

    if logged and not output.messages_on_terminal:
        told = [Record(LogEvent.CONFIG_QUESTIONED, Level.INFO, {"hint": hint}) for hint in hints]
        if files is not None:
            told.insert(0, Record(LogEvent.CONFIG_USED, Level.DEBUG, {"files": list(files)}))
        for record in told:
            log.report(Stamp(clock.monotonic(), clock.wall()), record)

    def report(fault: Fault) -> None:
        log.failed(Stamp(clock.monotonic(), clock.wall()), fault)

    def engine_made(engine: Engine) -> None:
        log.find = engine.track

    if not viewed:
        yield Shown(logged, report=report, engine_made=engine_made)
        return
    from reconciler.cli.live import LiveView
    from reconciler.cli.picture import Picture

    picture = Picture(enforce=heading.enforce)

    def engine_seen(engine: Engine) -> None:
        engine_made(engine)
        picture.find = engine.track

    with LiveView(picture, heading, output.console()) as view:
        drawing = _Drawing(view, clock, backend)
        yield Shown((picture, *logged), (drawing,), report if logged else None, engine_seen)
        view.update(backend(), clock.monotonic())


class _Drawing(Source):
    """Draws a few times a second; emits nothing."""

    def __init__(self, view: "LiveView", clock: Clock, backend: Callable[[], str]) -> None:
        self._view = view
        self._clock = clock
        self._backend = backend

    @override
    async def run(self, emit: Emit) -> None:
        from reconciler.cli.live import INTERVAL

        while True:
            self._view.update(self._backend(), self._clock.monotonic())
            await anyio.sleep(INTERVAL)


def make_log(
    output: Output,
    verbose: int,
    wanted: Log | None = None,
    threshold: "Threshold | None" = None,
) -> "FilteringBoundLogger":
    """Make the log on standard error; what is said on the command line wins.

    Args:
        output: Whose colour and quiet it has.
        verbose: How much more to log.
        wanted: What the configuration says of it; None where there is none.
        threshold: The level it says, if that may change; asked where the command line says none.
    """
    from reconciler.present.records import Level
    from reconciler.telemetry.logs import STDERR, Threshold, make_logger, stderr_sink
    from reconciler.telemetry.sink import is_journal

    wanted = wanted or Log()
    on_terminal = output.messages_on_terminal
    as_json = {LogFormat.AUTO: not on_terminal, LogFormat.CONSOLE: False, LogFormat.JSON: True}
    level: int | Threshold = threshold or Level(wanted.level.value).number
    if output.quiet or verbose:
        level = Level.ERROR.number if output.quiet else Level.DEBUG.number
    return make_logger(
        as_json=as_json[wanted.format],
        colour=on_terminal and output.colour,
        level=level,
        sink=stderr_sink(),
        prefixed=is_journal(STDERR),
    )
