"""Layers: a later one wins key by key, every value knows its origin, and all of it or nothing."""

from pathlib import Path

import pytest

from reconciler.model.evidence import Labels
from reconciler.model.ids import BundleKey
from reconciler.model.labels import Known
from reconciler.model.layout import Layout
from reconciler.model.policy import Orphans, Policies, Policy
from reconciler.settings.environment import variables
from reconciler.settings.files import Places
from reconciler.settings.load import Flag, Loaded, load
from reconciler.settings.problems import SettingsError
from reconciler.settings.show import changed, shown

WEB = BundleKey("default", "web")


class Tree:
    """The usual places, somewhere else."""

    def __init__(self, top: Path) -> None:
        self.vendor, self.main, self.drop_ins = top / "usr.toml", top / "etc.toml", top / "conf.d"
        self.drop_ins.mkdir()
        self.places = Places(str(self.vendor), str(self.main), str(self.drop_ins))

    def load(self, *flags: Flag, **environ: str) -> Loaded:
        return load(environ=environ, flags=flags, places=self.places)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def origins(loaded: Loaded) -> dict[str, str]:
    return {line.key: line.origin for line in shown(loaded) if line.origin != "default"}


def load_text(tmp_path: Path, text: str) -> Loaded:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(str(path), environ={})


def test_without_any_file_everything_is_default(tree: Tree) -> None:
    loaded = tree.load()
    assert loaded.policies() == Policies()
    assert loaded.layout == Layout()
    assert loaded.files == ()
    assert origins(loaded) == {}


def test_a_missing_directory_of_drop_ins_is_no_mistake(tree: Tree) -> None:
    tree.drop_ins.rmdir()
    assert tree.load().files == ()
    tree.drop_ins.touch()
    with pytest.raises(SettingsError, match="cannot be listed"):
        tree.load()


def test_a_later_layer_wins_key_by_key(tree: Tree) -> None:
    tree.vendor.write_text('[cleanup]\ngrace = "1m"\nsettle = "1m"\nthreshold = "1m"\nparallel = 1')
    tree.main.write_text('[cleanup]\ngrace = "2m"\nsettle = "2m"\nthreshold = "2m"\n')
    (tree.drop_ins / "10-a.toml").write_text('[cleanup]\ngrace = "3m"\nsettle = "3m"')
    (tree.drop_ins / "20-b.toml").write_text('[cleanup]\ngrace = "4m"')
    (tree.drop_ins / "30-c.toml.off").write_text('[cleanup]\ngrace = "5m"')
    (tree.drop_ins / ".40-d.toml").write_text('[cleanup]\ngrace = "6m"')
    loaded = tree.load()
    cleanup = loaded.settings.cleanup
    assert (cleanup.grace, cleanup.settle, cleanup.threshold) == ("4m", "3m", "2m")
    assert origins(loaded) == {
        "cleanup.grace": str(tree.drop_ins / "20-b.toml"),
        "cleanup.settle": str(tree.drop_ins / "10-a.toml"),
        "cleanup.threshold": str(tree.main),
        "cleanup.parallel": str(tree.vendor),
    }
    assert loaded.files == (
        str(tree.vendor),
        str(tree.main),
        str(tree.drop_ins / "10-a.toml"),
        str(tree.drop_ins / "20-b.toml"),
    )


def test_environment_beats_files_and_options_beat_it(tree: Tree) -> None:
    tree.main.write_text('mode = "observe"\n[cleanup]\ngrace = "2m"')
    loaded = tree.load(
        Flag("--grace", "cleanup.grace", "4m"),
        CONTAINERD_RECONCILER_MODE="enforce",
        CONTAINERD_RECONCILER_CLEANUP_GRACE="3m",
        CONTAINERD_RECONCILER_CLEANUP_PARALLEL="3",
        CONTAINERD_RECONCILER_CLEANUP_LAZY_UNMOUNT="true",
    )
    assert loaded.policies().default == Policy(enforce=True, grace=240.0)
    assert loaded.settings.cleanup.parallel == 3
    assert loaded.settings.cleanup.lazy_unmount is True
    assert origins(loaded) == {
        "mode": "CONTAINERD_RECONCILER_MODE",
        "cleanup.grace": "--grace",
        "cleanup.parallel": "CONTAINERD_RECONCILER_CLEANUP_PARALLEL",
        "cleanup.lazy_unmount": "CONTAINERD_RECONCILER_CLEANUP_LAZY_UNMOUNT",
    }


def test_only_the_named_file_is_read(tree: Tree, tmp_path: Path) -> None:
    tree.main.write_text("mode = 5")
    mine = tmp_path / "mine.toml"
    mine.write_text('mode = "enforce"')
    loaded = load(str(mine), environ={}, places=tree.places)
    assert loaded.files == (str(mine),)


def test_one_wrong_layer_spoils_all(tree: Tree) -> None:
    tree.vendor.write_text("mode = 5")
    tree.main.write_text('mode = "enforce"')
    with pytest.raises(SettingsError, match="mode: is a whole number"):
        tree.load()


# ------------------------------------------------------------------ environment


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        (
            "CONTAINERD_RECONCILER_CLEANUP_GRASE",
            "5s",
            "environment: CONTAINERD_RECONCILER_CLEANUP_GRASE: unknown variable; "
            'did you mean "CONTAINERD_RECONCILER_CLEANUP_GRACE"?',
        ),
        (
            "CONTAINERD_RECONCILER_CLEANUP_PARALLEL",
            "many",
            "environment: CONTAINERD_RECONCILER_CLEANUP_PARALLEL: is text, not a whole number",
        ),
        (
            "CONTAINERD_RECONCILER_CLEANUP_LAZY_UNMOUNT",
            "1",
            "environment: CONTAINERD_RECONCILER_CLEANUP_LAZY_UNMOUNT: is text, not true or false",
        ),
        (
            "CONTAINERD_ADDRESS",
            "containerd.sock",
            "environment: CONTAINERD_ADDRESS: 'containerd.sock' is not an absolute path",
        ),
        (
            "CONTAINERD_RECONCILER_HTTP_PORT",
            "9618",
            "environment: CONTAINERD_RECONCILER_HTTP_PORT: unknown variable; "
            'did you mean "CONTAINERD_RECONCILER_HTTP_SOCKET"?',
        ),
    ],
)
def test_a_wrong_variable_is_named(tree: Tree, variable: str, text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        tree.load(**{variable: text})
    assert str(caught.value) == expected


def test_what_kubernetes_sets_for_a_service_of_our_name_is_none_of_ours(tree: Tree) -> None:
    loaded = tree.load(
        CONTAINERD_RECONCILER_SERVICE_HOST="10.0.0.1",
        CONTAINERD_RECONCILER_SERVICE_PORT="9618",
        CONTAINERD_RECONCILER_SERVICE_PORT_METRICS="9618",
        CONTAINERD_RECONCILER_PORT="tcp://10.0.0.1:9618",
        CONTAINERD_RECONCILER_PORT_9618_TCP="tcp://10.0.0.1:9618",
        CONTAINERD_RECONCILER_PORT_9618_TCP_ADDR="10.0.0.1",
        CONTAINERD_RECONCILER_METRICS_SERVICE_HOST="10.0.0.1",
    )
    assert origins(loaded) == {}


def test_every_key_has_a_variable_of_its_own() -> None:
    assert len(set(variables())) == len(set(variables().values()))


# ------------------------------------------------------------------ where things are


def test_containerds_own_variable_sets_the_address(tree: Tree) -> None:
    loaded = tree.load(CONTAINERD_ADDRESS="unix:///run/other.sock")
    assert loaded.layout.address == b"/run/other.sock"
    ours = tree.load(
        CONTAINERD_ADDRESS="/run/other.sock", CONTAINERD_RECONCILER_CONTAINERD_ADDRESS="/run/o/x"
    )
    assert ours.layout.address == b"/run/o/x"
    assert tree.load(CONTAINERD_ADDRESS="").layout == Layout()


def test_a_moved_state_takes_the_socket_along(tree: Tree) -> None:
    state = Flag("--state", "containerd.state", "/run/k3s/containerd/")
    assert tree.load(state).layout == Layout(
        state=b"/run/k3s/containerd", address=b"/run/k3s/containerd/containerd.sock"
    )
    tree.main.write_text('[containerd]\naddress = "/run/containerd/containerd.sock"')
    assert tree.load(state).layout.address == b"/run/k3s/containerd/containerd.sock"
    said = Flag("--address", "containerd.address", "/run/containerd/containerd.sock")
    assert tree.load(state, said).layout.address == b"/run/containerd/containerd.sock"
    tree.main.write_text('[containerd]\naddress = "/run/x/c.sock"')
    assert tree.load(state).layout.address == b"/run/x/c.sock"


def test_names_that_are_not_utf8_arrive_as_they_are(tree: Tree) -> None:
    state = Flag("--state", "containerd.state", "/run/\udcff\n/x")
    assert tree.load(state).layout.state == b"/run/\xff\n/x"


# ------------------------------------------------------------------ policies


def test_a_rule_changes_what_it_says_and_keeps_the_rest(tmp_path: Path) -> None:
    loaded = load_text(
        tmp_path,
        """
        mode = "enforce"
        [cleanup]
        grace = "1m"
        threshold = "1h"
        max_runtime_dir_age = "none"
        max_runtime_dir_size = "1GiB"
        [brake]
        max_per_minute = 7
        hold = "1m"
        mass_deaths = 3
        [[rule]]
        name = "first"
        match = { namespace = "k8s.io", pod_namespace = "kube-*", annotation.app = "x*" }
        protect = true
        [[rule]]
        name = "second"
        match = { namespace = "default", id = "w*" }
        mode = "observe"
        grace = "5s"
        max_runtime_dir_age = "2h"
        max_runtime_dir_size = "none"
        orphans = "kill"
        """,
    )
    policies = loaded.policies(volatile=False)
    default = Policy(enforce=True, grace=60.0, threshold=3600.0, max_age=None, max_size=1 << 30)
    assert policies.default == default
    assert policies.node_max_size == 1 << 30
    assert policies.volatile is False
    assert (policies.brakes.max_per_minute, policies.brakes.mass_deaths) == (7, 3)
    assert policies.brakes.hold == 60.0
    assert policies.applied(WEB, Known(Labels())) == Policy(
        name="second",
        enforce=False,
        grace=5.0,
        threshold=3600.0,
        max_age=7200.0,
        max_size=None,
        orphans=Orphans.KILL,
    )
    assert policies.annotation_keys == {"app"}
    dns = BundleKey("k8s.io", "dns")
    labels = Labels(True, pod_namespace="kube-system", annotations=(("app", "xyz"),))
    assert policies.applied(dns, Known(labels)).protect
    assert policies.applied(dns, Known(Labels(True))) == default
    assert policies.applied(dns, Known(Labels())).protect, (
        "it might match, and alive may be assumed"
    )


def test_rules_of_a_later_layer_are_tried_first_and_replace_their_namesakes(tree: Tree) -> None:
    tree.vendor.write_text(
        '[[rule]]\nname = "a"\nmatch = {}\nprotect = true\n[[rule]]\nname = "b"\nmatch = {}'
    )
    tree.main.write_text('[[rule]]\nname = "c"\nmatch = {}\n[[rule]]\nname = "a"\nmatch = {}')
    loaded = tree.load()
    assert [rule.policy.name for rule in loaded.policies().rules] == ["c", "a", "b"]
    assert not any(rule.policy.protect for rule in loaded.policies().rules)
    assert loaded.origins["rule.a"] == str(tree.main)
    assert loaded.origins["rule.b"] == str(tree.vendor)


@pytest.mark.parametrize(
    "match",
    [
        'annotation."io.kubernetes/x.y" = "z"',
        '"annotation.io.kubernetes/x.y" = "z"',
        'annotation = { "io.kubernetes/x.y" = "z" }',
        'annotation.io."kubernetes/x".y = "z"',
    ],
)
def test_an_annotation_may_be_written_with_or_without_quotes(tmp_path: Path, match: str) -> None:
    loaded = load_text(tmp_path, f'[[rule]]\nname = "r"\nmatch = {{ {match} }}')
    assert loaded.policies().rules[0].match.annotations == (("io.kubernetes/x.y", "z"),)


# ------------------------------------------------------------------ other spellings


def test_budgets_are_found_where_containerd_users_put_them(tmp_path: Path) -> None:
    loaded = load_text(
        tmp_path,
        '[plugins."io.containerd.monitor.v1.cgroups"]\n'
        'max_runtime_dir_age = "24h"\nmax_runtime_dir_size = "1GB"\n'
        '[cleanup]\nmax_runtime_dir_size = "2GB"',
    )
    assert loaded.policies().default.max_age == 86400.0
    assert loaded.policies().default.max_size == 2 * 1000**3
    path, place = loaded.files[0], '[plugins."io.containerd.monitor.v1.cgroups"]'
    assert loaded.hints == (
        f"{path}: max_runtime_dir_age in {place} is taken as cleanup.max_runtime_dir_age; "
        "write it there",
        f"{path}: max_runtime_dir_size in {place} is ignored, "
        "because cleanup.max_runtime_dir_size is there too",
    )


# ------------------------------------------------------------------ showing


def test_a_reload_says_what_changed(tree: Tree) -> None:
    rules = [f'[[rule]]\nname = "{name}"\nmatch = {{}}\n' for name in "ab"]
    tree.main.write_text('[cleanup]\ngrace = "1m"\n' + "".join(rules))
    before = tree.load()
    assert changed(before, tree.load()) == []
    tree.main.write_text(
        '[[rule]]\nname = "c d"\nmatch = { annotation.a = "x\\"y" }\nprotect = true\n'
        + "".join(reversed(rules))
    )
    assert changed(before, tree.load()) == [
        'cleanup.grace: "1m" -> "10m"',
        'rule."c d": none -> { match = { annotation = { a = "x\\"y" } }, protect = true }',
        "the rules are tried in another order",
    ]


def test_an_address_that_follows_the_state_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('containerd.state = "/run/k3s/containerd"\n')
    lines = {line.key: line for line in shown(load(str(path), environ={}))}
    assert lines["containerd.address"].value == "/run/k3s/containerd/containerd.sock"
    assert lines["containerd.address"].origin == f"follows containerd.state, {path}"
