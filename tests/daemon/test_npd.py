"""`status --npd` behind the plugin configuration, run as node-problem-detector runs it."""

import re
from pathlib import Path
from typing import Final, Literal

import msgspec
import pytest

from reconciler.present.status_text import LONGEST_LINE
from tests.daemon.running import REPOSITORY, Site, running
from tests.daemon.test_status import here
from tests.support.fake_containerd import FakeContainerd

PLUGIN: Final = REPOSITORY / "contrib/kubernetes/npd/containerd-reconciler.json"
Duration = str

pytestmark = pytest.mark.kernel


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """As the detector's types have it (pkg/custompluginmonitor/types)."""


class Global(Strict):
    """What holds for all rules."""

    invoke_interval: Duration = "30s"
    timeout: Duration = "5s"
    max_output_length: int = 80
    concurrency: int = 3
    enable_message_change_based_condition_update: bool = False
    skip_initial_status: bool = False


class Condition(Strict):
    """How a condition is before the first answer, and whenever all is well."""

    type: str
    reason: str
    message: str


class Rule(Strict):
    """What is run."""

    type: Literal["permanent", "temporary"]
    reason: str
    path: str
    condition: str = ""
    args: list[str] = []
    timeout: Duration = ""


class Plugin(Strict, rename={"plugin_config": "pluginConfig", "metrics": "metricsReporting"}):
    """The file."""

    plugin: Literal["custom"]
    source: str
    conditions: list[Condition]
    rules: list[Rule]
    plugin_config: Global = msgspec.field(default_factory=Global)
    metrics: bool = True


def seconds(said: Duration) -> float:
    found = re.fullmatch(r"(\d+)(s|m)", said)
    assert found, said
    return int(found[1]) * {"s": 1, "m": 60}[found[2]]


def plugin() -> Plugin:
    return msgspec.json.decode(PLUGIN.read_bytes(), type=Plugin)


def asked(site: Site, *where: str) -> tuple[int, str]:
    """Run the rule as the detector does; gives the exit code and the line."""
    (rule,) = plugin().rules
    assert Path(rule.path).name == "containerd-reconciler"
    done = here(site, *rule.args, "--config", str(site.config), *where)
    (line,) = done.stdout.splitlines()
    assert len(line.encode()) <= plugin().plugin_config.max_output_length
    assert done.stderr == ""
    return done.returncode, line


def test_the_detector_would_accept_the_configuration() -> None:
    said = plugin()
    (condition,), (rule,) = said.conditions, said.rules
    assert rule.condition == condition.type, "a permanent problem needs a condition"
    camel = re.compile(r"[A-Z][A-Za-z]+")
    assert all(map(camel.fullmatch, (condition.type, condition.reason, rule.reason)))
    settings = said.plugin_config
    assert settings.max_output_length == LONGEST_LINE
    assert seconds(rule.timeout) <= seconds(settings.timeout) < seconds(settings.invoke_interval)
    assert seconds(rule.timeout) > 5, "the program waits five seconds for an answer"
    assert rule.path.startswith("/"), "it is looked for before it is run"


def test_it_answers_for_the_daemon(site: Site, answering: FakeContainerd) -> None:
    where = ("--socket", str(site.socket))
    code, line = asked(site, *where)
    assert (code, line[:20]) == (2, "no daemon listens on")
    site.make("a")
    with running(site) as daemon:
        daemon.wait_for("bundle.judged", id="a", phase="waiting")
        assert asked(site, *where) == (0, "1 bundle, 1 leftover, no problem")
        site.write(nonsense=1)
        assert daemon.reload()[0] == 422
        code, line = asked(site, *where)
        assert code == 1
        assert line.startswith("configuration refused, the old one is in force: ")


def test_what_is_no_daemon_is_unknown(site: Site) -> None:
    """Also where the program would end with another code."""
    site.write(http__socket="")
    assert asked(site) == (2, "http.socket is empty, so no daemon can be asked; set it")
    done = here(site, "status", "--npd", "--socket", str(site.base))
    assert (done.returncode, bool(done.stdout.strip())) == (2, True)


def test_it_goes_with_no_order(site: Site) -> None:
    done = here(site, "status", "--npd", "--reload")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--reload and --npd do not go together" in done.stderr
