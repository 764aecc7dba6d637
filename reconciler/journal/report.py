"""The report: one self-contained page, a lane per bundle over time. Turns flow in, HTML flows out.

Nothing is fetched and nothing is sent: the page holds its data, packed, and draws only the rows in
sight, so that 10,000 bundles over a day stay usable. Names come from a hostile tree; they reach
the page only as packed data and are drawn as text.
"""

import base64
import gzip
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final, assert_never

import msgspec

from reconciler.decide.decisions import (
    AskNode,
    Braked,
    Clean,
    Decision,
    Died,
    FinishRemoval,
    Judged,
    LookAt,
    OverBudget,
    Phase,
    Relist,
    Vanished,
    Verdict,
)
from reconciler.journal import wire
from reconciler.journal.compare import evidence
from reconciler.journal.replay import Turn
from reconciler.journal.told import span
from reconciler.model.evidence import ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Doubt, DoubtKind, Hint, HintKind, NodeLooked, Observation
from reconciler.model.outcome import Outcome

STATES: Final = (
    *(verdict.value for verdict in Verdict if verdict is not Verdict.LEFTOVER),
    *(phase.value for phase in Phase if phase not in (Phase.NONE, Phase.CLEANED, Phase.HELD)),
)
"""What a lane is coloured by: the verdict, and the phase of a leftover."""

MARKS: Final = ("event", "death", "clean", "outcome", "budget", "node")
_STATE_NUMBERS: Final = {state: number for number, state in enumerate(STATES)}
_MOST_MARKS: Final = 400
"""A bundle that is blocked for a week is tried 2,000 times; the first and the last tell enough."""

_QUIET_DOUBTS: Final = frozenset({DoubtKind.TIMER, DoubtKind.START})


@dataclass(slots=True)
class _Lane:
    """One bundle's life, flat: five numbers a segment, three a mark (see ``report.html``)."""

    key: BundleKey
    begin: int
    end: int = -1
    cleaned: bool = False
    segments: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)


class Page(msgspec.Struct, frozen=True):
    """The data of a page. Times are milliseconds since the journal began.

    Attributes:
        title, host, program, wall, end: About the journal; ``wall`` is the epoch of its begin.
        states, marks: Names by number.
        texts: Texts by number; 0 is the empty one.
        rows: Judgements: reason, rule, verdict, and evidence as pairs.
        namespaces: Names by number.
        lanes: Namespace, id, begin, end (-1: still there), cleaned, segments, marks. A segment is
            begin, state, row, cause, due (-1: none); a mark is time, kind, text.
        node: Marks that concern the whole node.
    """

    title: str
    host: str
    program: str
    wall: float
    end: int
    states: tuple[str, ...]
    marks: tuple[str, ...]
    texts: list[str]
    rows: list[tuple[str, int, str, list[tuple[str, str]]]]
    namespaces: list[str]
    lanes: list[tuple[int, str, int, int, int, list[int], list[int]]]
    node: list[int]


class Lanes:
    """Collects what a page shows."""

    def __init__(self, header: wire.Header) -> None:
        self._header = header
        self._open: dict[BundleKey, _Lane] = {}
        self._lanes: list[_Lane] = []
        self._node: list[int] = []
        self._texts: dict[str, int] = {"": 0}
        self._rows: dict[tuple[object, object], int] = {}
        self._told_rows: list[tuple[str, int, str, list[tuple[str, str]]]] = []
        self._end = 0
        self._containerd = ContainerdState.NONE

    def take(self, at: float, turn: Turn) -> None:
        """Take in one turn; ``at`` counts from the journal's begin."""
        now = round(at * 1000)
        self._end = max(self._end, now)
        if turn.observation is not None:
            self._observe(now, turn.observation)
        for decision in turn.replayed:
            self._decide(now, decision)

    def page(self, title: str) -> Page:
        """Give the page's data."""
        namespaces = sorted({lane.key.namespace for lane in self._lanes})
        numbers = {namespace: number for number, namespace in enumerate(namespaces)}
        header = self._header
        return Page(
            title=title,
            host=header.host,
            program=header.program,
            wall=header.wall,
            end=max(self._end, 1),
            states=STATES,
            marks=MARKS,
            texts=list(self._texts),
            rows=self._told_rows,
            namespaces=namespaces,
            lanes=[
                (
                    numbers[lane.key.namespace],
                    lane.key.id,
                    lane.begin,
                    lane.end,
                    int(lane.cleaned),
                    lane.segments,
                    lane.marks,
                )
                for lane in self._lanes
            ],
            node=self._node,
        )

    # ------------------------------------------------------------------ what is seen

    def _observe(self, now: int, observation: Observation) -> None:
        match observation:
            case Hint() if observation.kind is not HintKind.CHANGED:
                self._mark(now, observation.key, "event", observation.kind.value)
            case Outcome():
                words = observation.result.value
                if observation.reason is not None:
                    words += f": {observation.reason.value}"
                if observation.detail:
                    words += f" ({observation.detail})"
                self._mark(now, observation.key, "outcome", words)
            case Doubt() if observation.kind not in _QUIET_DOUBTS:
                self._node_mark(now, observation.kind.value)
            case NodeLooked() if observation.containerd is not None:
                state = observation.containerd.state
                if state is not self._containerd:
                    self._containerd = state
                    self._node_mark(now, f"containerd: {state.value}")
            case _:
                pass

    # ------------------------------------------------------------------ what is concluded

    def _decide(self, now: int, decision: Decision) -> None:
        match decision:
            case Judged():
                self._judged(now, decision)
            case Vanished():
                lane = self._open.pop(decision.key, None)
                if lane is not None:
                    lane.end, lane.cleaned = now, decision.cleaned
            case Died():
                self._mark(now, decision.key, "death", f"abnormal end of {decision.cause}")
            case OverBudget():
                words = f"running and over its {decision.kind.value} budget"
                self._mark(now, decision.key, "budget", words)
            case Clean():
                verb = "kill" if decision.kill else "cleanup"
                self._mark(now, decision.key, "clean", f"{verb}, attempt {decision.attempt}")
            case Braked():
                verb = "brake" if decision.on else "released"
                self._node_mark(now, f"{verb}: {decision.brake}: {decision.detail}")
            case FinishRemoval():
                self._node_mark(now, f"finishes a removal of ours: {decision.key}")
            case LookAt() | Relist() | AskNode():
                pass
            case _:
                assert_never(decision)

    def _judged(self, now: int, judged: Judged) -> None:
        lane = self._open.get(judged.key)
        if lane is None:
            lane = self._open[judged.key] = _Lane(judged.key, now)
            self._lanes.append(lane)
        state = judged.phase.value or judged.judgement.verdict.value
        due = -1
        if judged.due_at is not None:
            due = round((judged.due_at - self._header.mono) * 1000)
        lane.segments += (
            now,
            _STATE_NUMBERS[state],
            self._row(judged),
            self._text(judged.cause),
            due,
        )

    def _row(self, judged: Judged) -> int:
        name = (judged.judgement, judged.facts)
        number = self._rows.get(name)
        if number is None:
            number = self._rows[name] = len(self._rows)
            judgement, facts = judged.judgement, judged.facts
            grounds = [] if facts is None else list(evidence(facts).items())
            verdict = judgement.verdict.value
            self._told_rows.append((judgement.reason, judgement.rule, verdict, grounds))
        return number

    def _mark(self, now: int, key: BundleKey, kind: str, words: str) -> None:
        lane = self._open.get(key)
        if lane is None:
            return
        if len(lane.marks) >= 3 * _MOST_MARKS:
            del lane.marks[-3:]
        lane.marks += (now, MARKS.index(kind), self._text(words))

    def _node_mark(self, now: int, words: str) -> None:
        self._node += (now, MARKS.index("node"), self._text(words))

    def _text(self, words: str) -> int:
        return self._texts.setdefault(words, len(self._texts))


def render(page: Page) -> bytes:
    """Give the whole page as HTML."""
    packed = base64.b64encode(gzip.compress(msgspec.json.encode(page), 9, mtime=0))
    template = resources.files(__package__).joinpath("report.html").read_bytes()
    before, after = template.split(b"@DATA@")
    return before + packed + after


def write(lanes: Lanes, source: Path, target: Path) -> str:
    """Write the page; returns a line about it.

    Raises:
        OSError: It cannot be written.
    """
    page = lanes.page(source.name)
    html = render(page)
    target.write_bytes(html)
    lanes_shown = f"{len(page.lanes):,} bundles over {span(page.end / 1000)}"
    return f"{target}: {lanes_shown}, {len(html) // 1000:,} kB"
