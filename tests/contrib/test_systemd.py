"""The systemd units: systemd finds nothing to say, and no directive makes a mount namespace."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.probe.privileges import PARENT, WORKER

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
DROP_INS = {
    "notify-reload.conf": ["containerd-reconciler.service"],
    "poststop-hooks.conf": SERVICES,
    "kill-wedged.conf": ["containerd-rescue.service"],
}
MOUNT_NAMESPACE = [
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "ProtectKernelTunables",
    "ProtectControlGroups",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectProc",
    "ProcSubset",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "InaccessiblePaths",
    "TemporaryFileSystem",
    "DynamicUser",
    "ExecPaths",
    "NoExecPaths",
    "BindPaths",
    "BindReadOnlyPaths",
    "RootDirectory",
    "RootImage",
    "MountImages",
    "ExtensionImages",
    "MountFlags",
    "MountAPIVFS",
    "PrivateIPC",
    "LogNamespace",
]
"""Directives of systemd.exec(5) that give the service a mount namespace of its own."""

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
    ),
]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with commands that exist on this machine, so that systemd can check the rest."""
    for path in UNITS.iterdir():
        text = re.sub(r"(?m)^(Exec\w+=)/usr/local/bin/\S+", r"\1/bin/true", path.read_text())
        # A template is checked as one of its instances.
        (tmp_path / path.name.replace("@.", "@k3s.")).write_text(text)
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def verify(path: Path) -> str:
    done = analyze("verify", "--man=no", "--recursive-errors=no", str(path))
    return done.stdout + done.stderr + (f"exit {done.returncode}" if done.returncode else "")


@pytest.mark.parametrize("unit", [*SERVICES, "containerd-cleanup.timer"])
def test_systemd_has_nothing_to_say_about_a_unit(installed: Path, unit: str) -> None:
    assert verify(installed / unit.replace("@.", "@k3s.")) == ""


def test_a_broken_unit_would_be_noticed(installed: Path) -> None:
    unit = installed / SERVICES[0]
    unit.write_text(unit.read_text().replace("UMask=0077", "UMask=often"))
    # Newer ones name the directive and no longer its kind.
    assert re.search("Failed to parse (mode value|UMask)", verify(unit))


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_hardened_below_five(installed: Path, unit: str) -> None:
    path = installed / unit.replace("@.", "@k3s.")
    done = analyze("security", "--offline=true", "--threshold=50", str(path))
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 5.0
    assert done.returncode == 0


def values(unit: str, directive: str) -> set[str]:
    """Everything a directive is set to, one word each."""
    lines = re.findall(rf"(?m)^{directive}=(.+)$", (UNITS / unit).read_text())
    return {word for line in lines for word in line.split()}


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_grants_the_capabilities_that_are_held_and_no_other(unit: str) -> None:
    assert values(unit, "CapabilityBoundingSet") == {one.name for one in (*WORKER, *PARENT)}


def test_the_template_is_the_daemon_but_for_its_name() -> None:
    """What one unit learns, the other must; each instance has its own directories."""

    def directives(unit: str) -> list[str]:
        lines = (UNITS / unit).read_text().splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    plain = directives("containerd-reconciler.service")
    template = directives("containerd-reconciler@.service")
    apart = [line for line in template if line not in plain]
    assert all("%i" in line for line in apart)
    assert [line for line in template if line in plain] == [
        line for line in plain if line in template
    ]
    assert len(template) == len(plain)
    assert {line.partition("=")[0] for line in apart} == {
        "Description",
        "After",
        "ConditionPathExists",
        "ExecStart",
        "ExecReload",
        "RuntimeDirectory",
        "StateDirectory",
        "LogsDirectory",
    }


def test_every_capability_is_named_with_its_reason() -> None:
    text = (UNITS / "containerd-reconciler.service").read_text()
    comments = " ".join(re.findall(r"(?m)^#(.*)$", text))
    for one in (*WORKER, *PARENT):
        assert one.name.removeprefix("CAP_") in comments


def test_the_daemon_may_make_the_calls_it_confines_itself_with() -> None:
    allowed = values("containerd-reconciler.service", "SystemCallFilter")
    done = analyze("syscall-filter", *(group for group in allowed if group.startswith("@")))
    allowed |= set(done.stdout.split())
    assert {
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
        "capset",
        "capget",
    } <= allowed
    assert "@process" in allowed, "prctl is in it"
    assert values("containerd-reconciler.service", "NoNewPrivileges") == {"yes"}


@pytest.mark.parametrize("path", sorted(UNITS.iterdir()), ids=lambda path: path.name)
def test_no_directive_makes_a_mount_namespace(path: Path) -> None:
    set_here = re.findall(r"(?m)^(\w+)=", path.read_text())
    assert not set(set_here) & set(MOUNT_NAMESPACE)


@pytest.mark.parametrize("path", sorted(UNITS.iterdir()), ids=lambda path: path.name)
def test_no_directive_forbids_openat2(path: Path) -> None:
    """Nothing is removed without it. The filter allows it, and RestrictSUIDSGID would win."""
    assert "RestrictSUIDSGID" not in re.findall(r"(?m)^(\w+)=", path.read_text())


def test_where_the_examples_write_is_made_by_the_unit() -> None:
    for config in UNITS.parents[1].joinpath("config").glob("*.toml"):
        for path in re.findall(r'(?m)^path = "(/.+)"', config.read_text()):
            assert Path(path).parent == Path("/var/log/containerd-reconciler")
    assert values("containerd-reconciler.service", "LogsDirectory") == {"containerd-reconciler"}


def test_every_directive_that_makes_one_is_named_with_the_reason() -> None:
    text = (UNITS / "containerd-reconciler.service").read_text()
    for directive in MOUNT_NAMESPACE[:16]:
        assert directive in text, f"{directive} is left out without a word"


@pytest.mark.parametrize(("drop_in", "units"), DROP_INS.items(), ids=DROP_INS)
def test_a_drop_in_names_only_directives_its_unit_has(drop_in: str, units: list[str]) -> None:
    keys = re.findall(r"(?m)^(\w+)=", (UNITS / drop_in).read_text())
    for unit in units:
        known = re.findall(r"(?m)^(\w+)=", (UNITS / unit).read_text())
        assert set(keys) <= {*known, "IPAddressDeny"}, unit


def test_the_units_start_the_commands_of_this_package() -> None:
    commands = {
        match
        for path in UNITS.glob("*.service")
        for match in re.findall(r"(?m)^Exec\w+=/usr/local/bin/(\S+ \S+)", path.read_text())
    }
    assert commands == {
        "containerd-reconciler daemon",
        "containerd-reconciler status",
        "containerd-reconciler clean",
        "containerd-cleanup --threshold=24h",
    }


def test_the_rescue_that_ends_shims_is_the_usual_one_otherwise() -> None:
    def commands(name: str) -> list[str]:
        return re.findall(r"(?m)^ExecStart=(.*)", (UNITS / name).read_text())

    reset, command = commands("kill-wedged.conf")
    assert reset == "", "without it systemd would run both"
    assert [command.replace(" --kill-wedged", "")] == commands("containerd-rescue.service")
    assert "--kill-wedged" in command
