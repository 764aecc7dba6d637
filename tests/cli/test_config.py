"""`config` finds rules that cannot work, and says which rule applies to a bundle that is there."""

import json
import os
from pathlib import Path

import pytest

from reconciler.cli.app import COMMANDS, app, run
from reconciler.cli.commands.config import config as config_group
from reconciler.demo.node import DemoNode
from reconciler.errors import ExitCode
from tests.cli.program import program, tree
from tests.support.schema import strict

RULES = """
[[rule]]
name = "pods"
match = { namespace = "*", pod = "no-such-*" }
protect = true

[[rule]]
name = "web"
match = { namespace = "DEMO", id = "w*" }
mode = "enforce"
grace = "1h"

[[rule]]
name = "the web too"
match = { namespace = "DEMO", id = "web" }

[[rule]]
name = "crashed"
match = { namespace = "DEMO-crashed", pod = "no-such-pod" }
protect = true
"""


@pytest.fixture
def config(demo: DemoNode, tmp_path: Path) -> str:
    path, rules = tmp_path / "config.toml", RULES.replace("DEMO", name(demo))
    path.write_text(f'[containerd]\nstate = "{os.fsdecode(demo.layout.state)}"\n{rules}')
    return str(path)


def name(demo: DemoNode) -> str:
    """Give the namespace of its bundles: demo, or another where there are two at a time."""
    return demo.fixtures[0].key.namespace


def test_a_file_may_be_named_without_an_option(demo: DemoNode, config: str) -> None:
    named = program(demo, "config", "check", config)
    assert named.returncode == 0, named.stderr
    assert config in named.stderr
    assert named.stderr == program(demo, "config", "check", "--config", config).stderr
    both = program(demo, "config", "check", config, "--config", "/other.toml")
    assert both.returncode == ExitCode.USAGE


def test_a_rule_that_never_applies_is_told(demo: DemoNode, config: str) -> None:
    told = program(demo, "config", "check", config).stderr
    assert 'rule."the web too": never applies: rule.web' in told


@pytest.mark.safety
def test_a_rule_that_would_protect_and_never_can_is_an_error(demo: DemoNode, config: str) -> None:
    path = Path(config)
    path.write_text(path.read_text().replace('id = "web" }', 'id = "web" }\nprotect = true'))
    for words in (("config", "check", config), ("scan", "--config", config, *tree(demo))):
        done = program(demo, *words)
        assert done.returncode == ExitCode.CONFIG
        assert 'rule."the web too": protects nothing' in done.stderr


def test_a_namespace_that_is_not_there_now_is_noted(demo: DemoNode, config: str) -> None:
    path = Path(config)
    path.write_text(path.read_text() + '[[rule]]\nname = "k8s"\nmatch = { namespace = "k8s-*" }\n')
    done = program(demo, "config", "check", config)
    assert done.returncode == 0
    (note,) = (line for line in done.stderr.splitlines() if line.startswith("note: "))
    assert note.startswith('note: rule.k8s: no namespace fits "k8s-*" now; there are demo')


def test_rules_that_are_too_dear_to_compare_are_noted(demo: DemoNode, config: str) -> None:
    path = Path(config)
    alike = "".join(
        f'[[rule]]\nname = "dear {n}"\nmatch = {{ id = "*a{"?" * (12 + n)}*b?" }}\n'
        for n in range(2)
    )
    path.write_text(path.read_text() + alike)
    done = program(demo, "config", "check", config)
    assert done.returncode == 0
    (note,) = (line for line in done.stderr.splitlines() if line.startswith("note: "))
    assert note.startswith("note: not every two rules could be compared")
    assert "note: " not in program(demo, "scan", "--config", config, *tree(demo)).stderr


@pytest.mark.parametrize(
    ("bundle", "rule", "why"),
    [
        ("/web", "web", 'id = "w*" } fits'),
        ("/we", "web", 'id = "w*" } fits'),
        ("/batch", "cleanup", "no rule fits"),
        ("-crashed/emptied", "pods", "may fit: config.json cannot be read"),
    ],
)
def test_it_is_said_which_rule_applies_and_why(
    demo: DemoNode, config: str, bundle: str, rule: str, why: str
) -> None:
    words = ("config", "test", name(demo) + bundle, "--config", config, *tree(demo)[:4])
    done = program(demo, *words)
    assert done.returncode == 0, done.stderr
    assert why in done.stdout
    assert ("[cleanup]" if rule == "cleanup" else f'"{rule}"') in done.stdout.splitlines()[0]
    said = json.loads(program(demo, *words, "-o", "json").stdout)
    assert not list(strict().iter_errors(said))
    assert (said["kind"], said["policy"]) == ("PolicyTest", rule)
    fits = [one.get("fits") for one in said["rules"]]
    expected = {"web": ["no", "yes", None, None], "cleanup": ["no"] * 4}
    assert fits == expected.get(rule, ["cannot be told", None, None, None])


def test_a_bundle_that_is_not_there_is_an_error(demo: DemoNode, config: str) -> None:
    words = ("config", "test", f"{name(demo)}/nobody", "--config", config, *tree(demo)[:4])
    done = program(demo, *words)
    assert done.returncode == 1
    assert "there is no bundle" in done.stderr


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("words", [[], ["config"]], ids=str)
def test_no_list_of_commands_is_cut(
    words: list[str],
    width: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(app, [*words, "--help"], "prog") == 0
    told = capsys.readouterr().out.partition("Commands:\n")[2]
    assert all(name in told for name in (config_group.commands if words else COMMANDS))
    assert not [line for line in told.splitlines() if line.endswith("...")]


TYPO = '[cleanup]\ngrce = "1h"\n'


def test_a_check_is_a_document_whatever_it_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    twice = '[[rule]]\nname = "a"\nmatch = {}\n' * 2
    texts = {TYPO + "mood = 1\n": 2, "not toml": 1, "": 0, twice: 1}
    for text, problems in texts.items():
        file.write_text(text)
        code = run(app, ["config", "check", "-o", "json", str(file)], "containerd-reconciler")
        out, err = capsys.readouterr()
        told = json.loads(out)
        assert not [*strict().iter_errors(told)]
        assert (told["kind"], err) == ("ConfigCheck", "")
        assert (told["ok"], len(told["problems"])) == (not problems, problems)
        assert code == (ExitCode.CONFIG if problems else ExitCode.DONE)
        assert {one["where"] for one in told["problems"]} <= {str(file)}


def test_what_is_shown_says_nothing_of_what_a_rule_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    words = ["config", "show", "--config", str(file)]
    file.write_text(RULES + '[[rule]]\nname = "all"\nmatch = {}\ngrace = "1h"\n')
    assert run(app, [*words, "-o", "json"], "containerd-reconciler") == ExitCode.DONE
    out = capsys.readouterr().out
    assert "null" not in out
    rules = {one["key"]: one["value"] for one in json.loads(out)["values"]}
    assert rules["rule.all"] == {"match": {}, "grace": "1h", "protect": False}
    assert rules["rule.pods"]["match"] == {"namespace": "*", "pod": "no-such-*"}
    assert run(app, words, "containerd-reconciler") == ExitCode.DONE
    assert 'rule.all = { match = {}, protect = false, grace = "1h" }' in capsys.readouterr().out


def test_a_daemon_tells_the_whole_path_of_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text(TYPO)
    monkeypatch.chdir(tmp_path)
    assert run(app, ["daemon", "--config", "config.toml"], "prog") == ExitCode.CONFIG
    assert f": {tmp_path}/config.toml: cleanup.grce: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *("config check", "config show", "config test web", "daemon", "run", "record /nowhere/a"),
        *("scan", "explain a/b", "clean", "clean --dry-run"),
    ],
)
def test_a_typing_error_is_one_line_with_file_key_and_the_nearest_name(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(TYPO)
    code = run(app, [*words.split(), "--config", str(file)], "containerd-reconciler")
    assert (code, capsys.readouterr()) == (
        ExitCode.CONFIG,
        ("", f'containerd-reconciler: {file}: cleanup.grce: unknown key; did you mean "grace"?\n'),
    )
