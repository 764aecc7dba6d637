"""A shim that serves sandboxes, which runc's own (2.1) does not.

Run as a program in place of runc's shim. For whatever is started in the tree of sandboxes it starts
the real shim there, and stands before it: it answers `containerd.runtime.sandbox.v1.Sandbox` by
itself and hands everything else (the tasks of the pod) on. It ends with the real one. Anything else
is the real one's from the beginning.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

REAL: Final = "RECONCILER_E2E_REAL_SHIM"
"""Names the real shim's program."""

TREE: Final = "io.containerd.sandbox.controller.v1.shim"

_SERVICE: Final = b"containerd.runtime.sandbox.v1.Sandbox"
_HEADER: Final = struct.Struct(">IIBB")  # ttrpc: length, stream, type, flags
_REQUEST, _RESPONSE = 1, 2


def install(directory: Path, real: Path) -> Path:
    """Put it into a directory, to be found before the real one."""
    directory.mkdir()
    program = directory / real.name
    program.write_text(
        f"#!{sys.executable} -IS\nimport os, runpy\nos.environ[{REAL!r}] = {os.fspath(real)!r}\n"
        f"runpy.run_path({__file__!r}, run_name='__main__')\n"
    )
    program.chmod(0o755)
    return directory


def main(words: list[str]) -> None:
    """Be a shim."""
    real = os.environ[REAL]
    if words[-1] != "start" or f"/{TREE}/" not in os.getcwd():
        os.execv(real, [real, *words])  # noqa: S606 -- it is that from now on
    if not os.path.exists("config.json"):  # a sandbox of CRI's has none, and the real one wants it
        Path("config.json").write_text('{"ociVersion": "1.0.0"}')
    said = subprocess.run([real, *words], stdout=subprocess.PIPE, check=True).stdout
    started = json.loads(said)
    behind = started["address"].removeprefix("unix://")
    before = f"{behind}-sandbox"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(before)
    listening.listen()
    if os.fork():
        sys.stdout.write(json.dumps({**started, "address": f"unix://{before}"}))
        return
    os.setsid()
    Path("/proc/self/comm").write_text("sandboxer")  # a helper has a shim's name, and this is none
    null = os.open(os.devnull, os.O_RDWR)
    for one in range(3):
        os.dup2(null, one)
    _serve(listening, behind)


def _serve(listening: socket.socket, behind: str) -> None:
    watched = socket.socket(socket.AF_UNIX)
    watched.connect(behind)
    pid, _, _ = struct.unpack("iII", watched.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    threading.Thread(target=_end_with, args=(watched,)).start()
    while True:
        client, _ = listening.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(behind)
        lock = threading.Lock()
        threading.Thread(target=_back, args=(server, client, lock), daemon=True).start()
        threading.Thread(target=_forth, args=(client, server, lock, pid), daemon=True).start()


def _end_with(watched: socket.socket) -> None:
    watched.recv(1)
    os._exit(0)


def _back(server: socket.socket, client: socket.socket, lock: threading.Lock) -> None:
    while (frame := _read(server)) is not None:
        with lock:
            client.sendall(b"".join(frame))


def _forth(client: socket.socket, server: socket.socket, lock: threading.Lock, pid: int) -> None:
    while (frame := _read(client)) is not None:
        head, body = frame
        _, stream, kind, _ = _HEADER.unpack(head)
        fields = _fields(body) if kind == _REQUEST else {}
        if fields.get(1) != _SERVICE:
            server.sendall(head + body)
            continue
        method = bytes(fields[2]).decode()
        if method == "WaitSandbox":
            continue  # until it ends with its connection
        answer = _answer(method, pid)
        body = b"\x12" + _varint(len(answer)) + answer  # payload
        with lock:
            client.sendall(_HEADER.pack(len(body), stream, _RESPONSE, 0) + body)
        if method == "ShutdownSandbox":
            os.kill(pid, 9)
            os._exit(0)
    server.close()


def _answer(method: str, pid: int) -> bytes:
    match method:
        case "StartSandbox":  # pid = 1
            return b"\x08" + _varint(pid)
        case "SandboxStatus":  # pid = 2, state = 3
            state = b"SANDBOX_READY"
            return b"\x10" + _varint(pid) + b"\x1a" + _varint(len(state)) + state
        case _:
            return b""


def _read(stream: socket.socket) -> tuple[bytes, bytes] | None:
    try:
        head = stream.recv(_HEADER.size, socket.MSG_WAITALL)
        if len(head) < _HEADER.size:
            return None
        length = _HEADER.unpack(head)[0]
        return head, stream.recv(length, socket.MSG_WAITALL) if length else b""
    except OSError:
        return None


def _fields(data: bytes) -> dict[int, bytes]:
    """Read the fields of a protobuf message that have a length."""
    found: dict[int, bytes] = {}
    place = 0
    while place < len(data):
        tag, place = _number(data, place)
        size, place = _number(data, place)
        if tag & 7 == 2:
            found[tag >> 3] = data[place : place + size]
            place += size
    return found


def _number(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


if __name__ == "__main__":
    main(sys.argv[1:])
