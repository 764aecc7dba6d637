"""Levels as journald reads them, and only where journald reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.app import run
from reconciler.cli.display import make_log
from reconciler.cli.output import Output
from reconciler.present.records import Level
from reconciler.settings.schema import Log, LogFormat, LogLevel
from reconciler.telemetry import logs, sink
from reconciler.telemetry.logs import make_logger, stderr_sink
from tests.telemetry.test_logs import Lines

LEVELS = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}


def name_of(descriptor: int) -> str:
    there = os.fstat(descriptor)
    return f"{there.st_dev}:{there.st_ino}"


def test_the_journal_is_known_by_device_and_inode() -> None:
    reader, writer = os.pipe()
    try:
        mine = name_of(writer)
        assert sink.is_journal(writer, {"JOURNAL_STREAM": mine})
        assert not sink.is_journal(writer, {}), "no service manager"
        assert not sink.is_journal(writer, {"JOURNAL_STREAM": ""})
        assert not sink.is_journal(writer, {"JOURNAL_STREAM": f"{mine}0"}), "redirected"
        assert not sink.is_journal(writer, {"JOURNAL_STREAM": "nonsense"})
    finally:
        os.close(reader)
        os.close(writer)
    assert not sink.is_journal(writer, {"JOURNAL_STREAM": mine}), "closed"


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("as_json", [True, False])
def test_each_level_has_its_prefix(level: Level, as_json: bool) -> None:
    for prefixed in (True, False):
        lines = Lines()
        logger = make_logger(as_json=as_json, level=10, sink=lines, prefixed=prefixed)
        logger.log(level.number, "x")
        (line,) = lines.lines
        assert line.startswith(LEVELS[level.value]) == prefixed
        assert line.startswith("<") == prefixed


def test_lines_that_were_dropped_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    try:
        monkeypatch.setenv("JOURNAL_STREAM", name_of(writer))
        sink = stderr_sink(writer)
        for _ in range(100):
            sink.write("x" * 3000)
        while os.read(reader, 65536).endswith(b"x"):
            pass
        sink.write("after")
        assert b"<4>{" in os.read(reader, 65536)
    finally:
        os.close(reader)
        os.close(writer)


def test_what_a_command_complains_of_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reconciler.cli.app import app

    monkeypatch.setenv("JOURNAL_STREAM", name_of(2))
    output = Output()
    output.complain("bad")
    output.say("good")
    assert capsys.readouterr().err == "<3>containerd-reconciler: bad\n<6>good\n"
    assert run(app, ["nonsense"], "containerd-reconciler") == 2
    assert capsys.readouterr().err.startswith("<3>containerd-reconciler: ")
    monkeypatch.delenv("JOURNAL_STREAM")
    output.complain("bad")
    assert capsys.readouterr().err == "containerd-reconciler: bad\n"


FORMATS = [
    (LogFormat.AUTO, True),  # no terminal here
    (LogFormat.JSON, True),
    (LogFormat.CONSOLE, False),
]


@pytest.mark.parametrize(("form", "as_json"), FORMATS)
def test_the_format_is_the_one_that_was_said(
    monkeypatch: pytest.MonkeyPatch, form: LogFormat, as_json: bool
) -> None:
    lines = Lines()
    monkeypatch.setattr(logs, "stderr_sink", lambda: lines)
    make_log(Output(), 0, Log(format=form)).error("x")
    (line,) = lines.lines
    assert line.startswith("{") == as_json


@pytest.mark.parametrize(
    ("quiet", "verbose", "level", "least"),
    [
        (False, 0, None, "info"),
        (False, 0, LogLevel.WARNING, "warning"),
        (False, 0, LogLevel.DEBUG, "debug"),
        (False, 1, LogLevel.ERROR, "debug"),
        (True, 0, LogLevel.DEBUG, "error"),
        (True, 1, None, "error"),
    ],
)
def test_the_command_line_wins_and_quiet_means_errors_alone(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, verbose: int, level: LogLevel | None, least: str
) -> None:
    lines = Lines()
    monkeypatch.setattr(logs, "stderr_sink", lambda: lines)
    log = make_log(Output(quiet=quiet), verbose, None if level is None else Log(level=level))
    for one in Level:
        log.log(one.number, one.value)
    assert lines.records[0]["event"] == least


def test_a_run_logs_as_the_file_says(tmp_path: Path) -> None:
    """Every command that logs: it was the daemon's alone."""
    config = tmp_path / "config.toml"
    (tmp_path / "state" / "io.containerd.runtime.v2.task").mkdir(parents=True)
    said = f'[containerd]\nstate = "{tmp_path}/state"\n[log]\nformat = "console"\nlevel = "debug"\n'
    config.write_text(said)
    words = ("run", "--once", "--without-containerd", "--config", str(config))
    with (tmp_path / "err").open("wb") as err:
        done = subprocess.run(
            [sys.executable, "-m", "reconciler", *words],
            stderr=err,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "JOURNAL_STREAM": name_of(err.fileno())},
            timeout=60,
            check=False,
        )
    lines = (tmp_path / "err").read_text().splitlines()
    assert done.returncode == 0, lines
    assert any("tree.listed" in line for line in lines), lines
    assert all(line.startswith(("<7>", "<6>", "<4>")) and '{"' not in line[:5] for line in lines)
