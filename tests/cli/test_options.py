"""Options: before or after the command, what is said last wins, durations as Go writes them."""

from pathlib import Path

import click
import pytest
from typing_extensions import override

from reconciler.cli.app import COMMANDS, App, app, run
from reconciler.cli.globals import NAMES, Form, Globals
from reconciler.cli.option_types import bundle_key
from reconciler.cli.options import Command, global_options
from reconciler.cli.setup import Changes, make_setup
from reconciler.errors import ConfigError, UsageError
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout


class Probe:
    """An app with one command that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[Globals] = []

        @click.command(cls=Command)
        @click.pass_obj
        def probe(said: Globals) -> None:
            self.said.append(said)

        class ProbeApp(App):
            @override
            def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
                return probe

        self.app = ProbeApp(params=global_options())

    def __call__(self, *args: str) -> Globals:
        assert run(self.app, args, "prog") == 0
        return self.said.pop()


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--state", "/s"], Globals(state="/s")),
        (["--root=/r"], Globals(root="/r")),
        (["--address", "/a"], Globals(address="/a")),
        (["--config", "c"], Globals(config="c")),
        (["-n", "a", "--namespace", "b"], Globals(namespace=("a", "b"))),
        (["-o", "json"], Globals(output="json")),
        (["-q"], Globals(quiet=True)),
        (["-vv"], Globals(verbose=2)),
    ],
)
def test_an_option_means_the_same_before_and_after_the_command(
    probe: Probe, options: list[str], said: Globals
) -> None:
    assert probe(*options, "probe") == said
    assert probe("probe", *options) == said


def test_what_is_said_last_wins_and_the_rest_stays(probe: Probe) -> None:
    assert probe("--state", "/a", "-o", "wide", "probe", "--state", "/b") == Globals(
        state="/b", output="wide"
    )


def test_a_second_command_remembers_nothing_of_the_first(probe: Probe) -> None:
    assert probe("-q", "probe").quiet
    assert not probe("probe").quiet


def test_every_global_option_has_a_place() -> None:
    names = {option.name for option in global_options()} - {"version"}
    assert names == NAMES


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_the_global_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, [command, "--help"], "prog") == 0
    text = capsys.readouterr().out
    assert run(app, [command, "-h"], "prog") == 0
    assert capsys.readouterr().out == text
    for option in ("--config", "--state", "--root", "--address", "--namespace", "--output"):
        assert option in text


@pytest.mark.parametrize("command", [["scan"], ["config", "check"], []])
def test_help_says_what_the_option_says(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, [*command, "--help"], "prog") == 0
    text = capsys.readouterr().out
    assert run(app, ["help", *command], "prog") == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("args", [["--version"], ["scan", "--version"], ["version"]])
def test_the_version_is_one_line(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, args, "containerd-reconciler") == 0
    assert capsys.readouterr().out == "containerd-reconciler 0.1.0\n"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["scna"], "no such command 'scna'"),
        (["help", "nope"], "no such command 'nope'"),
        (["help", "scan", "x"], "no such command 'x'"),
        (["scan", "--nope"], "no such option '--nope'"),
        (["scan", "-o", "xml"], "'xml' is not one of 'table', 'wide', 'json', 'name'"),
        (["clean", "--grace", "soon"], "soon"),
        (["clean", "--grace", "-5s"], "-5s"),
        (["explain"], "missing argument"),
        (["explain", "a/b/c"], "'a/b/c' is neither NAMESPACE/ID nor ID"),
        (["explain", "ns/"], "'ns/' is neither NAMESPACE/ID nor ID"),
        (["scan", "/id"], "'/id' is neither NAMESPACE/ID nor ID"),
        (["clean", ""], "'' is neither NAMESPACE/ID nor ID"),
        (["scan", "--verdict", "leftovr"], "did you mean 'leftover'?"),
        (["scan", "--phase", "due,x"], "'x' is none; use some of waiting"),
        (["scan", "--sort-by", "colour"], "'colour' is not one of 'age', 'size', 'id'"),
        (["scan", "-l", "a b"], "'a b' is no selector; write it like key=value"),
        (["clean", "-l", "a=b,"], "'' is no selector"),
        (["scan", "-w", "-o", "json"], "--watch and -o json do not go together"),
        (["scan", "-w", "-o", "journal"], "-o journal is of one look at everything"),
        (["scan", "-o", "journal", "ns/a"], "-o journal is of one look at everything"),
        (["run", "--backend", "magic"], "'magic' is not one of"),
        (["scan", "--state", ""], "--state: is empty"),
    ],
)
def test_a_mistyped_command_line_is_one_line_and_2(
    args: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, args, "containerd-reconciler") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("containerd-reconciler: ")
    assert line in err


def test_defaults_are_containerds() -> None:
    setup = make_setup(Globals(), environ={})
    assert setup.layout == Layout()
    assert not setup.policies.default.enforce
    assert (setup.backend, setup.relist, setup.without_containerd, setup.allow_disk) == (
        "auto",
        300.0,
        False,
        False,
    )


def test_the_environment_names_the_socket_unless_an_option_does() -> None:
    environ = {"CONTAINERD_ADDRESS": "unix:///run/k3s/containerd/containerd.sock"}
    setup = make_setup(Globals(), environ=environ)
    assert setup.layout.address == b"/run/k3s/containerd/containerd.sock"
    setup = make_setup(Globals(address="/x.sock"), environ=environ)
    assert setup.layout.address == b"/x.sock"


def test_another_state_directory_brings_its_own_socket() -> None:
    setup = make_setup(Globals(state="/run/k3s/containerd/"), environ={})
    assert setup.layout.state == b"/run/k3s/containerd"
    assert setup.layout.address == b"/run/k3s/containerd/containerd.sock"


def test_a_path_may_be_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    setup = make_setup(Globals(state="run/containerd"), environ={})
    assert setup.layout.state == bytes(tmp_path / "run/containerd")


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[cleanup]\ngrace = "1m"\nthreshold = "1m"\nsettle = "1m"\n')
    environ = {
        "CONTAINERD_RECONCILER_CLEANUP_GRACE": "2m",
        "CONTAINERD_RECONCILER_CLEANUP_THRESHOLD": "2m",
    }
    setup = make_setup(Globals(config=str(file)), Changes(grace="3m"), environ=environ)
    default = setup.policies.default
    assert (default.grace, default.threshold, setup.policies.settle) == (180.0, 120.0, 60.0)


def test_changes_reach_the_policies() -> None:
    changes = Changes(
        enforce=True, grace="1s", threshold="2s", settle="3s", backend="poll", once=True
    )
    setup = make_setup(Globals(namespace=("a",)), changes, without_containerd=True, environ={})
    policies = setup.policies
    assert (policies.default.enforce, policies.default.grace) == (True, 1.0)
    assert (policies.default.threshold, policies.settle) == (2.0, 3.0)
    assert policies.brakes.max_per_minute is None
    assert (setup.backend, setup.without_containerd, setup.namespaces) == (
        "poll",
        True,
        frozenset({"a"}),
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("state", Globals(state="")),
        ("root", Globals(root="")),
        ("address", Globals(address="")),
    ],
)
def test_an_empty_path_is_refused(option: str, said: Globals) -> None:
    with pytest.raises(UsageError, match=f"--{option}"):
        make_setup(said, environ={})


def test_a_broken_file_is_a_configuration_error(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[cleanup]\ngarce = '1m'\n")
    with pytest.raises(ConfigError) as caught:
        make_setup(Globals(config=str(file)), environ={})
    assert str(file) in str(caught.value)
    assert "grace" in str(caught.value)
    assert caught.value.code == 78


@pytest.mark.parametrize(
    ("text", "namespaces", "found"),
    [
        ("ns/id", (), BundleKey("ns", "id")),
        ("id", ("ns",), BundleKey("ns", "id")),
        ("ns/a\\xff\\x0a", (), BundleKey("ns", "a\\xff\\x0a")),
        ("ns/a\\b\n", (), BundleKey("ns", "a\\x5cb\\x0a")),
    ],
)
def test_a_bundle_is_named_as_it_is_shown(
    text: str, namespaces: tuple[str, ...], found: BundleKey
) -> None:
    assert bundle_key(text, namespaces) == found


@pytest.mark.parametrize("text", ["id", "/id", "ns/", "a/b/c", ""])
def test_what_is_no_name_of_a_bundle_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        bundle_key(text, ())


def test_the_default_form_is_a_table() -> None:
    assert Globals().form is Form.TABLE
