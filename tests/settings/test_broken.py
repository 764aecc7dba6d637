"""Every broken configuration gets one line: file, key, reason, and what was probably meant."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ExitCode
from reconciler.settings.check import check, known_keys
from reconciler.settings.files import normalised
from reconciler.settings.load import load
from reconciler.settings.problems import SettingsError
from reconciler.settings.schema import Settings

RULE = '[[rule]]\nname = "r"\nmatch = {}\n'
MATCH = '[[rule]]\nname = "r"\nmatch = '
DURATION = 'write it like "10s", "1h30m" or "7d"'
PLUGIN = '[plugins."io.containerd.monitor.v1.cgroups"]\n'
ALL = "brake, cleanup, containerd, debris, http, journal, log, mode, rule, watch"

BROKEN = [
    # TOML
    ("mode =", "line 1, column 7: Invalid value"),
    ("mode = observe", "line 1, column 8: Invalid value"),
    ("\n[cleanup", "line 2, column 9: Expected ']' at the end of a table declaration"),
    ('mode = "observe"\nmode = "observe"', "line 2, column 17: Cannot overwrite a value"),
    ("x = " + "[" * 100_000, "is nested too deeply"),
    ("x = " + "9" * 5000, "holds a number that is too long"),
    # keys
    ("grace = '5s'", 'grace: unknown key; did you mean "grace" in [cleanup]?'),
    ("[clean]", 'clean: unknown key; did you mean "cleanup"?'),
    ("[cleanup]\ngrase = '5s'", 'cleanup.grase: unknown key; did you mean "grace"?'),
    (
        "[watch]\nthreshold = '1h'",
        'watch.threshold: unknown key; did you mean "threshold" in [cleanup]?',
    ),
    ("[log]\nzzz = 1", "log.zzz: unknown key; known here: format, level"),
    ('["a\\n".b]', f'"a\\x0a": unknown key; known here: {ALL}'),
    ("k" * 500 + " = 1", f'"{"k" * 64}...": unknown key; known here: {ALL}'),
    ("[plugins.x]", "plugins: unknown key; that is a table of containerd's own configuration"),
    (
        PLUGIN + "no_prometheus = true",
        "plugins: unknown key; that is a table of containerd's own configuration",
    ),
    # types
    ("mode = true", 'mode: is a boolean, not "observe" or "enforce"'),
    ("cleanup = 5", "cleanup: is a whole number, not a table"),
    ("[[cleanup]]", "cleanup: is an array, not a table"),
    ("[cleanup]\ngrace = 10", f"cleanup.grace: is a whole number, not a duration; {DURATION}"),
    (
        "[cleanup]\ngrace = 10:00:00",
        f"cleanup.grace: is a date or time, not a duration; {DURATION}",
    ),
    ("[cleanup]\nlazy_unmount = 'yes'", "cleanup.lazy_unmount: is text, not true or false"),
    ("[cleanup]\nlazy_unmount = 1", "cleanup.lazy_unmount: is a whole number, not true or false"),
    ("[cleanup]\nparallel = true", "cleanup.parallel: is a boolean, not a whole number"),
    ("[cleanup]\nparallel = 8.0", "cleanup.parallel: is a fraction, not a whole number"),
    ("[cleanup]\nparallel = '8'", "cleanup.parallel: is text, not a whole number"),
    (
        PLUGIN + "max_runtime_dir_age = 168",
        "cleanup.max_runtime_dir_age: is a whole number, "
        'not a duration or "none"; write it like "168h" or "7d"',
    ),
    # values
    (
        "mode = 'enforced'",
        'mode: \'enforced\' is not "observe" or "enforce"; did you mean "enforce"?',
    ),
    (
        "[watch]\nbackend = 'inotfy'",
        'watch.backend: \'inotfy\' is not "auto", "inotify", '
        '"watchfiles" or "poll"; did you mean "inotify"?',
    ),
    ("[watch]\nrelist = '100ms'", "watch.relist: '100ms' is too often; a second is the least"),
    (
        "[cleanup]\ngrace = '5 minutes'",
        "cleanup.grace: '5 minutes' is not a duration: write it like 10s, 1h30m, 168h or 7d",
    ),
    (
        "[cleanup]\ngrace = '999999999h'",
        "cleanup.grace: '999999999h' is longer than a hundred years",
    ),
    (
        "[cleanup]\nmax_runtime_dir_age = '0s'",
        "cleanup.max_runtime_dir_age: '0s' would make every leftover due at once; "
        '"none" means no budget',
    ),
    (
        "[cleanup]\nmax_runtime_dir_size = '0'",
        "cleanup.max_runtime_dir_size: '0' would make every leftover due at once; "
        '"none" means no budget',
    ),
    (
        "[cleanup]\nmax_runtime_dir_size = '10XB'",
        "cleanup.max_runtime_dir_size: '10XB' is not a size: write it like 10GB, 512MiB or 4096",
    ),
    (
        "[cleanup]\norphans = 'kil'",
        'cleanup.orphans: \'kil\' is not "report" or "kill"; did you mean "kill"?',
    ),
    ("[cleanup]\nparallel = 0", "cleanup.parallel: is 0, and 1 is the least"),
    ("[cleanup]\nparallel = 65", "cleanup.parallel: is 65, and 64 is the most"),
    (
        "[cleanup]\nparallel = 0x" + "f" * 20_000,
        "cleanup.parallel: is a very large number, and 64 is the most",
    ),
    ("[brake]\nmax_per_minute = 0", "brake.max_per_minute: is 0, and 1 is the least"),
    ("[journal]\nmax_size = '0'", "journal.max_size: '0' is no room at all"),
    ("[http]\nlisten = '9618'", "http.listen: '9618' is not host:port, like 127.0.0.1:9618"),
    (
        "[http]\nlisten = 'localhost:99999'",
        "http.listen: 'localhost:99999' names no port between 1 and 65535",
    ),
    ("[http]\nlisten = '::1:80'", "http.listen: '::1:80' is not host:port, like 127.0.0.1:9618"),
    # what is not looked for cannot be configured
    ("[rubbish]\ncgroup = 'report'", f"rubbish: unknown key; known here: {ALL}"),
    ("[debris]\ncgroup = 'report'", "debris.cgroup: is text, not a table"),
    ("[debris.cgroups]", 'debris.cgroups: unknown key; did you mean "cgroup"?'),
    (
        "[debris.shim]\naction = 'clean'",
        "debris.shim.action: unknown key; known here: age",
    ),
    (
        "[debris.mount]\naction = 'clear'",
        'debris.mount.action: \'clear\' is not "inherit", "report" or "clean"; '
        'did you mean "clean"?',
    ),
    # in the tables that are left
    (
        "[[rule]]\nname = 'a'\nmatch = { pod_name = 'x' }",
        'rule[1].match.pod_name: unknown key; did you mean "pod"?',
    ),
    (
        "[[rule]]\nname = 'a'\nmatch = { pod_namespac = 'x' }",
        'rule[1].match.pod_namespac: unknown key; did you mean "pod_namespace"?',
    ),
    ("[brake]\nholds = '1m'", 'brake.holds: unknown key; did you mean "hold"?'),
    (
        "[log]\nlevel = 'loud'",
        'log.level: \'loud\' is not "debug", "info", "warning" or "error"',
    ),
    ("brake = 5", "brake: is a whole number, not a table"),
    # paths
    *(
        (
            f"[containerd]\n{key} = '{path}'",
            f"containerd.{key}: '{shown}' is not containerd's alone; name the directory that is",
        )
        for key, path, shown in [
            ("state", "/", "/"),
            ("state", "//", "/"),
            ("state", "/run/", "/run"),
            ("state", "/run/./", "/run"),
            ("state", "/proc/1/root", "/proc/1/root"),
            ("root", "/var", "/var"),
            ("root", "/var/lib", "/var/lib"),
            ("root", "/etc/containerd", "/etc/containerd"),
            ("root", "/var/lib/kubelet", "/var/lib/kubelet"),
        ]
    ),
    ("[containerd]\nstate = 'run/x'", "containerd.state: 'run/x' is not an absolute path"),
    ("[containerd]\nstate = ''", "containerd.state: is empty; name an absolute path"),
    (
        "[containerd]\nstate = '/run/x/../..'",
        "containerd.state: '/run/x/../..' goes back by '..'; write where it leads",
    ),
    ('[containerd]\nstate = "/run/\\u0000/x"', "containerd.state: holds a NUL"),
    (
        "[containerd]\naddress = 'tcp://127.0.0.1:1'",
        "containerd.address: 'tcp://127.0.0.1:1' is not a unix socket",
    ),
    (
        f"[containerd]\naddress = '/run/{'x' * 120}'",
        "containerd.address: is longer than the 107 bytes of a socket's path",
    ),
    (
        "[containerd]\nroot = '/run/containerd'",
        "containerd.state: is containerd.root too: /run/containerd; containerd refuses that itself",
    ),
    # rules
    ("[rule]", "rule: is a table, not an array of tables; write [[rule]]"),
    ("[[rule]]\nmatch = {}", 'rule[1]: has no name; give it one: name = "..."'),
    (
        "[[rule]]\nname = 'r'",
        "rule[1]: has no match; say what it is for; match = {} matches everything",
    ),
    ("[[rule]]\nname = ''\nmatch = {}", "rule[1].name: is empty"),
    (RULE + "protekt = true", 'rule[1].protekt: unknown key; did you mean "protect"?'),
    (RULE + RULE, "rule.r: is there twice; names tell them apart"),
    (
        RULE + "protect = true\ngrace = '1s'",
        "rule.r: protects, and says grace, which then means nothing; leave one of them out",
    ),
    (
        MATCH + "{ namespaces = 'x' }",
        'rule[1].match.namespaces: unknown key; did you mean "namespace"?',
    ),
    (
        MATCH + "{ namespace = '' }",
        'rule[1].match.namespace: is empty and matches nothing; "*" matches everything',
    ),
    (
        MATCH + "{ annotation.a.b = 5 }",
        'rule[1].match.annotation."a.b": is a whole number, not a glob',
    ),
    (MATCH + "'k8s.io'", "rule[1].match: is text, not a table"),
    (
        MATCH + "{ pod_namespace = 'kube-.*' }\nprotect = true",
        "rule[1].match.pod_namespace: 'kube-.*' is written like a regular expression; "
        'a glob says "anything" by * alone: "kube-*"',
    ),
    (
        MATCH + "{ namespace = 'kube-' }\nprotect = true",
        "rule[1].match.namespace: 'kube-' can never match: containerd's names begin and end with "
        'a letter or digit; did you mean "kube-*"?',
    ),
    (
        MATCH + "{ id = 'a/b' }\nprotect = true",
        "rule[1].match.id: 'a/b' can never match: no name of containerd's has '/'",
    ),
]


def complaint(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load(str(path), environ={})
    assert caught.value.code is ExitCode.CONFIG
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500
    return text.replace(str(path), "FILE")


@pytest.mark.fault("I21", "bad configuration at start")
@pytest.mark.parametrize(("text", "expected"), BROKEN)
def test_it_says_what_is_wrong(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert complaint(path) == f"FILE: {expected}"


def test_all_problems_are_there_and_the_first_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("mode = 1\n[cleanup]\ngrace = 2\n[log]\nlevel = 3")
    with pytest.raises(SettingsError) as caught:
        load(str(path), environ={"CONTAINERD_RECONCILER_WATCH_RELIST": "0s"})
    assert [problem.key for problem in caught.value.problems] == [
        "mode",
        "cleanup.grace",
        "log.level",
        "CONTAINERD_RECONCILER_WATCH_RELIST",
    ]
    assert "(and 3 more)" in str(caught.value)


# ------------------------------------------------------------------ what is no TOML file at all


def test_bytes_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b'mode = "observe"\n# \xff\xfe\n')
    assert complaint(path) == "FILE: line 2: is not UTF-8 text"
    path.write_bytes(bytes(range(128, 256)) * 100)
    assert complaint(path) == "FILE: line 1: is not UTF-8 text"


def test_a_hundred_megabytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    assert complaint(path) == "FILE: is larger than 1 MiB"


def test_a_directory_and_a_fifo_are_no_files(tmp_path: Path) -> None:
    assert complaint(tmp_path) == "FILE: is a directory"
    os.mkfifo(tmp_path / "fifo")
    assert complaint(tmp_path / "fifo") == "FILE: is not a file"
    assert complaint(Path("/dev/zero")) == "FILE: is not a file"


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    assert complaint(tmp_path / "none.toml") == "FILE: cannot be read: no such file"
    (tmp_path / "loop").symlink_to("loop")
    assert complaint(tmp_path / "loop").startswith("FILE: cannot be read: Too many levels")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_no_permission_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.touch(0o000)
    os.seteuid(65534)
    try:
        assert complaint(path).startswith("FILE: cannot be read: Permission denied")
    finally:
        os.seteuid(0)


def test_a_file_that_changes_during_the_read_is_read_again_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.toml"
    path.write_text('mode = "enforce"')
    real, left = os.fstat, [3]

    def changing(fd: int) -> os.stat_result:
        found = real(fd)
        if left[0]:
            left[0] -= 1
            path.write_text('mode = "enforce"' + "\n" * left[0])
        return found

    monkeypatch.setattr(os, "fstat", changing)
    assert load(str(path), environ={}).settings.mode.value == "enforce"
    left[0] = 1000
    assert complaint(path) == "FILE: changes while it is read"


# ------------------------------------------------------------------ whatever it is

values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
names = st.sampled_from(
    [part for key in known_keys() for part in key.split(".")]
    + ["rule", "name", "match", "annotation", "protect", "plugins"]
)
tables = st.recursive(
    st.dictionaries(names, values, max_size=4),
    lambda inner: st.dictionaries(names, inner | st.lists(inner, max_size=2) | values, max_size=4),
    max_leaves=8,
)


@pytest.mark.fault("I21")
@given(tables)
def test_any_table_gets_printable_problems_or_none(table: dict[str, object]) -> None:
    normal, hints = normalised(table)
    problems = check(normal, "FILE")
    for text in [*map(str, problems), *hints]:
        assert text.isprintable()
    if not problems:
        msgspec.convert(normal, Settings)  # what passes the check can be converted
