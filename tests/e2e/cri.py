"""Real Kubernetes pods without a kubelet: three calls of the container runtime interface.

`cri.proto` beside this file is compiled when the first pod is wanted, into memory only.
"""

import functools
import os
import tempfile
from pathlib import Path
from typing import Final, TypeVar

import anyio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_tools import protoc  # type: ignore[import-untyped]  # it comes without types
from grpclib.client import Channel, UnaryUnaryMethod

from tests.e2e import image
from tests.e2e.node import Node
from tests.e2e.task import Task

NAMESPACE: Final = "k8s.io"
"""Where the plugin keeps its containers."""

_SERVICE: Final = "/runtime.v1.RuntimeService/"
_NODE: Final = 2  # NamespaceMode: the machine's own network, so that no network plugin is needed

T = TypeVar("T")


def pod(node: Node, name: str, *, members: int = 2) -> list[Task]:
    """Run a pod on a node whose containerd serves Kubernetes: the sandbox, then its members."""
    node.import_image(NAMESPACE)
    return [node.task(one, NAMESPACE) for one in anyio.run(_run_pod, node, name, members)]


async def _run_pod(node: Node, name: str, members: int) -> list[str]:
    channel = Channel(path=os.fspath(node.apart.path(node.address)))
    try:
        with anyio.fail_after(30):
            sandbox = _sandbox(node.namespace, name)
            made = await _call(channel, "RunPodSandbox", config=sandbox)
            pod_id = str(made.pod_sandbox_id)  # type: ignore[attr-defined]  # made when it runs
            names = [f"{name}-{number}" for number in range(members)]
            return [pod_id, *[await _member(channel, pod_id, sandbox, one) for one in names]]
    finally:
        channel.close()


async def _member(channel: Channel, pod_id: str, sandbox: Message, name: str) -> str:
    config = _message(
        "ContainerConfig",
        metadata=_message("ContainerMetadata", name=name),
        image=_message("ImageSpec", image=image.NAME),
        command=image.FOR_EVER,
        linux=_message(
            "LinuxContainerConfig",
            security_context=_message(
                "LinuxContainerSecurityContext",
                namespace_options=_message("NamespaceOption", network=_NODE),
            ),
        ),
    )
    made = await _call(
        channel, "CreateContainer", pod_sandbox_id=pod_id, config=config, sandbox_config=sandbox
    )
    container = str(made.container_id)  # type: ignore[attr-defined]  # made when it runs
    await _call(channel, "StartContainer", container_id=container)
    return container


def _sandbox(cgroup: str, name: str) -> Message:
    return _message(
        "PodSandboxConfig",
        metadata=_message("PodSandboxMetadata", name=name, uid=f"uid-{name}", namespace="default"),
        linux=_message(
            "LinuxPodSandboxConfig",
            cgroup_parent=f"/{cgroup}",
            security_context=_message(
                "LinuxSandboxSecurityContext",
                namespace_options=_message("NamespaceOption", network=_NODE),
            ),
        ),
    )


async def _call(channel: Channel, method: str, /, **fields: object) -> Message:
    request = _message(f"{method}Request", **fields)
    answer = _classes()[f"runtime.v1.{method}Response"]
    return await UnaryUnaryMethod(channel, _SERVICE + method, type(request), answer)(request)


def _message(name: str, /, **fields: object) -> Message:
    return _classes()[f"runtime.v1.{name}"](**fields)


@functools.cache
def _classes() -> dict[str, type[Message]]:
    """Compile the definition and make a class of each of its messages."""
    source = Path(__file__).with_suffix(".proto")
    with tempfile.NamedTemporaryFile() as compiled:
        words = ["protoc", f"-I{source.parent}", f"--descriptor_set_out={compiled.name}"]
        assert protoc.main([*words, os.fspath(source)]) == 0
        found = descriptor_pb2.FileDescriptorSet.FromString(compiled.read())
    # A pool of its own: the default one may hold another runtime.v1 already.
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name for file in found.file], pool)
