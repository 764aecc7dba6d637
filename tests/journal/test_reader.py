"""Reading: a torn last line is a warning, everything else that is wrong is told with its line."""

import gzip
from pathlib import Path

import pytest

from reconciler.errors import ExitCode
from reconciler.journal.reader import BadJournalError, Journal, NoFileError
from reconciler.model.policy import Policies, Policy
from reconciler.testing.builder import JournalBuilder
from reconciler.testing.replayed import replay

ENFORCE = Policies(default=Policy(enforce=True, grace=60.0))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("journal") / "whole.jsonl"
    with JournalBuilder(path, ENFORCE) as node:
        node.start("default/web")
        node.start("default/db")
        node.crash("default/web")
        node.wait("5m")
    return path.read_bytes()


@pytest.mark.fault("journal truncated")
def test_cut_at_every_byte_it_replays_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    with JournalBuilder(path, ENFORCE) as node:
        node.start("default/web")
        node.crash("default/web")
        node.wait("5m")
    whole = path.read_bytes()
    header = whole.index(b"\n")
    ends = {place for place, byte in enumerate(whole) if byte == 0x0A}
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        if cut < header:
            with pytest.raises(BadJournalError, match="line 1"):
                replay(path)
            continue
        result = replay(path)
        assert result.differences == []
        at_an_end = cut in ends or cut - 1 in ends
        assert bool(result.warnings) is not at_an_end, f"cut at {cut}"


def test_damage_in_any_line_but_the_last_is_refused_with_its_number(
    whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.jsonl"
    lines = whole.splitlines(keepends=True)
    for number in range(len(lines) - 1):
        for damage in (b"\n", b"\0\0\0\n", lines[number][:-20] + b"\n", b"{}garbage\n", b"\xff\n"):
            damaged = [*lines[:number], damage, *lines[number + 1 :]]
            path.write_bytes(b"".join(damaged))
            with pytest.raises(BadJournalError, match=rf", line {number + 1}: "):
                replay(path)


def test_a_last_line_that_is_complete_and_wrong_is_damage(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(whole + b'{"t":"now"}\n')
    last = len(whole.splitlines()) + 1
    with pytest.raises(BadJournalError, match=f"line {last}"):
        replay(path)


@pytest.mark.parametrize("flip", range(0, 3000, 37))
def test_any_changed_byte_is_refused_or_replayed_and_never_a_traceback(
    whole: bytes, tmp_path: Path, flip: int
) -> None:
    path = tmp_path / "flipped.jsonl"
    place = flip % len(whole)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
    try:
        replay(path)
    except BadJournalError as error:
        refused = (error.code, "line" in str(error))
    else:
        refused = (ExitCode.BAD_JOURNAL, True)
    assert refused == (ExitCode.BAD_JOURNAL, True)


@pytest.mark.fault("journal of a newer version")
def test_a_newer_schema_is_refused_with_what_to_do(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "newer.jsonl"
    path.write_bytes(whole.replace(b'"schema":1', b'"schema":2', 1))
    with pytest.raises(BadJournalError, match=r"line 1: schema 2 is newer.*; read it with"):
        Journal(path, pytest.fail)


def test_another_boot_replays_all_the_same(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.jsonl"
    boot = whole.split(b'"boot":"')[1].split(b'"')[0]
    path.write_bytes(whole.replace(boot, b"00000000-0000-0000-0000-000000000000", 1))
    assert replay(path).differences == []


def test_a_part_of_another_run_is_not_joined(whole: bytes, tmp_path: Path) -> None:
    path, before = tmp_path / "run.jsonl", tmp_path / "run.jsonl.1"
    path.write_bytes(whole.replace(b'"part":0', b'"part":1', 1))
    before.write_bytes(whole.replace(b'"run":"', b'"run":"x', 1))
    journal = Journal(path, pytest.fail)
    assert journal.parts == [path]
    assert not journal.is_whole


def test_packed_journals_are_read_and_cut_short_ones_are_torn(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "packed.jsonl.gz"
    packed = gzip.compress(whole)
    path.write_bytes(packed)
    assert replay(path).warnings == []
    path.write_bytes(packed[: len(packed) // 2])
    assert len(replay(path).warnings) == 1
    path.write_bytes(packed[:200] + b"\0\0\0\0\0\0" + packed[206:])
    with pytest.raises(BadJournalError):
        replay(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 100, b"{}\n", b"hello\n", b"\x1f\x8b"])
def test_what_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(BadJournalError, match="line 1"):
        Journal(path, pytest.fail)


def test_a_file_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(NoFileError, match="gone"):
        Journal(tmp_path / "gone", pytest.fail)
    with pytest.raises(NoFileError):
        Journal(tmp_path, pytest.fail)
