"""Globs that could never match, or are none, are refused; all others pass."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.model.ids import is_identifier
from reconciler.settings import globs
from reconciler.settings.load import load
from reconciler.settings.problems import SettingsError

KINDS = (globs.identifier, globs.name, globs.text)

EXPRESSIONS = {
    ".*": "*",
    "kube-.*": "kube-*",
    "web.+": "web*",
    "^kube-system$": "kube-system",
    "^kube-.*$": "kube-*",
    "^a": "a",
    "a$": "a",
    "(a|b)": "",
    "kube-(system|public)": "",
    r"web-\d": "web-d",
    r"k8s\.io": "k8s.io",
    "[0-9]+": "",
    "[a-z]{3}": "",
    "(ab)+": "",
}


@pytest.mark.safety
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("glob", EXPRESSIONS)
def test_a_regular_expression_is_refused(kind: Callable[[str], str], glob: str) -> None:
    with pytest.raises(ValueError, match="regular expression") as caught:
        kind(glob)
    meant = EXPRESSIONS[glob]
    if meant and "\\d" not in glob:
        assert f'"{meant}"' in str(caught.value)


GLOBS = ("*", "k8s.io", "kube-*", "web[.]*", "?", "[a-z]*", "[!k]*", "*-*", "a.b-c_d", "[a-z][0-9]")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("glob", [*GLOBS, "x" * 76, "*" * 200, "moby", "*[.]*"])
def test_a_glob_is_a_glob(kind: Callable[[str], str], glob: str) -> None:
    assert kind(glob) == glob


@pytest.mark.safety
@pytest.mark.parametrize(
    "glob",
    [
        *("kube-", "-kube", ".", "a..b", "a/b", "a b", "k8s,io", "k8s.io/web", "\u00e9*"),
        *("[", "[z-a]", "[!a-zA-Z0-9._-]", "a--*", "*-[._]-*", "?" * 77, "x" * 77),
    ],
)
def test_a_glob_that_no_name_of_containerds_matches_is_refused(glob: str) -> None:
    with pytest.raises(ValueError, match="can never match"):
        globs.identifier(glob)


@pytest.mark.safety
@pytest.mark.parametrize("glob", ["a b", "kube/system", "{a}*", "x" * 254, "default\n"])
def test_a_glob_that_no_name_of_kubernetes_matches_is_refused(glob: str) -> None:
    with pytest.raises(ValueError, match="can never match"):
        globs.name(glob)


@pytest.mark.parametrize("kind", [globs.identifier, globs.name])
def test_braces_are_no_choice(kind: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match="write one rule for each"):
        kind("kube-{system,public}")


def test_an_annotation_may_hold_anything() -> None:
    for value in ("a/b c", "{a,b}", "x" * 1000, "50%", "a+b", "\u00e9", "v1[.]*", "$5", "a|b"):
        assert globs.text(value) == value


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_matches_nothing(kind: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match="empty"):
        kind("")


pieces = st.sampled_from(
    [*"aZ9.-_*?", "[ab]", "[!a]", "[._-]", "[-]", "[!-z]", "[]", "[", "]", "/"]
)


@given(glob=st.lists(pieces, min_size=1, max_size=8).map("".join))
@example(glob="[]a]*")
@example(glob="[!]a]*")
def test_whether_a_glob_can_match_is_decided_exactly(glob: str) -> None:
    """It gives a name that does match; where it gives none no short name of few letters does."""
    found = globs.witness(glob)
    if found is not None:
        assert is_identifier(found)
        assert fnmatchcase(found, glob)


@given(
    glob=st.lists(pieces, min_size=1, max_size=5).map("".join),
    name=st.text("aZ9.-_", min_size=1, max_size=6),
)
def test_a_glob_that_matches_a_name_is_never_said_not_to(glob: str, name: str) -> None:
    if is_identifier(name) and fnmatchcase(name, glob):
        assert globs.witness(glob) is not None


def test_a_mark_at_the_beginning_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'\xef\xbb\xbfmode = "enforce"\n')
    assert load(str(path), environ={}).settings.mode.value == "enforce"


def test_text_in_two_bytes_a_letter_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('mode = "enforce"', encoding="utf-16")
    with pytest.raises(SettingsError, match="is UTF-16 text; save it as UTF-8"):
        load(str(path), environ={})
