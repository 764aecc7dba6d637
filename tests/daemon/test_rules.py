"""Rules on real bundles: what a pod's member without config.json inherits, and how it is told."""

import json
from pathlib import Path

import pytest

from tests.daemon.running import NAMESPACE, Site, enforces, program, running
from tests.support.fake_containerd import FakeContainerd

pytestmark = pytest.mark.kernel

CRI = "io.kubernetes.cri"
POD = {f"{CRI}.sandbox-namespace": "shop", f"{CRI}.sandbox-id": "pod"}
MEMBER = {**POD, f"{CRI}.container-name": "web"}
RULES = """
[[rule]]
name = "critical"
match = { pod_namespace = "kube-*" }
protect = true

[[rule]]
name = "databases"
match = { pod_namespace = "shop", container = "db*" }
protect = true
"""


def make_pod(site: Site) -> None:
    """A pod; members that are whole, lost to their pod, alone, and that name only a sandbox."""
    site.make("pod", annotations=POD)
    site.make("whole", annotations=MEMBER)
    lost = site.make("lost", annotations=POD)
    alone = site.make("alone", annotations=POD)
    for path in (lost, alone):
        (path / "config.json").unlink()
    (lost / "sandbox").write_text("pod")
    site.make("terse", annotations={f"{CRI}.sandbox-id": "pod"})
    site.make("astray", annotations={f"{CRI}.sandbox-id": "gone"})


def policy_of(site: Site, name: str) -> list[str]:
    words = ("explain", f"{NAMESPACE}/{name}", "--config", str(site.config), "-o", "json")
    done = program(site, *words)
    assert done.returncode == 0, done.stderr
    told = {piece["evidence"]: piece for piece in json.loads(done.stdout)["evidence"]}
    return [told["policy"]["value"], told["policy"]["detail"]]


def test_explain_names_the_rule_and_why(site: Site, answering: FakeContainerd) -> None:
    make_pod(site)
    site.tail = RULES
    site.write()
    critical = '{ pod_namespace = "kube-*" }'
    databases = '{ pod_namespace = "shop", container = "db*" }'
    unread = "config.json cannot be read"
    assert policy_of(site, "whole") == ["cleanup", "no rule fits"]
    inherited = f"{databases} may fit: {unread}, its pod's is known"
    assert policy_of(site, "lost") == ["databases", inherited]
    terse = f"{databases} may fit: config.json does not say all, its pod's is known"
    assert policy_of(site, "terse") == ["databases", terse]
    astray = f"{critical} may fit: config.json does not say all"
    assert policy_of(site, "astray") == ["critical", astray]
    assert policy_of(site, "alone") == ["critical", f"{critical} may fit: {unread}"]


@enforces
def test_what_might_be_protected_is_kept(site: Site, answering: FakeContainerd) -> None:
    make_pod(site)
    site.tail = RULES
    site.write(mode="enforce", cleanup__grace="0s")
    with running(site) as daemon:
        kept = {"lost": "databases", "alone": "critical", "terse": "databases"}
        kept |= {"astray": "critical"}
        for name, rule in kept.items():
            daemon.wait_for("bundle.judged", id=name, phase="protected", cause=rule)
        for name in ("pod", "whole"):
            daemon.wait_for("bundle.cleaned", id=name)
        assert daemon.end()[0] == 0
    assert site.left() == kept.keys()
    assert all(Path(site.tree / NAMESPACE / name / "rootfs").is_dir() for name in site.left())
