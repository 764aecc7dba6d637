"""Instances: the containerds of a node that is not the usual one, by name (`--instance k3s`).

Each has a state tree, a daemon, configuration files, a socket and a port of its own, and all of
these follow from the name: so one template unit serves every one of them. Where a product keeps its
containerd is known for those in :data:`KNOWN`; of any other name the files must say it.

Sources: the products' documentation and nodes; k0s and MicroK8s keep the socket beside the state
directory, and not in it.
"""

import os
import re
from typing import Final
from zlib import crc32

from reconciler.model.layout import TASKS
from reconciler.settings.files import USUAL, Places

KNOWN: Final = {
    "k3s": {
        "state": "/run/k3s/containerd",
        "root": "/var/lib/rancher/k3s/agent/containerd",
        "address": "/run/k3s/containerd/containerd.sock",
    },
    "rke2": {
        "state": "/run/k3s/containerd",
        "root": "/var/lib/rancher/rke2/agent/containerd",
        "address": "/run/k3s/containerd/containerd.sock",
    },
    "k0s": {
        "state": "/run/k0s/containerd",
        "root": "/var/lib/k0s/containerd",
        "address": "/run/k0s/containerd.sock",
    },
    "microk8s": {
        "state": "/var/snap/microk8s/common/run/containerd",
        "root": "/var/snap/microk8s/common/var/lib/containerd",
        "address": "/var/snap/microk8s/common/run/containerd.sock",
    },
    "docker": {
        "state": "/run/docker/containerd/daemon",
        "root": "/var/lib/docker/containerd/daemon",
        "address": "/run/docker/containerd/containerd.sock",
    },
}
"""The products that start a containerd of their own, and where it keeps its things."""

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_FIRST_PORT: Final = 9619  # after that of the usual containerd
_PORTS: Final = 256


def check_instance(name: str) -> str:
    """Give the name back.

    Raises:
        ValueError: It cannot be part of a path.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("an instance is named by small letters, digits and inner hyphens")
    return name


def places_of(name: str) -> Places:
    """Name the files of an instance, none of which are the usual one's; empty for that one."""
    if not name:
        return USUAL
    etc = f"/etc/containerd-reconciler/{check_instance(name)}"
    vendor = f"/usr/lib/containerd-reconciler/{name}/config.toml"
    return Places(vendor, f"{etc}/config.toml", f"{etc}/conf.d")


def keys_of(name: str) -> dict[str, str]:
    """Give what an instance's name says, by dotted key; files, environment and options win."""
    here = {f"containerd.{key}": path for key, path in KNOWN.get(name, {}).items()}
    return here | {
        "http.socket": f"/run/containerd-reconciler/{name}/http.sock",
        "http.listen": f"127.0.0.1:{_port(name)}",
    }


def _port(name: str) -> int:
    """Give each product a port of its own, and any other name one that its letters make."""
    known = tuple(KNOWN)
    if name in known:
        return _FIRST_PORT + known.index(name)
    return _FIRST_PORT + len(known) + crc32(name.encode()) % _PORTS


def instances_here(top: str = "/") -> tuple[str, ...]:
    """Name the products whose containerd has run tasks on this node."""

    def is_dir(path: str) -> bool:
        return os.path.isdir(os.path.join(top, path.lstrip("/")))

    tasks = TASKS.decode()
    return tuple(
        name
        for name, its in KNOWN.items()
        if is_dir(its["root"]) and is_dir(os.path.join(its["state"], tasks))
    )
