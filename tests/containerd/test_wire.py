"""What is generated is what the compiler makes of the .proto, and what containerd's wire means."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.containerd import wire_pb2 as wire

TOP = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    importlib.util.find_spec("grpc_tools") is None, reason="grpcio-tools is not installed"
)
@pytest.mark.parametrize("name", ["wire_pb2.py", "wire_pb2.pyi"])
def test_the_committed_messages_are_made_from_the_proto(tmp_path: Path, name: str) -> None:
    subprocess.run([TOP / ".ci/proto", sys.executable, tmp_path], check=True)
    made = tmp_path / "reconciler/containerd" / name
    assert made.read_text() == (TOP / "reconciler/containerd" / name).read_text()


def test_unknown_fields_are_passed_over() -> None:
    # A Process of containerd 1.6: id "web", pid 4711, status RUNNING, as `ctr tasks ls` gets it.
    process = b"\x12\x03web" + b"\x18\xe7\x24" + b"\x20\x02"
    listed = wire.Tasks.FromString(b"\x0a" + bytes([len(process)]) + process)
    assert [task.id for task in listed.tasks] == ["web"]


def test_an_event_names_its_container_first() -> None:
    # TaskExit{container_id: "web", id: "web", pid: 4711}
    exit_event = b"\x0a\x03web\x12\x03web\x18\xe7\x24"
    assert wire.Touched.FromString(exit_event).id == "web"


def test_messages_in_python_are_not_loaded_where_protobuf_has_them_in_c() -> None:
    pytest.importorskip("google._upb._message")
    code = """
import sys
import reconciler.containerd.client
from reconciler.containerd.protobuf import wire
drawn_in = ("internal.decoder", "internal.python_message", "text_format")
print([name for name in drawn_in if f"google.protobuf.{name}" in sys.modules])
asked = wire.Tasks(tasks=[wire.Process(id="web")])
assert wire.Tasks.FromString(asked.SerializeToString()) == asked
import google.protobuf.json_format, google.protobuf.internal.python_message
print(repr(asked).split(), google.protobuf.json_format.MessageToDict(asked))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=TOP
    ).stdout
    assert said.splitlines()[0] == "[]"
    assert said.splitlines()[1].endswith("{'tasks': [{'id': 'web'}]}")
