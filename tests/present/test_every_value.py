"""Every value of every enumeration, and every text, through everybody who hears or shows it.

What comes from the node (a command's name, what runc said, an error, a label) is written by others:
no control character of theirs reaches a terminal, a log or a page, and none of it is markup.
"""

import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console, RenderableType

from reconciler.cli.console import fitted
from reconciler.cli.live import ProgressLine, draw
from reconciler.cli.live_status import StatusView
from reconciler.cli.output import Heading, Output
from reconciler.cli.picture import Picture
from reconciler.daemon.endpoints import Check, readiness
from reconciler.decide.engine import Engine
from reconciler.journal.listener import Snapshot
from reconciler.model.decisions import (
    Braked,
    BudgetKind,
    Clean,
    DeathCause,
    Decision,
    Died,
    Judged,
    Judgement,
    OverBudget,
    Phase,
    Vanished,
    Verdict,
)
from reconciler.model.evidence import Containerd, ContainerdState, ProcessScan
from reconciler.model.ids import Identity, printable
from reconciler.model.layout import Layout
from reconciler.model.observations import (
    Guard,
    GuardsChecked,
    Hint,
    HintKind,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    Refusal,
    Resync,
    ResyncKind,
    Stamp,
)
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result, Step, StepResult
from reconciler.model.policy import Policies
from reconciler.ports import Listener
from reconciler.present import page, rows, shapes, status_text
from reconciler.present.envelope import encode
from reconciler.present.status import (
    About,
    Attempts,
    ConfigStatus,
    EndpointStatus,
    Status,
    gather,
)
from reconciler.supervision import Fault
from reconciler.telemetry.logs import LogListener, make_logger
from reconciler.telemetry.metrics import Metrics
from tests.decide.world import dead, key
from tests.support.clock import VirtualClock
from tests.support.examples import several
from tests.telemetry.test_logs import Lines

KEY = key("ns/b")
WHO = Identity(1, 2, 3)
STAMP = Stamp(10.0, 1_700_000_000.0)
HOSTILE: Final = (
    "\x1b[31m\x1b]0;pwned\x07[red]x[/red][/] \r\n\t\x00\x7f\x9b2J\u202e\u2028 <b>&\udc9b \\"
)

WHOLE: Final = HOSTILE.replace("\udc9b", "")

texts = st.one_of(
    st.just(HOSTILE),
    st.text(max_size=40),
    st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs"]), max_size=20),
)


few = settings(max_examples=several(25))


def outcomes(text: str) -> Iterator[Outcome]:
    """Every result, reason and result of a step, with this text wherever there is one."""
    holders = (Holder(17, text, text),)
    for result in Result:
        for reason in (None, *BlockReason):
            steps = tuple(Step(text, one, text, 0.1, 1) for one in StepResult)
            yield Outcome(KEY, WHO, result, reason, text, holders, steps)


def observations(text: str) -> Iterator[Observation]:
    yield from outcomes(text)
    yield from (Hint(KEY, kind) for kind in HintKind)
    yield from (Resync(kind, name) for kind in ResyncKind for name in (None, "ns\\x1b[31m"))
    yield from (NodeLooked(0.0, containerd=Containerd(one, detail=text)) for one in ContainerdState)
    yield from (NodeLooked(0.0, processes=ProcessScan(answered=one)) for one in (False, True))
    yield from (Listed(answered=a, present=p) for a in (False, True) for p in (False, True))
    yield GuardsChecked(tuple(Refusal(guard, text) for guard in Guard))
    yield GuardsChecked()
    yield from (Looked(KEY, look) for look in (None, dead()))


def decisions(text: str) -> Iterator[Decision]:
    for verdict in Verdict:
        for phase in Phase:
            for previous in (None, *Verdict):
                judgement = Judgement(verdict, 8, text)
                yield Judged(KEY, judgement, phase, previous, text, 12.0)
        yield Vanished(KEY, verdict, cleaned=True)
    yield from (Died(KEY, cause) for cause in DeathCause)
    yield from (OverBudget(KEY, kind) for kind in BudgetKind)
    yield from (Braked(text, on=on, detail=text) for on in (True, False))


def values(text: str) -> Iterator[Observation | Decision]:
    yield from observations(text)
    yield from decisions(text)


def receive(listener: Listener, text: str) -> None:
    for value in observations(text):
        listener.observed(STAMP, value)
    for decision in decisions(text):
        listener.decided(STAMP, decision)


def status(text: str) -> Status:
    """A status with a text wherever one can be."""
    engine, attempts = Engine(Policies()), Attempts(Layout())
    for value in (next(outcomes(text)), GuardsChecked((Refusal(Guard.WORKER, text),))):
        attempts.observed(STAMP, value)
    config = ConfigStatus([text], 0.0, ok=False, after_restart=[text], error=text)
    about = About("node-1", "1", "observe", 1, "poll", 0.0, ready=True, config=config)
    told = gather(engine, attempts, about, STAMP)
    from msgspec.structs import replace as changed

    return changed(
        told,
        brake=text,
        endpoints=[EndpointStatus("http.listen", text, text)],
        internal_errors={text: 1},
        refused=told.refused,
        containerd=changed(told.containerd, state="no answer", version=text, detail=text),
    )


def drawn(what: RenderableType) -> str:
    """What a terminal gets, without the styles that are rich's own."""
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, emoji=False, markup=False)
    console.print(what)
    return out.getvalue()


def is_clean(text: str) -> bool:
    """Whether nothing in it can be taken for anything but text and ends of lines."""
    return all(one.isprintable() or one == "\n" for one in text)


@pytest.mark.parametrize("kind", [True, False], ids=["json", "console"])
@few
@given(text=texts)
def test_no_control_character_reaches_the_log(kind: bool, text: str) -> None:
    lines = Lines()
    log = LogListener(make_logger(as_json=kind, level=10, sink=lines))
    log.observed(STAMP, next(outcomes(text)))
    log.observed(STAMP, GuardsChecked((Refusal(Guard.WORKER, text),)))
    log.decided(STAMP, Braked(text, on=True, detail=text))
    log.failed(STAMP, Fault(text, text, (text,)))
    for line in lines.lines:
        assert line.isprintable(), line
    if kind:
        details = [one["detail"] for one in lines.records if one["event"] == "bundle.cleaned"]
        assert details == [text.encode("utf-8", "replace").decode()] or not text.isprintable()


def test_every_value_passes_every_listener(capsys: pytest.CaptureFixture[str]) -> None:
    """The instance: a workload that was ended had no level in the log."""
    lines, picture = Lines(), Picture()
    engine, clock = Engine(Policies()), VirtualClock()
    listeners: list[Listener] = [
        LogListener(make_logger(as_json=True, level=10, sink=lines)),
        LogListener(make_logger(as_json=False, level=10, sink=lines)),
        Metrics(engine, clock),
        Attempts(Layout()),
        picture,
        Snapshot(io.BytesIO(), STAMP, Policies()),
    ]
    for listener in listeners:
        receive(listener, HOSTILE)
    assert all(line.isprintable() for line in lines.lines)
    heading = Heading(HOSTILE, printable(HOSTILE), enforce=True)
    assert is_clean(drawn(draw(picture, heading, "poll", 1.0)))


@pytest.mark.parametrize("result", Result)
@pytest.mark.parametrize("reason", [None, *BlockReason])
def test_every_outcome_is_drawn_while_it_lasts(result: Result, reason: BlockReason | None) -> None:
    picture = Picture()
    outcome = replace(next(outcomes(HOSTILE)), result=result, reason=reason)
    for phase in Phase:
        judged = Judged(KEY, Judgement(Verdict.LEFTOVER, 8, HOSTILE), phase, None, HOSTILE, 1.0)
        picture.decided(STAMP, judged)
        picture.observed(STAMP, outcome)
        assert is_clean(drawn(draw(picture, Heading("t", "/", enforce=False), "poll", 1.0)))


@few
@given(text=texts)
def test_no_control_character_reaches_a_table_or_a_message(text: str) -> None:
    layout = Layout()
    results = [shapes.outcome(next(outcomes(text)), layout)]
    for table in (rows.results(results), rows.plan(results)):
        assert is_clean(table.plain())
        assert is_clean(drawn(fitted(table)))
    told = status(text)
    assert is_clean(drawn(StatusView(told, text)))
    for table in status_text.tables(told):
        assert is_clean(table.plain())


def test_what_is_written_and_said_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.data(f"{HOSTILE}\n")
    output.say(HOSTILE)
    output.complain(HOSTILE)
    output.json(encode(status(WHOLE)))
    out, err = capsys.readouterr()
    assert is_clean(out)
    assert is_clean(err)
    assert "[red]x[/red][/]" in out, "what is no control character stays as it is"
    begin = out.index("{")
    assert json.loads(out[begin:])["brake"] == WHOLE, "JSON loses nothing"


@few
@given(text=texts)
def test_no_control_character_reaches_the_page(text: str) -> None:
    shown = page.render(status(text))
    assert is_clean(shown)
    assert "<b>&" not in shown.replace("&amp;", "&")
    checks = (Check(text, ok=False, detail=text),)
    assert is_clean(readiness(checks, verbose=True).body.decode())


def test_nothing_of_nothing_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the second look is waited for there is nothing to count: it said 0/0."""
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # pytest's has no descriptor
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    line = ProgressLine(console)
    line.decided(STAMP, Judged(KEY, Judgement(Verdict.LEFTOVER, 8, "dead"), Phase.WAITING, None))
    shown = drawn(line.bars)
    assert "waiting for the second look" in shown
    assert not re.search(r"\d+/", shown)
    line.decided(STAMP, Clean(KEY, WHO, claimed=False, attempt=1))
    assert "0/1" in drawn(line.bars)
