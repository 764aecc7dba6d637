"""What a kubelet makes of the one container of a manifest, by the container runtime interface.

The rest of a kubelet (probes, networks, fetching images) is not here: our own Python stands in for
the image unless the node has it, and the pod has the machine's network.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from google.protobuf.message import Message

from tests.e2e import cri, image
from tests.e2e.apart import REPOSITORY
from tests.e2e.node import Node
from tests.e2e.task import Task


class FieldRef(msgspec.Struct, rename="camel"):
    """A field of the pod itself."""

    field_path: str


class ValueFrom(msgspec.Struct, rename="camel"):
    """Where the kubelet takes a value from."""

    field_ref: FieldRef


class Variable(msgspec.Struct, rename="camel"):
    """An environment variable."""

    name: str
    value: str = ""
    value_from: ValueFrom | None = None

    def on(self, node: str) -> str:
        """Give the value that a container has on a node."""
        if self.value_from is None:
            return self.value
        assert self.value_from.field_ref.field_path == "spec.nodeName"
        return node


class VolumeMount(msgspec.Struct, rename="camel"):
    """Where a volume is in the container."""

    name: str
    mount_path: str
    mount_propagation: str = "None"


class HttpGet(msgspec.Struct):
    """What a probe asks for."""

    path: str
    port: str


class Probe(msgspec.Struct, rename="camel"):
    """A probe."""

    http_get: HttpGet


class SecurityContext(msgspec.Struct, rename="camel"):
    """What it may do."""

    privileged: bool
    read_only_root_filesystem: bool


class Container(msgspec.Struct, rename="camel"):
    """The container."""

    name: str
    image: str
    command: list[str]
    args: list[str]
    env: list[Variable]
    liveness_probe: Probe
    readiness_probe: Probe
    security_context: SecurityContext
    volume_mounts: list[VolumeMount]


class HostPath(msgspec.Struct):
    """A directory of the node."""

    path: str
    type: str


class Named(msgspec.Struct):
    """An object of the cluster."""

    name: str


class Volume(msgspec.Struct, rename="camel"):
    """A volume."""

    name: str
    host_path: HostPath | None = None
    config_map: Named | None = None


class Pod(msgspec.Struct):
    """The pod."""

    host_pid: bool = msgspec.field(name="hostPID")
    containers: list[Container]
    volumes: list[Volume]


class _Template(msgspec.Struct):
    spec: Pod


class _Spec(msgspec.Struct):
    template: _Template


class DaemonSet(msgspec.Struct, tag_field="kind", tag="DaemonSet"):
    """As much of a DaemonSet as a kubelet sees of it."""

    spec: _Spec

    @property
    def pod(self) -> Pod:
        """What runs on each node."""
        return self.spec.template.spec


_PROPAGATION: Final = {"None": 0, "HostToContainer": 1, "Bidirectional": 2}


def read(manifest: Path) -> Pod:
    """Read the pod of a DaemonSet."""
    return msgspec.yaml.decode(manifest.read_bytes(), type=DaemonSet).pod


def run(
    node: Node,
    pod: Pod,
    config: Path,
    *,
    moved: Mapping[str, Path],
    env: Mapping[str, str],
    with_image: bool = False,
) -> Task:
    """Run it on a node.

    Args:
        node: Where.
        pod: What.
        config: A directory in place of the ConfigMap.
        moved: Host paths that are elsewhere on this node, and then also in the pod.
        env: Variables instead of the manifest's, or besides them.
        with_image: Whether the node has the manifest's image, and it is to be run.
    """
    (container,) = pod.containers
    volumes = {one.name: one for one in pod.volumes}
    mounts = [] if with_image else _python()
    for one in container.volume_mounts:
        host, place = volumes[one.name].host_path, one.mount_path
        if host is None:
            mounts.append(cri.mount(config, place, readonly=True))
            continue
        if host.type == "DirectoryOrCreate":
            node.apart.path(host.path).mkdir(parents=True, exist_ok=True)
        path = moved.get(host.path, Path(host.path))
        inside = os.fspath(path) if host.path in moved else place
        mounts.append(cri.mount(path, inside, _PROPAGATION[one.mount_propagation]))
    assert container.command == ["containerd-reconciler"]
    said = {one.name: one.on(os.uname().nodename) for one in container.env}
    ours = [sys.executable, "-m", "reconciler"]
    more = {} if with_image else {"PYTHONPATH": os.fspath(REPOSITORY)}
    return cri.single(
        node,
        container.name,
        image=container.image if with_image else image.NAME,
        command=[*(container.command if with_image else ours), *container.args],
        env={**more, **said, **env},
        mounts=mounts,
        host_pid=pod.host_pid,
        privileged=container.security_context.privileged,
        readonly=container.security_context.read_only_root_filesystem,
    )


def _python() -> list[Message]:
    """Mount what our own Python needs: the machine's libraries, itself, and the program."""
    wanted = {"/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, os.fspath(REPOSITORY)}
    there = sorted(path for path in wanted if os.path.isdir(path))
    return [cri.mount(Path(path).resolve(), path, readonly=True) for path in there]
