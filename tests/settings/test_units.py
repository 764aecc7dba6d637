"""Durations and sizes mean what Go and people mean by them."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.settings.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("10s", 10),
        ("1h30m", 5400),
        ("168h", 604800),
        ("7d", 604800),
        ("1d12h", 129600),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("300ms", 0.3),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        (" 5m ", 300),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "-5s", "+5s", "5x", "5 s", "1h 30m", "1e3s", "5S", "inf", "nan", "5s\n5", "٣s"],
)
def test_what_is_no_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("10GB", 10 * 1000**3),
        ("10gb", 10 * 1000**3),
        ("512MiB", 512 * 1024**2),
        ("1.5KiB", 1536),
        ("1 TB", 1000**4),
        ("3B", 3),
    ],
)
def test_a_size_is_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "10XB", "10 G B", "1e3", "nan", "10GBs"])
def test_what_is_no_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write it like"):
        parse_size(text)


@given(st.text(max_size=200))
@pytest.mark.parametrize("parse", [parse_duration, parse_size])
def test_any_text_is_a_value_or_a_short_complaint(parse: Callable[[str], float], text: str) -> None:
    complaint = ""
    try:
        assert parse(text) >= 0
    except ValueError as error:
        complaint = str(error)
    assert len(complaint) < 1000
    assert complaint.isprintable()


_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PREFIXES = {"B": 1, "kB": 1000, "KiB": 1024, "MB": 1000**2, "GiB": 1024**3, "TB": 1000**4}


@given(
    st.lists(st.tuples(st.integers(0, 999_999), st.sampled_from([*_UNITS])), min_size=1, max_size=6)
)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    expected = sum(number * _UNITS[unit] for number, unit in parts)
    assert parse_duration(text) == pytest.approx(expected)


@given(st.integers(0, 1 << 70), st.sampled_from([*_PREFIXES]))
def test_a_size_is_exact(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * _PREFIXES[unit]


def test_a_long_text_costs_nothing() -> None:
    with pytest.raises(ValueError, match="write it like"):
        parse_duration("1h" * 1_000_000)
