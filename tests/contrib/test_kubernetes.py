"""Chart and overlays: helm and kubectl accept them, and their pods find the node's containerd."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import pytest
import yaml
from kubernetes_validate.utils import validate

from reconciler import __version__
from reconciler.model.layout import Layout
from reconciler.settings.environment import node_name
from reconciler.settings.load import Loaded, load
from tests.contrib.discovery import discovery
from tests.e2e.kubelet import DaemonSet, Pod

TOP: Final = Path(__file__).resolve().parents[2]
KUBERNETES: Final = TOP / "contrib" / "kubernetes"
CHART: Final = KUBERNETES / "chart"
OVERLAYS: Final = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
VERSION: Final = "1.37"
NODE: Final = "worker-3"
PLACES: Final = {
    "": Layout(),
    "k3s": Layout(
        b"/run/k3s/containerd",
        b"/var/lib/rancher/k3s/agent/containerd",
        b"/run/k3s/containerd/containerd.sock",
    ),
    "rke2": Layout(
        b"/run/k3s/containerd",
        b"/var/lib/rancher/rke2/agent/containerd",
        b"/run/k3s/containerd/containerd.sock",
    ),
    "microk8s": Layout(
        b"/var/snap/microk8s/common/run/containerd",
        b"/var/snap/microk8s/common/var/lib/containerd",
        b"/var/snap/microk8s/common/run/containerd.sock",
    ),
}
"""Where containerd is, by distribution (field notes; k3s and rke2 share the state directory)."""

Document = dict[str, object]

pytestmark = pytest.mark.kernel


def tool(name: str) -> str:
    found = shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)
    if found is None:
        pytest.skip(f"not installed: {name}")
    return found


def call(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> list[Document]:
    """Read what a tool made, and have each document checked as the API server would."""
    found: list[Document] = [one for one in yaml.safe_load_all(text) if one is not None]
    for one in found:
        if not str(one["apiVersion"]).startswith("monitoring.coreos.com/"):
            validate(one, VERSION, strict=True)
    return found


def rendered(*words: str) -> list[Document]:
    return documents(call(tool("helm"), "template", "some", CHART, "--namespace", "sys", *words))


def built(overlay: str) -> list[Document]:
    return documents(call(tool("kubectl"), "kustomize", KUBERNETES / "overlays" / overlay))


def of_kind(kind: str, found: list[Document]) -> list[Document]:
    return [one for one in found if one["kind"] == kind]


def pods(found: list[Document]) -> dict[str, Pod]:
    """Give the pods of all DaemonSets by the mode they are told."""
    made = [msgspec.convert(one, DaemonSet).pod for one in of_kind("DaemonSet", found)]
    return {variables(pod).get("CONTAINERD_RECONCILER_MODE", "observe"): pod for pod in made}


def variables(pod: Pod) -> dict[str, str]:
    (container,) = pod.containers
    return {one.name: one.on(NODE) for one in container.env}


class ConfigMap(msgspec.Struct):
    """As much of a ConfigMap as is looked at."""

    data: dict[str, str]


def loaded(found: list[Document], pod: Pod, tmp_path: Path) -> Loaded:
    """Load the configuration as the pod's daemon would."""
    (config_map,) = of_kind("ConfigMap", found)
    (tmp_path / "config.toml").write_text(
        msgspec.convert(config_map, ConfigMap).data["config.toml"]
    )
    return load(str(tmp_path / "config.toml"), environ=variables(pod))


class Admission(msgspec.Struct, rename="camel"):
    """What a pod says to whoever places and admits it."""

    automount_service_account_token: bool
    priority_class_name: str
    tolerations: list[dict[str, str]]
    node_selector: dict[str, str]
    service_account_name: str = ""


def admissions(found: list[Document]) -> list[Admission]:
    class Template(msgspec.Struct):
        spec: Admission

    class Spec(msgspec.Struct):
        template: Template

    class DaemonSet(msgspec.Struct):
        spec: Spec

    sets = of_kind("DaemonSet", found)
    return [msgspec.convert(one, DaemonSet).spec.template.spec for one in sets]


def assert_reaches(pod: Pod, layout: Layout) -> None:
    """All that containerd keeps is mounted at the node's own paths, and shared both ways."""
    (container,) = pod.containers
    assert pod.host_pid
    assert node_name(variables(pod)) == NODE, "not the pod's own name"
    assert container.security_context.privileged
    host = {one.name: one.host_path.path for one in pod.volumes if one.host_path is not None}
    shared = [
        one.mount_path
        for one in container.volume_mounts
        if one.mount_propagation == "Bidirectional" and host[one.name] == one.mount_path
    ]
    for path in (layout.state, layout.root, layout.address, layout.runtime_dir):
        assert any((os.fsdecode(path) + "/").startswith(one + "/") for one in shared), path
    mounted = {one.name for one in container.volume_mounts}
    assert mounted == {one.name for one in pod.volumes}


def selectors(found: list[Document]) -> list[Mapping[str, str]]:
    class Selector(msgspec.Struct, rename="camel"):
        match_labels: dict[str, str]

    class Spec(msgspec.Struct):
        selector: Selector

    class Document(msgspec.Struct):
        spec: Spec

    sets = of_kind("DaemonSet", found)
    return [msgspec.convert(one, Document).spec.selector.match_labels for one in sets]


# ---------------------------------------------------------------------------------- overlays


def test_the_base_ships_the_configuration_of_a_kubernetes_node() -> None:
    shipped = (KUBERNETES / "base" / "config.toml").read_text()
    assert shipped == (TOP / "config" / "kubernetes.toml").read_text()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_and_finds_containerd(overlay: str, tmp_path: Path) -> None:
    found = built(overlay)
    layout = PLACES.get(overlay, PLACES[""])
    made = pods(found)
    assert set(made) == ({"observe", "enforce"} if overlay == "enforce" else {"observe"})
    for mode, pod in made.items():
        said = loaded(found, pod, tmp_path)
        assert said.settings.mode.value == mode
        assert said.layout == layout
        assert_reaches(pod, layout)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_enforcing_leaves_the_selector_of_the_first_daemonset_as_it_is(overlay: str) -> None:
    """Whoever goes on from it to the overlay that enforces: the API server refuses another one."""
    assert selectors(built(overlay))[0] == selectors(built("enforce"))[0]


@pytest.mark.safety
def test_what_is_applied_first_removes_nothing() -> None:
    """Neither the README's recipe, nor an example as it is shipped."""
    readme = (TOP / "README.md").read_text()
    recipe = readme.partition("**Kubernetes**")[2].partition("**Without internet**")[0]
    named = {*re.findall(r"overlays/(\w+)", recipe)}
    assert named == {"observe", "k3s"}
    assert "mode=" not in recipe
    for found in (*map(built, named), rendered(), rendered("--set", "distribution=k3s")):
        assert set(pods(found)) == {"observe"}
    for path in (TOP / "config").glob("*.toml"):
        assert re.search(r'^mode = "observe"', path.read_text(), re.MULTILINE), path
    for name in ("kubernetes", "k3s"):
        text = (TOP / "config" / f"{name}.toml").read_text()
        assert re.search(r'^mode = "observe" .*#.*"enforce"', text, re.MULTILINE), "what to change"


def test_no_pod_belongs_to_two_daemonsets() -> None:
    for found in (built("enforce"), rendered("--set", "mode=by-label")):
        one, other = selectors(found)
        assert any(one[name] != other.get(name, one[name]) for name in one)


@pytest.mark.parametrize("overlay", [*OVERLAYS, None])
def test_a_pod_runs_on_every_node_and_may_ask_the_api_server_for_nothing(
    overlay: str | None,
) -> None:
    """None is the chart. What is broken on a tainted or full node must be seen there, too."""
    found = rendered("--set", "mode=by-label") if overlay is None else built(overlay)
    assert {one["kind"] for one in found} == {"DaemonSet", "ConfigMap"}, "no roles, no account"
    for one in admissions(found):
        assert not one.automount_service_account_token
        assert not one.service_account_name
        assert one.tolerations == [{"operator": "Exists"}]
        assert one.priority_class_name == "system-node-critical"
        assert one.node_selector["kubernetes.io/os"] == "linux"


@pytest.mark.parametrize("overlay", [*OVERLAYS, None])
def test_kubectl_would_create_all_of_it(overlay: str | None, tmp_path: Path) -> None:
    """None is the chart with everything it can make. No cluster: only kinds are asked for."""
    if overlay is None:
        wanted = "mode=by-label,podMonitor.enabled=true,prometheusRule.enabled=true"
        chart = call(tool("helm"), "template", "some", CHART, "--set", wanted)
        (tmp_path / "chart.yaml").write_text(chart)
        source = ["-f", str(tmp_path / "chart.yaml")]
        number = 5
    else:
        source = ["-k", str(KUBERNETES / "overlays" / overlay)]
        number = len(built(overlay))
    with discovery() as server:
        options = ["--server", server, "--cache-dir", str(tmp_path / "cache"), "--validate=false"]
        done = call(tool("kubectl"), "create", "--dry-run=client", "-o", "name", *options, *source)
    assert len(set(done.splitlines())) == number
    assert all("containerd-reconciler" in line for line in done.splitlines())


# ------------------------------------------------------------------------------------- chart


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    assert "0 chart(s) failed" in call(tool("helm"), "lint", "--strict", CHART)


@pytest.mark.parametrize("distribution", PLACES)
@pytest.mark.parametrize("mode", ["observe", "enforce", "by-label"])
def test_the_chart_is_valid_and_finds_containerd(
    mode: str, distribution: str, tmp_path: Path
) -> None:
    found = rendered("--set", f"mode={mode},distribution={distribution}")
    made = pods(found)
    assert set(made) == ({"observe", "enforce"} if mode == "by-label" else {mode})
    for told, pod in made.items():
        said = loaded(found, pod, tmp_path)
        assert said.settings.mode.value == told
        assert said.layout == PLACES[distribution]
        assert_reaches(pod, PLACES[distribution])
        assert sum(rule.policy.protect for rule in said.policies().rules) == 1


def test_the_chart_of_an_unknown_distribution_is_told_the_places(tmp_path: Path) -> None:
    found = rendered("--set", "containerd.state=/run/x/containerd,containerd.root=/var/lib/x")
    pod = pods(found)["observe"]
    layout = Layout(b"/run/x/containerd", b"/var/lib/x", b"/run/x/containerd/containerd.sock")
    assert loaded(found, pod, tmp_path).layout == layout
    assert_reaches(pod, layout)


def test_a_change_of_the_mode_leaves_the_selector_as_it_is() -> None:
    """The API server refuses another selector, and an upgrade would fail half way."""
    observing, enforcing = (rendered("--set", f"mode={mode}") for mode in ("observe", "enforce"))
    assert selectors(observing) == selectors(enforcing)


@pytest.mark.parametrize("wrong", ["mode=maybe", "containerd.state=run", "prot=1", "port=0"])
def test_a_wrong_value_is_refused(wrong: str) -> None:
    command = [tool("helm"), "template", "some", str(CHART), "--set", wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_the_monitors_are_made_when_asked_for() -> None:
    plain = rendered()
    assert not of_kind("PodMonitor", plain) + of_kind("PrometheusRule", plain)
    found = rendered("--set", "podMonitor.enabled=true,prometheusRule.enabled=true")
    (rule,) = of_kind("PrometheusRule", found)
    assert of_kind("PodMonitor", found)
    assert rule["spec"] == yaml.safe_load((TOP / "contrib/prometheus/rules.yml").read_text())


def test_the_chart_ships_the_rules_of_prometheus_and_the_version() -> None:
    assert (CHART / "rules.yml").read_text() == (TOP / "contrib/prometheus/rules.yml").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
