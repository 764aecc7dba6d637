"""Real Kubernetes pods without a kubelet: three calls of the container runtime interface.

`cri.proto` beside this file is compiled when the first pod is wanted, into memory only.
"""

import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import anyio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_tools import protoc  # type: ignore[import-untyped]  # it comes without types
from grpclib.client import Channel, UnaryUnaryMethod

from tests.e2e import image
from tests.e2e.node import Node
from tests.e2e.processes import PATIENCE
from tests.e2e.task import Task

NAMESPACE: Final = "k8s.io"
"""Where the plugin keeps its containers."""

_SERVICE: Final = "/runtime.v1.RuntimeService/"
_NODE: Final = 2  # NamespaceMode: the machine's own network, so that no network plugin is needed

T = TypeVar("T")


def pod(node: Node, name: str, *, members: int = 2) -> list[Task]:
    """Run a pod on a node whose containerd serves Kubernetes: the sandbox, then its members."""
    node.import_image(NAMESPACE)
    return run(node, name, members=members, parent=f"/{node.namespace}")


def run(node: Node, name: str, *, members: int, parent: str) -> list[Task]:
    """Run a pod of the image that the namespace has.

    Args:
        node: Where.
        name: Its name.
        members: How many containers it has besides the sandbox.
        parent: The cgroup that theirs are to be in; empty for containerd's own layout.
    """
    made = anyio.run(_run_pod, node, name, members, parent)
    return [node.task(one, NAMESPACE) for one in made]


def sandboxes(node: Node) -> dict[str, bool]:
    """List the pods by the ids of their sandboxes, with whether they are ready."""
    told = anyio.run(_ask, node, "ListPodSandbox")
    items = told.items  # type: ignore[attr-defined]  # made when it runs
    return {one.id: one.state == 0 for one in items}


def remove(node: Node, sandbox: str) -> None:
    """Stop a pod and remove it, by the id of its sandbox, as a kubelet does."""
    for method in ("StopPodSandbox", "RemovePodSandbox"):
        anyio.run(functools.partial(_ask, node, method, pod_sandbox_id=sandbox))


def execute(node: Node, container: str, *words: str) -> str:
    """Run a command in a container, as `kubectl exec` does, and give what it prints."""
    told = anyio.run(
        functools.partial(
            _ask, node, "ExecSync", container_id=container, cmd=words, timeout=int(PATIENCE)
        )
    )
    assert told.exit_code == 0, told  # type: ignore[attr-defined]  # made when it runs
    return bytes(told.stdout).decode()  # type: ignore[attr-defined]  # as above


def mount(path: Path, place: str, propagation: int = 0, *, readonly: bool = False) -> Message:
    """Describe a mount of a directory of the node in a container; propagation as `cri.proto`."""
    return _message(
        "Mount",
        container_path=place,
        host_path=os.fspath(path),
        propagation=propagation,
        readonly=readonly,
    )


def single(
    node: Node,
    name: str,
    *,
    image: str,
    command: Sequence[str],
    env: Mapping[str, str],
    mounts: Sequence[Message],
    host_pid: bool,
    privileged: bool,
    readonly: bool,
) -> Task:
    """Run a pod of one container, and log what it says to :func:`log_of` that."""
    node.import_image(NAMESPACE)
    logs = log_of(node, name).parent
    logs.mkdir()
    sandbox = _sandbox(node, name, host_pid=host_pid, privileged=privileged, logs=os.fspath(logs))
    config = _container(
        name,
        image,
        command=command,
        envs=[_message("KeyValue", key=key, value=value) for key, value in env.items()],
        mounts=mounts,
        log_path=log_of(node, name).name,
        security_context=_security(
            host_pid=host_pid, privileged=privileged, readonly_rootfs=readonly
        ),
    )
    return node.task(anyio.run(_run_single, node, sandbox, config), NAMESPACE)


def log_of(node: Node, name: str) -> Path:
    """Say where the only container of a pod logs to."""
    return node.root.parent / f"logs-{name}" / "0.log"


async def _run_single(node: Node, sandbox: Message, config: Message) -> str:
    channel = Channel(path=os.fspath(node.apart.path(node.address)))
    try:
        with anyio.fail_after(30):
            made = await _call(channel, "RunPodSandbox", config=sandbox)
            pod_id = str(made.pod_sandbox_id)  # type: ignore[attr-defined]  # made when it runs
            return await _start(channel, pod_id, sandbox, config)
    finally:
        channel.close()


async def _ask(node: Node, method: str, /, **fields: object) -> Message:
    channel = Channel(path=os.fspath(node.apart.path(node.address)))
    try:
        with anyio.fail_after(30):
            return await _call(channel, method, **fields)
    finally:
        channel.close()


async def _run_pod(node: Node, name: str, members: int, parent: str) -> list[str]:
    channel = Channel(path=os.fspath(node.apart.path(node.address)))
    try:
        with anyio.fail_after(30):
            sandbox = _sandbox(node, name, parent=parent)
            made = await _call(channel, "RunPodSandbox", config=sandbox)
            pod_id = str(made.pod_sandbox_id)  # type: ignore[attr-defined]  # made when it runs
            names = [f"{name}-{number}" for number in range(members)]
            return [pod_id, *[await _member(channel, pod_id, sandbox, one) for one in names]]
    finally:
        channel.close()


async def _member(channel: Channel, pod_id: str, sandbox: Message, name: str) -> str:
    config = _container(name, image.NAME, command=image.FOR_EVER, security_context=_security())
    return await _start(channel, pod_id, sandbox, config)


def _container(name: str, image: str, *, security_context: Message, **fields: object) -> Message:
    return _message(
        "ContainerConfig",
        metadata=_message("ContainerMetadata", name=name),
        image=_message("ImageSpec", image=image),
        linux=_message("LinuxContainerConfig", security_context=security_context),
        **fields,
    )


def _security(*, host_pid: bool = False, **fields: object) -> Message:
    return _message(
        "LinuxContainerSecurityContext", namespace_options=_namespaces(host_pid=host_pid), **fields
    )


def _namespaces(*, host_pid: bool = False) -> Message:
    return _message("NamespaceOption", network=_NODE, pid=_NODE if host_pid else 0)


async def _start(channel: Channel, pod_id: str, sandbox: Message, config: Message) -> str:
    made = await _call(
        channel, "CreateContainer", pod_sandbox_id=pod_id, config=config, sandbox_config=sandbox
    )
    container = str(made.container_id)  # type: ignore[attr-defined]  # made when it runs
    await _call(channel, "StartContainer", container_id=container)
    return container


def _sandbox(
    node: Node,
    name: str,
    *,
    host_pid: bool = False,
    privileged: bool = False,
    logs: str = "",
    parent: str | None = None,
) -> Message:
    return _message(
        "PodSandboxConfig",
        metadata=_message("PodSandboxMetadata", name=name, uid=f"uid-{name}", namespace="default"),
        log_directory=logs,
        linux=_message(
            "LinuxPodSandboxConfig",
            cgroup_parent=f"/{node.namespace}" if parent is None else parent,
            security_context=_message(
                "LinuxSandboxSecurityContext",
                namespace_options=_namespaces(host_pid=host_pid),
                privileged=privileged,
            ),
        ),
    )


async def _call(channel: Channel, method: str, /, **fields: object) -> Message:
    request = _message(f"{method}Request", **fields)
    answer = _classes()[f"runtime.v1.{method}Response"]
    return await UnaryUnaryMethod(channel, _SERVICE + method, type(request), answer)(request)


def _message(name: str, /, **fields: object) -> Message:
    return _classes()[f"runtime.v1.{name}"](**fields)


def _classes() -> dict[str, type[Message]]:
    return compiled(Path(__file__).with_suffix(".proto"))


@functools.cache
def compiled(source: Path) -> dict[str, type[Message]]:
    """Compile a definition and make a class of each of its messages."""
    with tempfile.NamedTemporaryFile() as written:
        words = ["protoc", f"-I{source.parent}", f"--descriptor_set_out={written.name}"]
        assert protoc.main([*words, os.fspath(source)]) == 0
        found = descriptor_pb2.FileDescriptorSet.FromString(written.read())
    # A pool of its own: the default one may hold another runtime.v1 already.
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name for file in found.file], pool)
