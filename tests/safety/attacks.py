"""What a dead bundle may hold, name or point at to have something else removed in its place.

Each attack gets a complete dead bundle on a ground, arms it, and adds what must survive to the
ground's canaries. What is expected of a `clean` afterwards stands beside it.
"""

import json
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.safety.ground import Ground
from tests.support.bundles import Bundle, listen
from tests.support.canary import Canary, plant, snapshot
from tests.support.mountns import bind, tmpfs, umount

Arm = Callable[[Ground, Bundle], None]

CLEANED, KEPT, BLOCKED, UNSEEN = "cleaned", "kept", "blocked", "unseen"
"""How a bundle may end: removed; not judged dead; judged dead and kept; not shown at all."""


@dataclass(frozen=True)
class Attack:
    """One way to point at something else."""

    name: str
    arm: Arm
    expected: str


def _canary(on: Ground, name: str, where: Path | None = None) -> Path:
    made = plant((where or on.site.run / "canaries") / name)
    on.canaries.append(made)
    return made.root


def _rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _keep(on: Ground, path: Path) -> None:
    """Take a single thing for a canary."""
    on.canaries.append(Canary(path, snapshot(path)))


# ---------------------------------------------------------------------- the bundle and its rootfs


def rootfs_is_a_symlink(on: Ground, bundle: Bundle) -> None:
    umount(bundle.rootfs)
    bundle.rootfs.rmdir()
    bundle.rootfs.symlink_to(_canary(on, "behind-rootfs"))


def rootfs_is_a_bind_of_a_directory(on: Ground, bundle: Bundle) -> None:
    umount(bundle.rootfs)
    bind(_canary(on, "bound-rootfs", on.site.base / "canaries"), bundle.rootfs)


def rootfs_is_a_bind_of_data_in_memory(on: Ground, bundle: Bundle) -> None:
    umount(bundle.rootfs)
    bind(_canary(on, "bound-rootfs"), bundle.rootfs)


def rootfs_is_a_tmpfs(on: Ground, bundle: Bundle) -> None:
    umount(bundle.rootfs)
    tmpfs(bundle.rootfs)
    _canary(on, "data", bundle.rootfs)


def data_lie_under_the_mount(on: Ground, bundle: Bundle) -> None:
    umount(bundle.rootfs)
    _canary(on, "data", bundle.rootfs)


def a_directory_is_mounted_beside_rootfs(on: Ground, bundle: Bundle) -> None:
    (bundle.path / "extra").mkdir()
    bind(_canary(on, "extra"), bundle.path / "extra")


def a_file_is_mounted_over_config_json(on: Ground, bundle: Bundle) -> None:
    bind(_canary(on, "file") / "data-0", bundle.path / "config.json")


def a_directory_is_mounted_over_the_bundle(on: Ground, bundle: Bundle) -> None:
    bind(_canary(on, "over"), bundle.path)


def links_lead_out_of_the_bundle(on: Ground, bundle: Bundle) -> None:
    behind = _canary(on, "behind-links")
    (bundle.path / "work").unlink()
    for name in ("work", "s", "-rf", "new\nline", "\udcff", "x" * 255):
        (bundle.path / name).symlink_to(behind)
    os.link(behind / "data-0", bundle.path / "hard")


def special_files_lie_in_it(on: Ground, bundle: Bundle) -> None:
    deep = bundle.path / "deep"
    deep.mkdir()
    os.mkfifo(deep / "fifo")
    listen(deep / "socket").close()
    os.mknod(deep / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def the_bundle_is_a_symlink(on: Ground, bundle: Bundle) -> None:
    umount(bundle.rootfs)
    aside = on.site.run / "canaries" / "aside"
    aside.parent.mkdir(exist_ok=True)
    bundle.path.rename(aside)
    bundle.path.symlink_to(aside)
    _keep(on, aside)


def the_namespace_is_a_symlink(on: Ground, bundle: Bundle) -> None:
    umount(bundle.rootfs)
    aside = on.site.run / "canaries" / "namespace"
    aside.mkdir(parents=True)
    bundle.path.rename(aside / bundle.path.name)
    (on.site.tree / "linked").symlink_to(aside)
    _keep(on, aside)


# ------------------------------------------------------------------- places that go by its id


def runc_state_is_a_symlink(on: Ground, bundle: Bundle) -> None:
    aside = _canary(on, "behind-runc")
    for path in bundle.runc_state.iterdir():
        path.unlink()
    bundle.runc_state.rmdir()
    bundle.runc_state.symlink_to(aside)


def the_work_directory_is_a_symlink(on: Ground, bundle: Bundle) -> None:
    bundle.work.rmdir()
    bundle.work.symlink_to(_canary(on, "behind-work"))


def the_work_directory_is_a_mount(on: Ground, bundle: Bundle) -> None:
    bind(_canary(on, "bound-work"), bundle.work)


def _runc_root(on: Ground, bundle: Bundle, root: str) -> None:
    _rewrite(bundle.path / "options.json", root=root)


def options_name_the_root_directory(on: Ground, bundle: Bundle) -> None:
    _runc_root(on, bundle, "/")


def options_name_somebody_elses_directory(on: Ground, bundle: Bundle) -> None:
    root = on.site.run / "canaries" / "not-runc"
    _canary(on, bundle.path.name, root / "default")
    _runc_root(on, bundle, str(root))


def options_climb_out(on: Ground, bundle: Bundle) -> None:
    _canary(on, bundle.path.name, on.site.run / "default")
    _runc_root(on, bundle, str(on.site.run / "s" / ".."))


def options_are_relative(on: Ground, bundle: Bundle) -> None:
    _runc_root(on, bundle, "run")


# ------------------------------------------------------------------------------------ cgroups


def name_cgroups(bundle: Bundle, path: str, paths: dict[str, str]) -> None:
    _rewrite(bundle.path / "config.json", linux={"cgroupsPath": path})
    _rewrite(bundle.runc_state / "state.json", cgroup_paths=paths)


def _remove_own_cgroups(bundle: Bundle) -> None:
    for group in bundle.cgroups:
        group.rmdir()


def cgroup_paths_climb_out(on: Ground, bundle: Bundle) -> None:
    _remove_own_cgroups(bundle)
    behind = _canary(on, bundle.path.name)
    climbing = f"/sys/fs/cgroup/pids/../../../..{behind}"
    name_cgroups(bundle, f"/../../../..{behind}", {"pids": climbing})


def cgroup_paths_are_no_cgroups(on: Ground, bundle: Bundle) -> None:
    _remove_own_cgroups(bundle)
    behind = _canary(on, bundle.path.name)
    name_cgroups(bundle, f"/{on.site.cgroup}/nowhere", {"pids": str(behind)})


def cgroup_paths_name_the_root(on: Ground, bundle: Bundle) -> None:
    _remove_own_cgroups(bundle)
    name_cgroups(bundle, "/", {group.parts[4]: f"/sys/fs/cgroup/{group.parts[4]}" for group in
                                bundle.cgroups})  # fmt: skip


def cgroup_paths_name_a_live_task(on: Ground, bundle: Bundle) -> None:
    _remove_own_cgroups(bundle)
    live = on.live[0].bundle
    path = "/" + "/".join(live.cgroups[0].parts[5:])
    name_cgroups(bundle, path, {group.parts[4]: str(group) for group in live.cgroups})


def cgroup_paths_name_a_stopped_task(on: Ground, bundle: Bundle) -> None:
    _remove_own_cgroups(bundle)
    live = on.live[1].bundle
    path = "/" + "/".join(live.cgroups[0].parts[5:])
    name_cgroups(bundle, path, {group.parts[4]: str(group) for group in live.cgroups})


# ------------------------------------------------------------------------------------ sockets


def _name_socket(bundle: Bundle, path: str) -> None:
    (bundle.path / "address").write_text(f"unix://{path}")
    told = {"version": 3, "address": f"unix://{path}", "protocol": "ttrpc"}
    (bundle.path / "bootstrap.json").write_text(json.dumps(told))


def the_address_is_a_living_service(on: Ground, bundle: Bundle) -> None:
    path = on.site.run / "docker.sock"
    listener = listen(path)
    os.set_inheritable(listener.fileno(), False)
    on.open_sockets.append(listener)
    _keep(on, path)
    _name_socket(bundle, str(path))


def the_address_is_a_service_that_is_down(on: Ground, bundle: Bundle) -> None:
    path = on.site.run / "other.sock"
    listen(path).close()
    _keep(on, path)
    _name_socket(bundle, str(path))


def the_address_climbs_out_of_the_sockets(on: Ground, bundle: Bundle) -> None:
    path = on.site.run / "climbed.sock"
    listen(path).close()
    _keep(on, path)
    _name_socket(bundle, str(on.site.run / "s" / ".." / path.name))


def the_address_is_a_file(on: Ground, bundle: Bundle) -> None:
    path = on.site.run / "s" / "file"
    path.write_text("precious")
    _keep(on, path)
    _name_socket(bundle, str(path))


def the_address_is_a_datagram_socket(on: Ground, bundle: Bundle) -> None:
    path = on.site.run / "s" / "datagrams"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    on.open_sockets.append(listener)
    _keep(on, path)
    _name_socket(bundle, str(path))


def the_address_is_a_live_tasks(on: Ground, bundle: Bundle) -> None:
    _name_socket(bundle, str(on.live[0].bundle.socket))


# ------------------------------------------------------------------------------------ programs


def _evil(on: Ground, name: str) -> Path:
    """Make a program that leaves a mark, where others than root may write."""
    directory = on.site.run / "evil"
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\ntouch {on.mark}\n")
    program.chmod(0o755)
    for path in (directory, program):
        os.chown(path, 1000, 1000)
    return program


def the_runtime_is_not_roots(on: Ground, bundle: Bundle) -> None:
    on.have_runc()
    _rewrite(bundle.path / "options.json", binary_name=str(_evil(on, "runc")))
    hooks = {"Hooks": {"poststop": [{"path": "/bin/true"}]}, "labels": [f"bundle={bundle.path}"]}
    _rewrite(bundle.runc_state / "state.json", config=hooks)


def the_hooks_are_not_roots(on: Ground, bundle: Bundle) -> None:
    """runc runs as root whatever a state file says, so the file must be root's."""
    on.have_runc()
    root = on.site.run / "evil-runc"
    state = root / "default" / bundle.path.name
    state.mkdir(parents=True)
    told = json.loads((bundle.runc_state / "state.json").read_text())
    told["config"] |= {"Hooks": {"poststop": [{"path": str(_evil(on, "hook"))}]}}
    (state / "state.json").write_text(json.dumps(told))
    for path in (root, root / "default", state, state / "state.json"):
        os.chown(path, 1000, 1000)
    _keep(on, state)
    _runc_root(on, bundle, str(root))


# ------------------------------------------------------------------------------------ processes


def init_pid_is_somebody_elses(on: Ground, bundle: Bundle) -> None:
    (bundle.path / "init.pid").write_text(str(on.live[0].init.pid))


def the_pod_is_another_directory(on: Ground, bundle: Bundle) -> None:
    (bundle.path / "sandbox").write_text(f"../alive/{on.live[0].bundle.path.name}")


def everything_is_gone_but_data(on: Ground, bundle: Bundle) -> None:
    for path in bundle.path.iterdir():
        with suppress(IsADirectoryError):
            path.unlink()
    umount(bundle.rootfs)
    _canary(on, "data", bundle.rootfs)


ATTACKS = tuple(
    Attack(arm.__name__.replace("_", " "), arm, expected)
    for expected, arms in {
        CLEANED: (
            cgroup_paths_are_no_cgroups,
            the_address_is_a_file,
            init_pid_is_somebody_elses,
            the_pod_is_another_directory,
            rootfs_is_a_symlink,
            rootfs_is_a_bind_of_a_directory,
            rootfs_is_a_bind_of_data_in_memory,
            links_lead_out_of_the_bundle,
            special_files_lie_in_it,
            runc_state_is_a_symlink,
            the_work_directory_is_a_symlink,
            the_work_directory_is_a_mount,
            options_name_the_root_directory,
            options_name_somebody_elses_directory,
            options_climb_out,
            options_are_relative,
            cgroup_paths_name_a_stopped_task,
            the_address_climbs_out_of_the_sockets,
            the_runtime_is_not_roots,
        ),
        KEPT: (
            a_directory_is_mounted_over_the_bundle,
            cgroup_paths_climb_out,
            cgroup_paths_name_the_root,
            cgroup_paths_name_a_live_task,
            the_address_is_a_living_service,
            the_address_is_a_service_that_is_down,
            the_address_is_a_datagram_socket,
            the_address_is_a_live_tasks,
            the_bundle_is_a_symlink,
        ),
        BLOCKED: (
            rootfs_is_a_tmpfs,
            data_lie_under_the_mount,
            a_directory_is_mounted_beside_rootfs,
            a_file_is_mounted_over_config_json,
            the_hooks_are_not_roots,
            everything_is_gone_but_data,
        ),
        UNSEEN: (the_namespace_is_a_symlink,),
    }.items()
    for arm in arms
)
