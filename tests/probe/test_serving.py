"""Who serves a bundle: its own shim or its pod's, of which runtime, and at which socket."""

import json
import os
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.model.evidence import Look, RuntimeState, ShimState
from reconciler.model.ids import BundleKey, escape
from reconciler.probe.tree import TreeInspector
from tests.probe.world import KEY, World, start_of


def test_a_member_is_served_by_its_sandbox(world: World) -> None:
    annotations = {"io.kubernetes.cri.sandbox-id": "pod1"}
    here = world.bundle("c1", annotations=annotations)
    world.bundle("pod1", annotations=annotations)
    world.listen(world.socket_of("pod1"))
    for name in ("address", "shim-binary-path"):
        (here / name).unlink()
    look = world.look()
    assert look.shim.state is ShimState.ALIVE
    assert look.shim.group == "pod1"
    assert look.runtime.state is RuntimeState.KNOWN
    assert look.labels.sandbox == "pod1"


def test_a_member_is_served_at_the_address_its_sandbox_names(world: World) -> None:
    here = world.bundle("c1", annotations={"io.containerd.runc.v2.group": "pod1"})
    pod = world.bundle("pod1")
    odd = world.socket_of().with_name("odd")
    world.listen(odd)
    (here / "address").unlink()
    (pod / "address").unlink()
    (pod / "bootstrap.json").write_text(json.dumps({"version": 3, "address": f"unix://{odd}"}))
    assert world.look().shim.state is ShimState.ALIVE


def test_without_config_the_sandbox_file_tells_the_group(world: World) -> None:
    here = world.bundle()
    (here / "config.json").unlink()
    (here / "address").unlink()
    (here / "sandbox").write_text("pod1")
    world.listen(world.socket_of("pod1"))
    look = world.look()
    assert look.shim.state is ShimState.ALIVE
    assert look.shim.group == "pod1"
    assert not look.labels.known


@pytest.mark.parametrize("sandbox", ["../../etc", "a/b", "", "x" * 5000, "\n"])
def test_a_group_that_is_no_id_leads_nowhere(world: World, sandbox: str) -> None:
    world.bundle(annotations={"io.kubernetes.cri.sandbox-id": sandbox})
    look = world.look()
    assert look.shim.group in {None, "c1"}
    assert look.shim.state is (ShimState.UNNAMED if look.shim.group is None else ShimState.DEAD)


def test_bootstrap_json_names_the_socket(world: World) -> None:
    here = world.bundle()
    odd = world.socket_of().with_name("odd")
    world.listen(odd)
    said = {"version": 3, "address": f"unix://{odd}", "protocol": "ttrpc"}
    (here / "bootstrap.json").write_text(json.dumps(said))
    look = world.look()
    assert (look.shim.state, look.shim.socket) == (ShimState.ALIVE, escape(os.fsencode(odd)))


def test_a_dead_address_does_not_hide_the_living_derived_socket(world: World) -> None:
    here = world.bundle()
    world.listen(world.socket_of())
    (here / "address").write_text(f"unix://{world.base}/gone.sock")
    assert world.look().shim.state is ShimState.ALIVE


@pytest.mark.parametrize("where", ["run/odd.sock", "run/s/below/odd", "odd.sock", "lib/s/odd"])
@pytest.mark.fault("I25")
def test_no_socket_is_connected_to_that_is_not_where_shims_listen(world: World, where: str) -> None:
    """Root's connection could start a service; whoever listens there is asked for callers."""
    here, path = world.bundle(), world.base / where
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = world.listen(path)
    (here / "address").write_text(f"unix://{path}")
    (here / "bootstrap.json").write_text(json.dumps({"address": f"unix://{path}"}))
    found = world.look().shim
    assert (found.state, found.socket) == (ShimState.NONE, escape(os.fsencode(path)))
    assert str(path) in found.detail
    assert nobody_called(listener)


@pytest.mark.fault("I25")
def test_no_abstract_socket_is_connected_to_that_is_not_named_like_a_shims(world: World) -> None:
    name = f"reconciler-test-{os.getpid()}"
    listener = world.listen(b"\0" + name.encode())
    (world.bundle() / "address").write_text(f"@{name}")
    assert world.look().shim.state is ShimState.NONE
    assert nobody_called(listener)


def test_abstract_sockets_of_old_shims_are_asked(world: World) -> None:
    name = f"/containerd-shim/{os.getpid()}.sock"
    world.listen(b"\0" + name.encode())
    (world.bundle() / "address").write_text(name)
    assert world.look().shim.state is ShimState.ALIVE


def test_a_shim_may_listen_beside_the_state(world: World) -> None:
    here, state = world.bundle(), world.base / "state"
    (world.base / "run").rename(state)
    layout = replace(world.layout, state=os.fsencode(state))
    (world.base / "run" / "s").mkdir(parents=True)
    world.listen(state / "s" / "odd")
    (state / here.relative_to(world.base / "run") / "address").write_text(f"unix://{state}/s/odd")
    inspector = TreeInspector(layout)
    look = inspector.look(KEY)
    inspector.close()
    assert isinstance(look, Look)
    assert look.shim.state is ShimState.ALIVE


def nobody_called(listener: socket.socket) -> bool:
    """Return whether nobody has connected so far."""
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


# ---------------------------------------------------------------------- runtime


@pytest.mark.parametrize(
    ("path", "state"),
    [
        (b"/usr/bin/containerd-shim-runc-v2", RuntimeState.KNOWN),
        (b"/usr/local/bin/containerd-shim-runc-v1\n", RuntimeState.KNOWN),
        (b"/opt/kata/bin/containerd-shim-kata-v2", RuntimeState.ALIEN),
        (b"containerd-shim-runsc-v1", RuntimeState.ALIEN),
        (b"\xff\xfe", RuntimeState.ALIEN),
        (b"", RuntimeState.UNNAMED),
    ],
)
def test_the_shims_name_tells_the_runtime(world: World, path: bytes, state: RuntimeState) -> None:
    (world.bundle() / "shim-binary-path").write_bytes(path)
    assert world.look().runtime.state is state


def test_a_shim_pid_file_without_a_name_is_alien(world: World) -> None:
    here = world.bundle()
    (here / "shim-binary-path").unlink()
    (here / "shim.pid").write_text("1")
    assert world.look().runtime.state is RuntimeState.ALIEN


def test_a_living_inits_parent_is_its_shim_only_if_it_is_one(world: World) -> None:
    """Init may have been left to another: watching that one's end would miss the shim's."""
    child = "exec 3<&0; cat <&3 >/dev/null & echo; wait"  # it ends with its input
    pids = {}
    for name in ("containerd-shim-runc-v2", "something-else"):
        script = world.base / name
        script.write_text(f"#!/bin/sh\n{child}\n")
        script.chmod(0o755)
        parent = world.start(str(script))
        (init,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        world.bundle(name, pid=int(init), start=start_of(int(init)))
        pids[name] = parent, world.look(BundleKey("default", name)).shim.pid
    shim, found = pids["containerd-shim-runc-v2"]
    assert found == shim
    assert pids["something-else"][1] is None
