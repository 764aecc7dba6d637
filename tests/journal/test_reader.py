"""Reading: a damaged line costs that line, and is told; without a header nothing is read."""

import gzip
import json
from pathlib import Path

import pytest

from reconciler.errors import ExitCode
from reconciler.journal import reader
from reconciler.journal.lines import Lost
from reconciler.journal.reader import BadJournalError, Journal, NoFileError
from reconciler.journal.replay import Repeater
from reconciler.model.policy import Policies, Policy
from reconciler.testing.journals import JournalBuilder, replay

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


DAMAGE = (b"\n", b"\0\0\0\n", b"{}garbage\n", b"\xff\n", b'{"mono":"now","wall":0}\n')


def test_a_damaged_line_costs_that_line_and_is_told_with_its_number(
    whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(whole)
    lines = whole.splitlines(keepends=True)
    items = list(Journal(path, pytest.fail).items())
    fulls = {number for number, line in enumerate(lines) if b'"full":' in line}
    for number in range(1, len(lines)):
        for damage in (*DAMAGE, lines[number][:-20] + b"\n"):
            path.write_bytes(b"".join([*lines[:number], damage, *lines[number + 1 :]]))
            warnings: list[str] = []
            read = list(Journal(path, warnings.append).items())
            assert warnings[0].startswith(f"{path}, line {number + 1}: damaged and left out: ")
            assert read[number] == Lost(1, "a damaged line")
            others = [place for place in range(len(lines)) if place != number]
            if number not in fulls:
                assert len(warnings) == 1
                assert [read[place] for place in others] == [items[place] for place in others]
            assert len(warnings) == sum(isinstance(one, Lost) for one in read)


def test_what_follows_a_damaged_line_is_played_and_not_compared(
    whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.jsonl"
    lines = whole.splitlines(keepends=True)
    at = next(place for place, line in enumerate(lines) if b'"kind":"looked"' in line)
    path.write_bytes(b"".join([*lines[:at], b"oops\n", *lines[at + 1 :]]))
    turns = list(Repeater().play(Journal(path, lambda _: None).items()))
    assert len(turns) == len(lines) - 2
    assert [turn.comparable for turn in turns] == [place < at for place in others(lines, at)]


def others(lines: list[bytes], at: int) -> list[int]:
    return [place for place in range(1, len(lines)) if place != at]


def _is_full_node(line: dict[str, object]) -> bool:
    """Whether it is what a node said, whole; inventories are numbered on their own."""
    seen = line.get("seen")
    return "full" in line and isinstance(seen, dict) and seen["kind"] == "node"


def test_a_difference_whose_full_one_is_lost_is_lost_with_it(tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    with JournalBuilder(path, ENFORCE) as node:
        for number in range(20):
            node.start(f"default/b{number}")
        node.wait("1h")
    lines = path.read_bytes().splitlines(keepends=True)
    said = [json.loads(line) for line in lines]
    fulls = {one["full"]: n for n, one in enumerate(said) if _is_full_node(one)}
    full, at = max(fulls.items())
    leans = [n for n, one in enumerate(said) if one.get("difference", {}).get("full") == full]
    assert len(leans) > 3
    path.write_bytes(b"".join([*lines[:at], b"oops\n", *lines[at + 1 :]]))
    warnings: list[str] = []
    read = list(Journal(path, warnings.append).items())
    assert [place for place, one in enumerate(read) if isinstance(one, Lost)] == [at, *leans]
    assert all("a difference to a line that was lost" in text for text in warnings[1:])


def test_a_line_without_an_end_is_damage_and_memory_stays_bounded(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_LINE", 10_000)
    path = tmp_path / "damaged.jsonl"
    header, rest = whole.split(b"\n", 1)
    for end, lost, left in ((b"\n" + rest, 1, rest.count(b"\n")), (b"", 0, 0)):
        path.write_bytes(header + b"\n" + b"x" * 123_456 + end)
        warnings: list[str] = []
        read = list(Journal(path, warnings.append).items())
        assert len(warnings) == 1
        assert sum(one.count for one in read if isinstance(one, Lost)) == lost
        assert len(read) == 1 + lost + left


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


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        pytest.param(b"3", "newer", marks=pytest.mark.fault("journal of a newer version")),
        (b"1", "older"),
    ],
)
def test_another_schema_is_refused_with_what_to_do(
    whole: bytes, tmp_path: Path, schema: bytes, why: str
) -> None:
    path = tmp_path / "other.jsonl"
    path.write_bytes(whole.replace(b'"schema":2', b'"schema":' + schema, 1))
    with pytest.raises(
        BadJournalError, match=rf"line 1: .* is {why}.*; read it with the version that wrote it"
    ):
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
