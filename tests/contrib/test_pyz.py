"""The single file's first step: it unpacks only where nobody else can change what is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FIRST = Path(__file__).resolve().parents[2] / "contrib" / "pyz" / "__main__.py"
OTHER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """The step as it is built, before a bootstrap that tells what it was given."""
    directory = tmp_path / "packed"
    directory.mkdir()
    text = FIRST.read_text()
    assert text.count("PYTHON = (0, 0)") == 1
    built = text.replace("PYTHON = (0, 0)", f"PYTHON = {sys.version_info[:2]}")
    (directory / "__main__.py").write_text(built)
    (directory / "_bootstrap.py").write_text(
        "import os\n"
        "def bootstrap(): print(*(f'{n}={v}' for n, v in os.environ.items() if 'SHIV' in n))\n"
    )
    return directory


def start(packed: Path, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-I", packed],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_a_place_of_our_own_is_made_and_said_once(packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache" / "own"
    code, out, err = start(packed, SHIV_ROOT=str(place), SHIV_ENTRY_POINT="os:abort")
    assert (code, out) == (0, f"SHIV_ROOT={place}")
    assert err.endswith(f"unpacking into {place}, once; it may be removed at any time")
    assert place.stat().st_mode & 0o777 == 0o700
    assert start(packed, SHIV_ROOT=str(place)) == (0, f"SHIV_ROOT={place}", "")


def test_it_is_neither_in_a_home_that_somebody_names_nor_where_nothing_may_be_executed() -> None:
    """Root's own place is asked for in a fresh Debian (tests/packages); here it is only read."""
    text = FIRST.read_text()
    assert 'SYSTEM = "/var/cache/" + NAME' in text
    (body,) = re.findall(r"(?s)def default\(\):(.*?)\n\n\n", text)
    assert body.index("geteuid() == 0") < body.index("environ")


@needs_root
@pytest.mark.safety
def test_a_directory_of_somebody_else_is_refused(packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "theirs" / "place"
    place.mkdir(parents=True)
    os.chown(place, OTHER, OTHER)
    code, out, err = start(packed, SHIV_ROOT=str(place))
    assert (code, out) == (77, "")
    assert f"{place} belongs to user {OTHER}, who could change what is run" in err
    os.chown(place, 0, 0)
    os.chown(place.parent, OTHER, OTHER)
    assert start(packed, SHIV_ROOT=str(place))[0] == 77, "who has the parent can replace it"


@pytest.mark.safety
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(
    packed: Path, tmp_path: Path, mode: int
) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(mode)
    code, out, err = start(packed, SHIV_ROOT=str(place))
    assert (code, out) == (77, "")
    assert f"others may write to {place}" in err


@pytest.mark.safety
def test_below_one_that_others_may_write_to_it_is_refused_too(packed: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "place").mkdir(parents=True, mode=0o700)
    shared.chmod(0o777)
    assert start(packed, SHIV_ROOT=str(shared / "place"))[0] == 77
    shared.chmod(0o1777)  # nobody can take away what is not his
    assert start(packed, SHIV_ROOT=str(shared / "place"))[0] == 0


@needs_root
@pytest.mark.safety
def test_a_symlink_does_not_hide_where_it_leads(packed: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, OTHER, OTHER)
    link = tmp_path / "link"
    link.symlink_to(theirs)
    assert start(packed, SHIV_ROOT=str(link))[0] == 77
    assert start(packed, SHIV_ROOT=str(link / "new"))[0] == 77


def test_another_python_is_told_which_one_is_needed(packed: Path) -> None:
    first = packed / "__main__.py"
    first.write_text(re.sub(r"PYTHON = .*", "PYTHON = (3, 2)", first.read_text()))
    code, out, err = start(packed)
    assert (code, out) == (1, "")
    assert "this file is for Python 3.2, and this is " in err
    assert err.endswith("run it by python3.2")


def test_a_place_that_cannot_be_made_is_named(packed: Path) -> None:
    code, _, err = start(packed, SHIV_ROOT="/proc/nowhere")
    assert code == 77
    assert "/proc/nowhere cannot be made" in err
    assert err.endswith("name another directory by SHIV_ROOT")
