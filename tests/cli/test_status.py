"""`status` without a daemon: what is typed, whom it means, and what is said of the answer."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.cli import daemon_client
from reconciler.cli.app import app, run
from reconciler.errors import ExitCode
from reconciler.model.decisions import Phase
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.model.observations import Guard, GuardsChecked, Refusal
from reconciler.present import status_text
from reconciler.present.beliefs import Asked, Belief, Beliefs, Reply
from reconciler.present.status import gather
from tests.present.test_page import about, busy_world


@dataclass
class FakeDaemon:
    """One whose tree holds two pods that began alike; it tells of one that went a moment ago."""

    state: Path
    asked: list[BundleKey] = field(default_factory=list)
    reply: Reply = field(default_factory=lambda: Reply(17))

    def beliefs(self) -> Beliefs:
        gone = Belief("old", "9f00", "leftover", Phase.DUE, "", "default", enforce=True)
        return Beliefs("1", "enforce", 17, str(self.state), "", [gone], [])

    def clean(self, keys: list[BundleKey]) -> Reply:
        self.asked += keys
        return Reply(17, bundles=[Asked(key.namespace, key.id) for key in keys])

    def release(self) -> Reply:
        return self.reply


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    tree = Path(os.fsdecode(Layout(state=os.fsencode(tmp_path)).tasks))
    for one in ("k8s.io/1234aa", "k8s.io/1234ab", "k8s.io/77", "moby/1234aa", "moby/77"):
        (tree / one).mkdir(parents=True)
    made = FakeDaemon(tmp_path)
    monkeypatch.setattr(daemon_client, "Daemon", lambda _: made)
    return made


def status(*words: str) -> int:
    return run(app, ["status", "--socket", "/nowhere", *words], "containerd-reconciler")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["k8s.io/1234ab"], ["k8s.io/1234ab"]),
        (["1234ab"], ["k8s.io/1234ab"]),
        (["moby/12"], ["moby/1234aa"]),
        (["9f"], ["old/9f00"]),
        (["7", "-n", "moby"], ["moby/77"]),
        (["k8s.io/nothing", "moby/7"], ["k8s.io/nothing", "moby/77"]),
    ],
)
def test_the_beginning_of_an_id_will_do_where_only_one_bundle_has_it(
    daemon: FakeDaemon, typed: list[str], meant: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("--clean", *typed) == ExitCode.DONE
    assert list(map(str, daemon.asked)) == meant
    said = [f"{one} is due now for the daemon (pid 17)" for one in meant]
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.safety
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["k8s.io/12"], "k8s.io/12 may be any of k8s.io/1234aa, k8s.io/1234ab; write more of"),
        (["77"], "77 may be any of k8s.io/77, moby/77; name the namespace"),
        (["1234ab", "88"], "there is no bundle 88; "),
        (["a/b/c"], "invalid value for bundle: 'a/b/c' is neither NAMESPACE/ID nor ID"),
    ],
)
def test_what_may_mean_several_is_refused_with_their_names_and_nothing_is_asked(
    daemon: FakeDaemon, typed: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("--clean", *typed) in {ExitCode.ERROR, ExitCode.USAGE}
    assert daemon.asked == []
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"containerd-reconciler: {line}")


RATE = "max_per_minute: 1 cleanups in the last minute"


@pytest.mark.parametrize(
    ("reply", "code", "lines"),
    [
        (Reply(17), 0, ["nothing holds the daemon (pid 17) now"]),
        (
            Reply(17, released="mass death: 9 bundles died at once"),
            0,
            [
                "the daemon (pid 17) has released: mass death: 9 bundles died at once",
                "nothing holds the daemon (pid 17) now",
            ],
        ),
        (
            Reply(17, RATE, released=RATE),
            0,
            [
                f"the daemon (pid 17) has released: {RATE}",
                f"it went on, and is held again: {RATE}",
            ],
        ),
        (
            Reply(17, "guards: no openat2"),
            75,
            ["containerd-reconciler: the daemon (pid 17) is still held: guards: no openat2"],
        ),
    ],
)
def test_a_release_says_what_has_happened(
    daemon: FakeDaemon,
    reply: Reply,
    code: int,
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    daemon.reply = reply
    assert status("--release") == code
    assert capsys.readouterr().err.splitlines() == lines


def test_what_a_daemon_cannot_see_is_said_first_and_once() -> None:
    world, attempts = busy_world()
    refused = [
        Refusal(Guard.PID_NAMESPACE, "own pid namespace is foreign; use the host's"),
        Refusal(Guard.TIME_NAMESPACE, "own time namespace is foreign; use the host's"),
        Refusal(Guard.INSTANCE, "another one acts; stop it"),
    ]
    told = GuardsChecked(tuple(refused))
    attempts.observed(world.stamp, told)
    world.observe(told)
    shown = gather(world.engine, attempts, about(), world.stamp)
    lines = list(status_text.lines(shown, blindness_first=True))
    for one in refused:
        assert sum(one.reason in line for line in lines) == 1, lines
    blind = "warning: the daemon cannot see everything: "
    assert lines[:2] == [blind + one.reason for one in refused[:2]] == status_text.blindness(shown)
    assert "not acting: another one acts; stop it" in lines
    for one in refused:
        assert sum(one.reason in line for line in status_text.lines(shown)) == 1


def test_a_broken_file_hides_no_daemon(
    daemon: FakeDaemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []

    def at(path: str) -> FakeDaemon:
        asked.append(path)
        return daemon

    monkeypatch.setattr(daemon_client, "Daemon", at)
    (tmp_path / "broken.toml").write_text("mood = 1")
    said = ["status", "--release", "--config", str(tmp_path / "broken.toml")]
    usual, k3s = (f"/run/containerd-reconciler/{one}http.sock" for one in ("", "k3s/"))
    for words, socket in (([], usual), (["--instance", "k3s"], k3s)):
        assert run(app, [*said, *words], "containerd-reconciler") == ExitCode.DONE
        assert asked.pop() == socket
        first, _ = capsys.readouterr().err.splitlines()
        assert "mood: unknown key" in first
        assert first.endswith(f"; the daemon is looked for at {socket}")
