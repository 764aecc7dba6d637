"""`status` and `config` as an operator types them."""

import json
import os
import pty
import signal
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

from reconciler.cli.app import app, run
from tests.daemon.running import PROGRAM, Site, environment, running, until
from tests.support.fake_containerd import FakeContainerd
from tests.support.schema import strict

pytestmark = pytest.mark.kernel


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def here(site: Site, *args: str, **variables: str) -> Done:
    """Run a command in this process: it starts much sooner."""
    out, err = StringIO(), StringIO()
    with (
        patch.dict(os.environ, environment(site, **variables), clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = run(app, args, "containerd-reconciler")
    return Done(code, out.getvalue(), err.getvalue())


def test_without_a_daemon_it_is_3_in_one_line(site: Site) -> None:
    for args in ((), ("-o", "json"), ("--reload",)):
        done = here(site, "status", "--config", str(site.config), *args)
        assert done.returncode == 3
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert f"no daemon listens on {site.socket}" in done.stderr


def test_a_socket_that_is_switched_off_is_3(site: Site) -> None:
    site.write(http__socket="")
    done = here(site, "status", "--config", str(site.config))
    assert done.returncode == 3
    assert "http.socket is empty" in done.stderr


def test_a_configuration_that_cannot_be_read_is_named_before_the_daemon_is_missed(
    site: Site,
) -> None:
    done = here(site, "status", "--config", "/nowhere/config.toml")
    assert done.returncode == 3
    wrong, missed = done.stderr.splitlines()
    assert "/nowhere/config.toml: cannot be read" in wrong
    assert "no daemon listens" in missed


def test_it_says_that_the_tree_of_sandboxes_cannot_be_read(
    site: Site, answering: FakeContainerd
) -> None:
    place = Path(os.fsdecode(site.layout.sandboxes))
    place.symlink_to(site.base)
    site.write(watch__relist="1s")
    with running(site) as daemon:
        told = daemon.wait_for("listing.failed")
        assert "the tree of sandboxes cannot be read" in str(told["problem"])
        daemon.wait_for("readiness.reached")
        shown = here(site, "status", "--config", str(site.config)).stdout
        assert "\nlisting: the tree of sandboxes cannot be read" in shown
        place.unlink()
        daemon.wait_for("tree.listed", namespace=None)
        shown = here(site, "status", "--config", str(site.config)).stdout
        assert "listing: " not in shown


def test_it_shows_what_the_daemon_sees(site: Site, answering: FakeContainerd) -> None:
    site.make("a")
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a", phase="waiting")
        where = ("--config", str(site.config))
        table = here(site, "status", *where)
        assert table.returncode == 0, table.stderr
        assert table.stdout.startswith("ready, observe: ")
        assert "1 leftover; leftovers: 1 waiting" in table.stdout
        row = next(line for line in table.stdout.splitlines() if line.startswith("shop"))
        assert row.split()[:4] == ["shop", "a", "leftover", "waiting"]
        assert "CGROUP" in here(site, "status", *where, "-o", "wide").stdout
        assert here(site, "status", *where, "-o", "name").stdout == "shop/a\n"
        told = json.loads(here(site, "status", *where, "-o", "json").stdout)
        assert told.keys() == daemon.status().keys()
        for document in (told, daemon.status()):
            assert document["kind"] == "Status"
            assert not list(strict().iter_errors(document))
        assert told["summary"]["verdicts"]["leftover"] == 1


def test_a_reload_that_is_refused_is_78_and_says_why(site: Site) -> None:
    with running(site):
        where = ("--socket", str(site.socket))
        done = here(site, "status", "--reload", *where)
        assert (done.returncode, done.stderr) == (0, "the configuration was loaded\n")
        site.write(nonsense=1)
        done = here(site, "status", "--reload", *where)
        assert done.returncode == 78
        assert "refused, the old configuration stays in force" in done.stderr
        assert "nonsense: unknown key" in done.stderr
        table = here(site, "status", *where).stdout
        assert "configuration refused, the old one is in force: " in table


def test_a_reload_tells_on_the_command_line_what_waits_for_a_restart(site: Site) -> None:
    with running(site) as daemon:
        where = ("--socket", str(site.socket))
        site.write(cleanup__grace="30m", http__listen="127.0.0.1:1", log__level="warning")
        done = here(site, "status", "--reload", *where)
        waits = f'waits for a restart: http.listen: "127.0.0.1:{site.port}" -> "127.0.0.1:1"'
        lines = done.stderr.splitlines()
        assert lines[-2:] == [waits, "the configuration was loaded"]
        assert 'cleanup.grace: "1h" -> "30m"' in lines[:-2]
        assert 'log.level: "debug" -> "warning"' in lines[:-2]
        assert waits in here(site, "status", *where).stdout
        assert daemon.ask("/-/reload", "POST", order=True) == (200, "ok\n")
        # It waits until it is restarted, whatever else changes, or until it is taken back.
        site.write(cleanup__grace="31m")
        assert waits in here(site, "status", "--reload", *where).stderr.splitlines()
        shadowed = '[[rule]]\nname = "one"\nmatch = {}\n[[rule]]\nname = "two"\nmatch = {}\n'
        site.tail = shadowed
        site.write(http__listen=f"127.0.0.1:{site.port}", log__level="info")
        odd = f"{site.config}: rule.two: never applies: rule.one before it matches all"
        assert f"note: {odd}" in here(site, "status", "--reload", *where).stderr
        assert odd in str(daemon.wait_for("config.questioned")["hint"])
        site.tail = ""
        site.write()
        assert "waits for" not in here(site, "status", "--reload", *where).stderr
        assert "waits for" not in here(site, "status", *where).stdout


def test_a_daemon_that_hangs_is_not_waited_for_for_ever(site: Site) -> None:
    with running(site) as daemon:
        daemon.send(signal.SIGSTOP)
        done = here(site, "status", "--socket", str(site.socket))
        daemon.send(signal.SIGCONT)
    assert done.returncode == 3
    assert "does not answer" in done.stderr


def test_watching_shows_it_live_and_survives_a_restart(
    site: Site, answering: FakeContainerd
) -> None:
    ours, theirs = pty.openpty()
    seen = bytearray()

    def shows(text: bytes) -> bool:
        seen.extend(os.read(ours, 1 << 16))
        return text in seen

    with running(site):
        watcher = subprocess.Popen(
            [*PROGRAM, "status", "--watch", "--config", str(site.config)],
            env=environment(site, TERM="xterm", COLUMNS="150", LINES="40"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            until(lambda: shows(b"Ctrl-C ends"), "the first picture")
            site.make("late")
            until(lambda: shows(b"late"), "a bundle that came")
            with running(site, ready=False) as second:
                assert second.process.wait(20) == 77
        except BaseException:
            watcher.kill()
            watcher.wait()
            raise
    try:
        until(lambda: shows(b"no daemon listens"), "that it is gone")
        seen.clear()
        with running(site):
            until(lambda: shows(b"late"), "it again")
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(10) == 0
    finally:
        watcher.kill()
        watcher.wait()
        os.close(ours)


@pytest.mark.parametrize(
    ("asked", "shown"), [((), ["a"]), (("--verdict", "leftover"), ["a"]), (("--phase", "held"), [])]
)
def test_a_stream_is_one_document_a_line(
    site: Site, answering: FakeContainerd, asked: tuple[str, ...], shown: list[str]
) -> None:
    site.make("a")
    with running(site):
        watcher = subprocess.Popen(
            [*PROGRAM, "status", "--watch", "-o", "json", *asked, "--config", str(site.config)],
            env=environment(site),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert watcher.stdout is not None
            for _ in range(2):
                told = json.loads(watcher.stdout.readline())
                assert not list(strict().iter_errors(told))
                assert [one["id"] for one in told["bundles"]] == shown
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait(10) == 0
        finally:
            watcher.kill()
            watcher.communicate()


def test_watching_needs_a_terminal(site: Site) -> None:
    done = here(site, "status", "--watch", "--config", str(site.config))
    assert done.returncode == 2
    assert "--watch needs a terminal" in done.stderr


def test_check_names_every_problem(site: Site) -> None:
    where = ("--config", str(site.config))
    done = here(site, "config", "check", *where)
    assert (done.returncode, done.stdout) == (0, "")
    site.write(watch__relist="0s", cleanup__grcae="1s")
    done = here(site, "config", "check", *where)
    assert done.returncode == 78
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"containerd-reconciler: {site.config}: ") for line in lines)
    assert 'did you mean "grace"?' in done.stderr


def test_show_says_where_each_value_comes_from(site: Site) -> None:
    where = ("--config", str(site.config))
    lines = here(
        site, "config", "show", "--origin", *where, CONTAINERD_RECONCILER_WATCH_RELIST="7m"
    ).stdout.splitlines()
    told = {line.split(" = ")[0]: line.split("  # ")[1] for line in lines}
    assert told["watch.relist"] == "CONTAINERD_RECONCILER_WATCH_RELIST"
    assert told["cleanup.grace"] == str(site.config)
    assert told["cleanup.threshold"] == "default"
    shown = json.loads(here(site, "config", "show", *where, "-o", "json").stdout)
    assert not list(strict().iter_errors(shown))
    assert (shown["kind"], shown["files"]) == ("Configuration", [str(site.config)])
    values = shown["values"]
    assert {one["key"] for one in values} == told.keys()
    plain = {one["key"]: one.get("value") for one in values}
    assert (plain["watch.relist"], plain["cleanup.parallel"]) == ("5m", 8)


def test_what_is_shown_is_a_configuration(site: Site) -> None:
    shown = here(site, "config", "show", "--config", str(site.config)).stdout
    site.config.write_text(shown)
    again = here(site, "config", "show", "--config", str(site.config))
    assert again.returncode == 0, again.stderr
    assert again.stdout == shown


def test_the_schema_is_one(site: Site) -> None:
    schema = json.loads(here(site, "config", "schema").stdout)
    assert schema["$defs"]["Settings"]["properties"].keys() >= {"mode", "cleanup", "rule"}
