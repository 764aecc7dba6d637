"""The report: one self-contained page, a lane per bundle over time. Turns flow in, HTML flows out.

Nothing is fetched and nothing is sent: the page holds its data, packed, and draws only the rows in
sight, so that 10,000 bundles over a day stay usable. Names come from a hostile tree; they reach
the page only as packed data and are drawn as text.
"""

import base64
import gzip
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

import msgspec

from reconciler.model.decisions import Decision, Judged, Phase, Vanished, Verdict
from reconciler.model.evidence import ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.observations import Looked, NodeLooked, Observation
from reconciler.present import debris, decisions, formatting, observations, shapes
from reconciler.present.records import MARKS, Mark

STATES: Final = (
    *(verdict.value for verdict in Verdict if verdict is not Verdict.LEFTOVER),
    *(phase.value for phase in Phase if phase not in (Phase.NONE, Phase.CLEANED, Phase.HELD)),
)
"""What a lane is coloured by: the verdict, and the phase of a leftover."""

BEGIN: Final = b"<!doctype html>"
"""How every report begins: nothing else is overwritten by one."""

_STATE_NUMBERS: Final = {state: number for number, state in enumerate(STATES)}
_MOST_MARKS: Final = 400
"""A bundle that is blocked for a week is tried 2,000 times; the first and the last tell enough."""


@dataclass(slots=True)
class _Lane:
    """One bundle's life, flat: five numbers a segment, three a mark (see ``report.html``)."""

    key: BundleKey
    begin: int
    end: int = -1
    cleaned: bool = False
    pod: str = ""
    segments: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)


class Page(msgspec.Struct, frozen=True):
    """The data of a page. Times are milliseconds since the journal began.

    Attributes:
        title, host, program, wall, end: About the journal; ``wall`` is the epoch of its begin.
        policies: Name of the file whose policies decide here, if it is a what-if.
        states, marks: Names by number.
        texts: Texts by number; 0 is the empty one.
        rows: Judgements: reason, rule, verdict, and evidence as pairs.
        namespaces: Names by number.
        lanes: Namespace, id, begin, end (-1: still there), cleaned, segments, marks, and the text
            that names its pod. A segment is begin, state, row, cause, due (-1: none); a mark is
            time, kind, text.
        node: Marks that concern the whole node.
        debris: What is left outside of bundles at the end: kind and path, verdict, phase, when it
            is due (-1: unknown), and why.
        debris_counts: How many of it there are by kind and phase, in words.
    """

    title: str
    host: str
    program: str
    wall: float
    end: int
    policies: str
    states: tuple[str, ...]
    marks: tuple[str, ...]
    texts: list[str]
    rows: list[tuple[str, int, str, list[tuple[str, str]]]]
    namespaces: list[str]
    lanes: list[tuple[int, str, int, int, int, list[int], list[int], int]]
    node: list[int]
    debris: list[tuple[str, str, str, int, str]]
    debris_counts: str


class Lanes:
    """Collects what a page shows of a journal; ``begin`` is its first monotonic time."""

    def __init__(self, begin: float) -> None:
        self._begin = begin
        self._open: dict[BundleKey, _Lane] = {}
        self._lanes: list[_Lane] = []
        self._pods: dict[BundleKey, str] = {}
        self._node: list[int] = []
        self._texts: dict[str, int] = {"": 0}
        self._rows: dict[tuple[object, object], int] = {}
        self._reported_rows: list[tuple[str, int, str, list[tuple[str, str]]]] = []
        self._end = 0
        self._left = debris.NOTHING
        self._containerd = ContainerdState.NONE

    def take(
        self, at: float, observation: Observation | None, concluded: Iterable[Decision]
    ) -> None:
        """Take in one turn; ``at`` counts from the journal's begin."""
        now = round(at * 1000)
        self._end = max(self._end, now)
        if observation is not None:
            self._observe(now, observation)
        for decision in concluded:
            self._decide(now, decision)

    def end(self, left: debris.Left) -> None:
        """Take in what is left outside of bundles at the end."""
        self._left = left

    def page(self, title: str, host: str, program: str, wall: float, policies: str = "") -> Page:
        """Give the page's data; see :class:`Page`."""
        pods = [self._text(lane.pod) for lane in self._lanes]
        namespaces = sorted({_space(lane.key) for lane in self._lanes})
        numbers = {namespace: number for number, namespace in enumerate(namespaces)}
        return Page(
            title=title,
            host=host,
            program=program,
            wall=wall,
            end=max(self._end, 1),
            policies=policies,
            states=STATES,
            marks=MARKS,
            texts=list(self._texts),
            rows=self._reported_rows,
            namespaces=namespaces,
            lanes=[
                (
                    numbers[_space(lane.key)],
                    lane.key.id,
                    lane.begin,
                    lane.end,
                    int(lane.cleaned),
                    lane.segments,
                    lane.marks,
                    pod,
                )
                for lane, pod in zip(self._lanes, pods, strict=True)
            ],
            node=self._node,
            debris=[self._debris(one) for one in self._left.listed],
            debris_counts=formatting.debris(self._left.counts),
        )

    def _debris(self, one: debris.DebrisShape) -> tuple[str, str, str, int, str]:
        due = one.due_in_seconds
        at = -1 if due is None else self._end + round(due * 1000)
        why = f"{one.reason}; {one.cause}" if one.cause else one.reason
        return f"{one.kind}:{one.path}", one.verdict, one.phase or "-", at, why

    def _observe(self, now: int, observation: Observation) -> None:
        if isinstance(observation, NodeLooked) and observation.containerd is not None:
            before, self._containerd = self._containerd, observation.containerd.state
            if self._containerd is before:
                return
        if isinstance(observation, Looked) and observation.look is not None:
            self._name(observation.key, shapes.pod(observation.look.labels))
        self._mark(now, observations.mark(observation))

    def _name(self, key: BundleKey, pod: shapes.Pod | None) -> None:
        """Remember whose container it is: config.json may be gone when it is looked at again."""
        if pod is None:
            return
        self._pods[key] = pod.path
        if key in self._open:
            self._open[key].pod = pod.path

    def _decide(self, now: int, decision: Decision) -> None:
        if isinstance(decision, Judged):
            self._judged(now, decision)
        elif isinstance(decision, Vanished):
            lane = self._open.pop(decision.key, None)
            self._pods.pop(decision.key, None)
            if lane is not None:
                lane.end, lane.cleaned = now, decision.cleaned
        else:
            self._mark(now, decisions.mark(decision))

    def _judged(self, now: int, judged: Judged) -> None:
        lane = self._open.get(judged.key)
        if lane is None:
            lane = self._open[judged.key] = _Lane(
                judged.key, now, pod=self._pods.get(judged.key, "")
            )
            self._lanes.append(lane)
        state = judged.phase.value or judged.judgement.verdict.value
        due = -1
        if judged.due_at is not None:
            due = round((judged.due_at - self._begin) * 1000)
        cause = self._text(judged.cause)
        lane.segments += (now, _STATE_NUMBERS[state], self._row(judged), cause, due)

    def _row(self, judged: Judged) -> int:
        name = (judged.judgement, judged.facts)
        number = self._rows.get(name)
        if number is None:
            number = self._rows[name] = len(self._rows)
            judgement, facts = judged.judgement, judged.facts
            grounds = [] if facts is None else list(decisions.evidence(facts).items())
            verdict = judgement.verdict.value
            self._reported_rows.append((judgement.reason, judgement.rule, verdict, grounds))
        return number

    def _mark(self, now: int, mark: Mark | None) -> None:
        if mark is None:
            return
        marks = self._node
        if mark.key is not None:
            lane = self._open.get(mark.key)
            if lane is None:
                return
            marks = lane.marks
            if len(marks) >= 3 * _MOST_MARKS:
                del marks[-3:]
        marks += (now, MARKS.index(mark.kind), self._text(mark.text))

    def _text(self, words: str) -> int:
        return self._texts.setdefault(words, len(self._texts))


def render(page: Page) -> bytes:
    """Give the whole page as HTML."""
    packed = base64.b64encode(gzip.compress(msgspec.json.encode(page), 9, mtime=0))
    template = resources.files(__package__).joinpath("report.html").read_bytes()
    before, after = template.split(b"@DATA@")
    return before + packed + after


def _space(key: BundleKey) -> str:
    """Give a namespace as it is typed: that of a sandbox says which tree is meant."""
    return f"{key.tree}:{key.namespace}" if key.tree else key.namespace
