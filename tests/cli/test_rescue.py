"""`clean --rescue --kill-wedged` ends a shim once that is agreed to and all it serves allow it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from reconciler.cli import rescuing
from reconciler.cli.app import app, run
from reconciler.errors import ExitCode
from tests.cli.program import environment, on_terminal, program
from tests.support.bundles import Bundle, Site
from tests.support.mountns import private_mounts
from tests.support.shims import LivingShim, living_shim

pytestmark = pytest.mark.safety

RULE = "[[rule]]\nname = 'r'\nmatch = {{ {} }}\n{}\n"
MEMBER = "id = 'member-*'"


class Rescued:
    """A node without a containerd, on which a pod of two that has died has a wedged shim."""

    def __init__(self, site: Site, member: Bundle, shim: LivingShim, config: Path) -> None:
        self.site, self.member, self.shim, self.config = site, member, shim, config
        lib = Path(os.fsdecode(site.layout.root))
        self.database = lib / "io.containerd.metadata.v1.bolt" / "meta.db"
        self.database.parent.mkdir()
        self.database.write_bytes(b"x")

    def args(self, *args: str, says: str = "") -> list[str]:
        self.config.write_text("mode = 'enforce'\n" + says)
        layout = self.site.layout
        return [
            *("--config", str(self.config), "--state", os.fsdecode(layout.state)),
            *("--root", os.fsdecode(layout.root), "--address", os.fsdecode(layout.address)),
            *("clean", "--settle", "0s", "--rescue", "--kill-wedged", *args),
        ]

    @property
    def lives(self) -> bool:
        return self.shim.process.poll() is None


@contextmanager
def rescued(base: Path) -> Iterator[Rescued]:
    site = Site(base)
    try:
        pod = site.bundle("pod", mounted=False)
        sandbox = {"io.kubernetes.cri.sandbox-id": pod.key.id}
        member = site.bundle("member", mounted=False, annotations=sandbox)
        (member.path / "address").write_text(f"unix://{pod.socket}")
        address = os.fsdecode(site.layout.address)
        with living_shim(pod.path, pod.socket, address) as shim:
            yield Rescued(site, member, shim, base / "config.toml")
    finally:
        site.close()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory whose path leaves room for that of a socket (unix(7))."""
    return tmp_path_factory.mktemp("w")


@private_mounts
def test_a_wedged_shim_is_ended_only_once_that_is_agreed_to(short: Path) -> None:
    with rescued(short) as here:
        done = program(None, *here.args())
        assert done.returncode == ExitCode.USAGE, done.stderr
        assert f"pid {here.shim.pid}" in done.stderr, "the plan"
        assert "1 wedged shim" in done.stderr
        assert here.lives, "nobody agreed"
        _, said = on_terminal(None, here.args(), b"y\n")
        assert b"end 1 wedged shim?" in said, said
        assert b"; ended" in said, said
        assert not here.lives


@private_mounts
def test_a_wedged_shim_stays_where_a_rule_keeps_any_that_it_may_serve(short: Path) -> None:
    with rescued(short) as here:
        for keeps, why in (
            ("mode = 'observe'", "only be observed"),
            ("protect = true", "protects"),
        ):
            done = program(None, *here.args("--yes", says=RULE.format(MEMBER, keeps)))
            assert (done.returncode, why in done.stderr) == (ExitCode.DONE, True), done.stderr
            assert here.lives, keeps
        config = here.member.path / "config.json"
        text = config.read_text()
        config.unlink()
        done = program(None, *here.args("--yes", says=RULE.format("pod = 'x'", "mode = 'observe'")))
        assert "not ended" in done.stderr, "whose pod it is, is not known"
        assert here.lives
        config.write_text(text)
        done = program(None, *here.args("--yes", says=RULE.format("id = 'x'", "protect = true")))
        assert "; ended" in done.stderr
        assert not here.lives, "no rule keeps it"


@private_mounts
def test_a_wedged_shim_stays_where_containerd_starts_while_shims_are_asked(short: Path) -> None:
    ask, held = rescuing.ask_shims, []
    with rescued(short) as here, mock.patch.dict(os.environ, environment(), clear=True):

        def starts(*args: object) -> list[rescuing.Wedged]:
            found = ask(*args)  # type: ignore[arg-type]  # whatever it is called with
            assert [one.objection for one in found] == [""]
            database = here.database.open("rb")
            fcntl.flock(database, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(database)  # until the test is over
            return found

        with mock.patch.object(rescuing, "ask_shims", starts):
            assert run(app, here.args("--yes"), "containerd-reconciler") == ExitCode.REFUSED
        assert here.lives
