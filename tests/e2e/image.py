"""An image made by hand: one layer with a static busybox, as an OCI archive. No registry needed."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Final

NAME: Final = "docker.io/local/busybox:e2e"
"""The registry is never asked for it: it is there before anybody wants it."""

FOR_EVER: Final = ("/bin/sleep", "1000000")
"""What a container runs that is to stay; also what the image runs by itself, as a pod's pause."""

_BUSYBOX: Final = Path("/bin/busybox")
_APPLETS: Final = ("sh", "sleep", "true")
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI: Final = "application/vnd.oci.image"


def write(archive: Path) -> None:
    """Write the archive."""
    content = layer()
    config = _json(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Cmd": FOR_EVER, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(content)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor("config.v1+json", config),
            "layers": [_descriptor("layer.v1.tar", content)],
        }
    )
    named = {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": "e2e"}
    entry = {**_descriptor("manifest.v1+json", manifest), "annotations": named}
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        for blob in (content, config, manifest):
            _add(tar, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)


def layer() -> bytes:
    """Make the one layer, as a tar archive of a root filesystem."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in ("bin", "data", "dev", "etc", "proc", "sys", "tmp"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        _add(tar, "bin/busybox", _BUSYBOX.read_bytes(), mode=0o755)
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _descriptor(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": f"{_OCI}.{kind}", "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
