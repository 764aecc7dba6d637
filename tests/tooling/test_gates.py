"""Each gate fires when it is broken on purpose, with the project's own settings."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

BANNED = {
    "import os\n\n\ndef end(pid: int) -> None:\n    os.kill(pid, 9)\n": "os.kill",
    "import os\n\n\ndef end(group: int) -> None:\n    os.killpg(group, 9)\n": "os.killpg",
    "from os import kill\n\n__all__ = ['kill']\n": "os.kill",
    "import os\n\n\ndef drop(path: str) -> None:\n    os.removedirs(path)\n": "os.removedirs",
    "import shutil\n\n\ndef drop(path: str) -> None:\n    shutil.rmtree(path)\n": "shutil.rmtree",
    "import time\n\n\ndef now() -> float:\n    return time.monotonic()\n": "time",
    "from time import sleep\n\n__all__ = ['sleep']\n": "time",
    "import asyncio\n\n\nasync def rest() -> None:\n    await asyncio.sleep(1)\n": "asyncio",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty package, and no test yet, under the project's own settings."""
    (tmp_path / "pyproject.toml").write_bytes((TOP / "pyproject.toml").read_bytes())
    for package in ("", "model", "decide", "present", "watch", "worker"):
        write(tmp_path, f"reconciler/{package}/__init__.py".replace("//", "/"), '"""A part."""\n')
    write(tmp_path, "reconciler/ports.py", '"""A part."""\n')
    write(tmp_path, "tests/__init__.py", "")
    return tmp_path


def write(project: Path, name: str, text: str) -> None:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(project: Path, tool: str, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [BIN / tool, *options],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(project), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def ruff(project: Path) -> tuple[int, str]:
    return run(project, "ruff", "check", "--no-cache", "--output-format", "concise")


def imports(project: Path, contract: str) -> tuple[int, str]:
    return run(project, "lint-imports", "--no-cache", "--contract", contract)


def test_a_clean_project_passes_every_gate(project: Path) -> None:
    for tool, *options in (
        ("ruff", "check", "--no-cache"),
        ("ruff", "format", "--check", "--no-cache"),
        ("mypy", "--cache-dir=/dev/null"),
        ("lint-imports", "--no-cache"),
    ):
        code, said = run(project, tool, *options)
        assert code == 0, said


def test_a_banned_call_is_refused_with_a_sentence(project: Path) -> None:
    for number, source in enumerate(BANNED):
        write(project, f"reconciler/worker/bad{number}.py", f'"""Bad."""\n\n{source}')
    code, said = ruff(project)
    assert code == 1
    with (TOP / "pyproject.toml").open("rb") as file:
        tidy = tomllib.load(file)["tool"]["ruff"]["lint"]["flake8-tidy-imports"]
    for number, name in enumerate(BANNED.values()):
        lines = [line for line in said.splitlines() if f"/bad{number}.py:" in line]
        (line,) = (line for line in lines if f"TID251 `{name}` is banned: " in line)
        assert tidy["banned-api"][name]["msg"] in line


def test_only_the_clock_reads_a_clock(project: Path) -> None:
    source = (
        '"""Reads time."""\n\nimport time\n\n\n'
        'def now() -> float:\n    """Say the time."""\n    return time.monotonic()\n'
    )
    write(project, "reconciler/clock.py", source)
    assert ruff(project) == (0, "All checks passed!\n")
    write(project, "reconciler/watch/bad.py", source)
    assert ruff(project)[0] == 1


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ('"""Bad."""\n\ntry:\n    int("1")\nexcept Exception:\n    pass\n', "BLE001"),
        ('"""Bad."""\n\nprint("x")\n', "T201"),
        ("x = 1\n", "D100"),
        ('"""Bad."""\n\nfrom . import model\n\n__all__ = ["model"]\n', "TID252"),
    ],
    ids=["catch-all", "print", "no-docstring", "relative-import"],
)
def test_a_broken_house_rule_is_refused(project: Path, source: str, rule: str) -> None:
    write(project, "reconciler/bad.py", source)
    code, said = ruff(project)
    assert code == 1
    assert rule in said


FORBIDDEN = {
    "layers": (
        ("watch/bad.py", "import reconciler.worker", "reconciler.worker"),
        ("model/bad.py", "import reconciler.decide", "reconciler.decide"),
        ("ports.py", "import reconciler.watch", "reconciler.watch"),
    ),
    "pure-core": (
        ("model/bad.py", "import os", "os"),
        ("decide/bad.py", "import time", "time"),
        ("ports.py", "import anyio", "anyio"),
    ),
    "pure-present": (
        ("present/bad.py", "import time", "time"),
        ("present/worse.py", "from rich.table import Table", "rich"),
    ),
    "core-without-kernel": (
        ("model/bad.py", "import reconciler.kernel", "reconciler.kernel"),
        ("present/bad.py", "import reconciler.ports", "reconciler.ports"),
        ("decide/bad.py", "from reconciler import clock", "reconciler.clock"),
    ),
    "one-home": (
        ("worker/one.py", "import ctypes", "ctypes"),
        ("worker/two.py", "import inotify_simple", "inotify_simple"),
        ("worker/three.py", "from google.protobuf import message", "google"),
        ("worker/four.py", "import grpclib.client", "grpclib"),
        ("worker/five.py", "import watchfiles", "watchfiles"),
        ("worker/six.py", "from rich.console import Console", "rich"),
        ("worker/seven.py", "import click", "click"),
        ("worker/eight.py", "import h11", "h11"),
        ("watch/one.py", "import prometheus_client", "prometheus_client"),
        ("watch/two.py", "import tomli", "tomli"),
    ),
}
"""Modules that each contract refuses, and what they import; one run for all takes a second."""


@pytest.fixture
def whole(project: Path) -> Path:
    """A project with every module that a contract names, and nothing forbidden."""
    write(project, "reconciler/kernel.py", "")
    write(project, "reconciler/clock.py", "")
    code, said = run(project, "lint-imports", "--no-cache")
    assert code == 0, said
    return project


@pytest.mark.parametrize(("contract", "bad"), FORBIDDEN.items(), ids=FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(
    whole: Path, contract: str, bad: tuple[tuple[str, str, str], ...]
) -> None:
    for module, source, _ in bad:
        write(whole, f"reconciler/{module}", source + "\n")
    code, said = imports(whole, contract)
    assert code == 1
    assert "0 kept, 1 broken" in said, said
    for module, _, imported in bad:
        name = module.removesuffix(".py").replace("/", ".")
        assert f"reconciler.{name} -> {imported} (l.1)" in said, said


def test_a_module_in_no_layer_breaks_the_contract(whole: Path) -> None:
    write(whole, "reconciler/stray.py", "\n")
    code, said = imports(whole, "layers")
    assert code == 1
    assert "not listed" in said.lower(), said


def test_a_library_is_welcome_in_its_home(project: Path) -> None:
    homes = {
        "watch/inotify.py": "import inotify_simple",
        "watch/files/a.py": "import watchfiles",
        "kernel.py": "import ctypes",
        "settings/load.py": "import tomli",
        "telemetry/metrics.py": "import prometheus_client",
        "cli/live.py": "import click, rich",
        "containerd/wire/tasks_grpc.py": "import grpclib, google.protobuf",
        "daemon.py": "import watchfiles",
    }
    for name, source in homes.items():
        write(project, f"reconciler/{name}", source + "\n")
        for parent in (project / "reconciler" / name).relative_to(project).parents:
            if parent != Path():
                (project / parent / "__init__.py").touch()
    code, said = imports(project, "one-home")
    assert code == 0, said


HOLES = {
    "untyped": ("def f(x):\n    return x\n", "no-untyped-def"),
    "any": ("from typing import Any\n\n\ndef f(x: Any) -> None:\n    del x\n", "explicit-any"),
    "missing_case": (
        "from enum import Enum\n\n\nclass V(Enum):\n    A = 1\n    B = 2\n\n\n"
        "def f(v: V) -> None:\n    match v:\n        case V.A:\n            pass\n",
        "exhaustive-match",
    ),
}


def mypy(project: Path) -> tuple[int, dict[str, list[str]]]:
    """Give the exit code, and what is said of each file. A run takes seconds, so one is for all."""
    code, said = run(project, "mypy", "--cache-dir=/dev/null")
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        found.setdefault(line.partition(":")[0], []).append(line)
    return code, found


def test_a_type_hole_is_refused(project: Path) -> None:
    holes = {
        place.format(name): hole
        for name, hole in HOLES.items()
        for place in ("reconciler/bad_{}.py", "tests/test_bad_{}.py")
    }
    for place, (source, _) in holes.items():
        write(project, place, source)
    code, said = mypy(project)
    assert code == 1
    for place, (_, error) in holes.items():
        assert [line for line in said.get(place, []) if f"[{error}]" in line], place


PORT = """
from typing import Protocol


class Guards(Protocol):
    async def check(self) -> tuple[str, ...]: ...
"""
DOUBLE = """
from reconciler.ports import Guards


class FakeGuards:
    async def check(self) -> tuple[str, ...]:
        return ()


def test_nothing() -> None:
    guards: Guards = FakeGuards()
    del guards
"""


DRIFTED = {
    "asks_for_more": DOUBLE.replace("def check(self)", "def check(self, what: str)"),
    "does_not_wait": DOUBLE.replace("async def", "def"),
    "gives_something_else": DOUBLE.replace("-> tuple[str, ...]", "-> tuple[int, ...]"),
    "lacks_it": DOUBLE.replace("check", "look"),
}


def test_a_double_that_has_drifted_from_its_port_is_refused(project: Path) -> None:
    write(project, "reconciler/ports.py", f'"""A part."""\n{PORT}')
    write(project, "tests/test_double.py", DOUBLE)
    for name, drifted in DRIFTED.items():
        write(project, f"tests/test_{name}.py", drifted)
    code, said = mypy(project)
    assert code == 1
    assert "tests/test_double.py" not in said
    for name in DRIFTED:
        lines = said.get(f"tests/test_{name}.py", [])
        assert [line for line in lines if 'has type "Guards"' in line], name
