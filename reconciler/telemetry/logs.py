"""Logs: every record as one line on standard error, readable on a terminal, JSON elsewhere.

Observations and decisions flow in, lines flow out through a sink that never waits
(:mod:`reconciler.telemetry.sink`). Every mutation has its record (principle 9); repeats of the
same news are withheld for a while and counted.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec
from typing_extensions import override

from reconciler.decide.track import Track
from reconciler.model.decisions import Decision, LookAt
from reconciler.model.ids import BundleKey, printable
from reconciler.model.observations import Observation, Resync, ResyncKind, Stamp
from reconciler.ports import Listener, Watcher
from reconciler.present import decisions, observations
from reconciler.present.events import LogEvent
from reconciler.present.formatting import iso, printable_json, to_json
from reconciler.present.records import NUMBERS, Field, Level, Record, Repeats, in_pod, named
from reconciler.supervision import Fault
from reconciler.telemetry import sink
from reconciler.telemetry.lazy import (
    EventDict,
    FilteringBoundLogger,
    Processor,
    WrappedLogger,
    structlog,
)
from reconciler.telemetry.sink import DescriptorSink, Sink

STDERR = 2

_MOST_PODS: Final = 4096

Find = Callable[[BundleKey], Track | None]


class Threshold(msgspec.Struct):
    """The least important level that is written; a reload may change it."""

    level: Level


class LogListener(Listener):
    """Logs what goes through the loop.

    Attributes:
        watcher: Is asked which backend works, and why, when that has changed; None for none.
        find: Is asked whose a bundle is, and whether it is only observed; None for nobody.
    """

    def __init__(self, logger: FilteringBoundLogger, watcher: Watcher | None = None) -> None:
        self.watcher = watcher
        self.find: Find | None = None
        self._logger = logger
        self._repeats = Repeats()
        self._pods: OrderedDict[BundleKey, dict[str, Field]] = OrderedDict()

    @override
    def observed(self, stamp: Stamp, observation: Observation) -> None:
        """Log what was learnt."""
        for record in observations.records(observation):
            self.report(stamp, record)
        is_other = isinstance(observation, Resync) and observation.kind is ResyncKind.BACKEND
        if is_other and self.watcher is not None:
            self.report(stamp, observations.watching(self.watcher.backend, self.watcher.reason))

    @override
    def decided(self, stamp: Stamp, decision: Decision) -> None:
        """Log what was concluded; what is asked for is told by what comes of it."""
        if isinstance(decision, LookAt):  # the most frequent one
            return
        track = self._track(decisions.key_of(decision))
        observed = track is not None and track.policy is not None and not track.policy.enforce
        record = decisions.record(stamp, decision, observed=observed)
        if record is not None:
            self.report(stamp, record)

    def failed(self, stamp: Stamp, fault: Fault) -> None:
        """Log that a part of ours has failed."""
        frames = list(fault.frames)
        fields: dict[str, Field] = {"where": fault.where, "problem": fault.what, "frames": frames}
        self.report(stamp, Record(LogEvent.PART_FAILED, Level.ERROR, fields))

    def report(self, stamp: Stamp, record: Record) -> None:
        """Log a record, or withhold it as a repeat of the same news."""
        said = self._repeats.admit(stamp.mono, record)
        # Most of what is seen is for a debug log alone: it is not worth a line nobody reads.
        if said is None or not self._logger.is_enabled_for(said.level.number):
            return
        fields: dict[str, Field] = {}
        if record.key is not None:
            fields = named(record.key) | self._pod(record.key)
        fields |= record.fields
        if said.repeated:
            fields["repeated"] = said.repeated
        fields["timestamp"], fields["mono"] = iso(stamp.wall), round(stamp.mono, 6)
        self._logger.log(said.level.number, record.event.value, **fields)

    def _track(self, key: BundleKey | None) -> Track | None:
        return None if key is None or self.find is None else self.find(key)

    def _pod(self, key: BundleKey) -> dict[str, Field]:
        """Name the pod and the container of a bundle, also once it is gone."""
        track = self._track(key)
        if track is None:
            return self._pods.get(key, {})
        pod = in_pod(track.labels)
        if pod:
            self._pods[key] = pod
            self._pods.move_to_end(key)
            if len(self._pods) > _MOST_PODS:
                self._pods.popitem(last=False)
        return pod


class _SinkLogger:
    """What structlog calls with a finished line, by the name of its level."""

    def __init__(self, sink: Sink, *, prefixed: bool) -> None:
        self._sink = sink
        self._prefixed = prefixed

    def debug(self, line: str) -> None:
        self._write(sink.DEBUG, line)

    def info(self, line: str) -> None:
        self._write(sink.INFO, line)

    def warning(self, line: str) -> None:
        self._write(sink.WARNING, line)

    def error(self, line: str) -> None:
        self._write(sink.ERROR, line)

    def _write(self, level: int, line: str) -> None:
        self._sink.write(f"<{level}>{line}" if self._prefixed else line)


def make_logger(
    *,
    as_json: bool,
    colour: bool = False,
    level: int | Threshold = Level.INFO.number,
    sink: Sink,
    prefixed: bool = False,
) -> FilteringBoundLogger:
    """Make a logger without touching structlog's global configuration.

    Args:
        as_json: One JSON object a line, else aligned text for people.
        colour: Colour the text.
        level: Records below this number (as in :mod:`logging`) are left out; a threshold is asked
            for each record.
        sink: Takes the finished lines.
        prefixed: Begin each line with its level, as the journal reads it.
    """
    processors: list[Processor] = []
    if isinstance(level, Threshold):
        processors.append(partial(_not_below, level))
        enabled = {"is_enabled_for": staticmethod(partial(_is_enabled, level))}
        made = structlog.make_filtering_bound_logger(Level.DEBUG.number)
        logger_class: type[FilteringBoundLogger] = type("Following", (made,), enabled)
    else:
        logger_class = structlog.make_filtering_bound_logger(level)
    if as_json:
        processors.append(_as_json)
    else:
        processors += [
            structlog.processors.add_log_level,
            _for_people,
            structlog.dev.ConsoleRenderer(colors=colour, pad_event_to=16),
        ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _SinkLogger(sink, prefixed=prefixed),
        processors=processors,
        wrapper_class=logger_class,
    ).bind()  # what is not bound binds itself anew for each line
    return logger


def stderr_sink(descriptor: int = STDERR) -> DescriptorSink:
    """Make the sink on standard error; how many lines it dropped is told in the stream itself."""
    before = sink.prefix(sink.WARNING, descriptor)

    def lost(count: int) -> str:
        return before + _encode({"event": LogEvent.LINES_DROPPED.value, "count": count})

    return DescriptorSink(descriptor, lost)


def _encode(line: object) -> str:
    return printable_json(to_json(line).decode())


def _is_enabled(threshold: Threshold, level: int) -> bool:
    """Return whether lines of a level are written now."""
    return level >= NUMBERS[threshold.level.value]


def _not_below(
    threshold: Threshold, _logger: WrappedLogger, name: str, event: EventDict
) -> EventDict:
    if NUMBERS[name] < NUMBERS[threshold.level.value]:
        raise structlog.DropEvent
    return event


def _as_json(_logger: WrappedLogger, name: str, event: EventDict) -> str:
    """Write a record in one go, for there may be many; when and what come first, for people."""
    when = {"timestamp": event.pop("timestamp")} if "timestamp" in event else {}
    return _encode({**when, "level": name, "event": event.pop("event"), **event})


def _for_people(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Leave out empty fields and raw facts, and write a bundle's name as people type it."""
    shown = {
        name: value
        for name, value in event.items()
        if name not in ("facts", "mono") and value not in ("", None, [])
    }
    shown = {name: _printable(value) for name, value in shown.items()}
    if "id" in event:
        who = f"{event['namespace']}/{event['id']}"
        shown = {name: shown[name] for name in shown if name not in ("namespace", "id")}
        shown["event"] = f"{event['event']:<16} {who}"
    return shown


def _printable(value: object) -> object:
    """Make texts printable, those in lists and tables as well."""
    match value:
        case str():
            return printable(value)
        case list():
            return [_printable(one) for one in value]
        case dict():
            return {_printable(name): _printable(one) for name, one in value.items()}
        case _:
            return value
