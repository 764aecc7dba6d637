"""The JSON files of a bundle and of runc, decoded to the few fields that are evidence.

Bytes in, values out; no disk. Every file may be torn or hostile, so decoding never raises: what
cannot be understood is None, and the caller says what that means. Unknown fields are skipped.
Sources: containerd `runtime/v2/shim.go` (bootstrap.json), `runc/options` (options.json), runc
`libcontainer/container_linux.go` (state.json), crun `libcrun/status.c` (status; its config.json is
the OCI spec), youki `libcontainer/src/container/state.rs`, `src/config.rs` (state.json,
youki_config.json).
"""

import binascii
import re
from typing import Final, TypeVar

import msgspec

from reconciler.model.layout import TASKS

MAX_PID: Final = 1 << 22
"""The largest pid a kernel can be told to hand out (PID_MAX_LIMIT)."""

PATH_MAX: Final = 4096
"""Bytes of a path, its end included, that the kernel takes (path_resolution(7))."""

NAME_MAX: Final = 255
"""Bytes of one name in it."""
_BUNDLE: Final = "bundle="


class Annotations(msgspec.Struct, frozen=True):
    """The annotations of Kubernetes' CRI and of containerd's own shim that we know."""

    sandbox_id: str = msgspec.field(default="", name="io.kubernetes.cri.sandbox-id")
    runc_group: str = msgspec.field(default="", name="io.containerd.runc.v2.group")
    pod_namespace: str = msgspec.field(default="", name="io.kubernetes.cri.sandbox-namespace")
    pod: str = msgspec.field(default="", name="io.kubernetes.cri.sandbox-name")
    container: str = msgspec.field(default="", name="io.kubernetes.cri.container-name")


class SpecLinux(msgspec.Struct, frozen=True):
    """The part of an OCI spec that only Linux has."""

    cgroups_path: str = msgspec.field(default="", name="cgroupsPath")


class Spec(msgspec.Struct, frozen=True):
    """``config.json``: the OCI spec."""

    annotations: Annotations | None = None
    linux: SpecLinux | None = None


class AllAnnotations(msgspec.Struct, frozen=True):
    """``config.json`` again, where a rule matches on annotations of the operator's own."""

    annotations: dict[str, str] | None = None


class _RuncOptions(msgspec.Struct, frozen=True):
    root: str = ""
    binary_name: str = ""
    type_url: str = ""
    value: str = ""


class Options(msgspec.Struct, frozen=True):
    """What ``options.json`` says about how the shim called runc."""

    root: str = ""
    binary_name: str = ""


class _Bootstrap(msgspec.Struct, frozen=True):
    address: str


class _Hook(msgspec.Struct, frozen=True):
    path: str = ""


class Hooks(msgspec.Struct, frozen=True):
    """The hooks that runc keeps for later."""

    poststop: list[_Hook] | None = None


class RuncConfig(msgspec.Struct, frozen=True):
    """``config`` in runc's state."""

    hooks: Hooks | None = msgspec.field(default=None, name="Hooks")
    rootfs: str = ""
    labels: tuple[str, ...] | None = None


class RuncState(msgspec.Struct, frozen=True):
    """runc's ``state.json``, and youki's, which has the last two fields in place of the others."""

    id: str = ""
    init_process_pid: int = 0
    init_process_start: int = 0
    cgroup_paths: dict[str, str] | None = None
    config: RuncConfig | None = None
    youki_pid: int | None = msgspec.field(default=None, name="pid")
    youki_bundle: str = msgspec.field(default="", name="bundle")

    @property
    def is_youki(self) -> bool:
        """Whether youki wrote it: runc never does without its configuration."""
        return self.config is None and bool(self.youki_bundle)

    @property
    def pid(self) -> int:
        """Init's pid, 0 if it names none."""
        return self.init_process_pid or self.youki_pid or 0

    @property
    def bundle(self) -> str:
        """The bundle that it is about, by its own words; empty if it says none.

        runc notes the directory it was called for as a label (`libcontainer/specconv`). Where there
        is none, a rootfs that lies in one of containerd's bundles tells it.
        """
        if self.is_youki:
            return self.youki_bundle
        config = self.config or RuncConfig()
        for label in config.labels or ():
            if label.startswith(_BUNDLE):
                return label.removeprefix(_BUNDLE)
        bundle, _, name = config.rootfs.rpartition("/")
        return bundle if name == "rootfs" and f"/{TASKS.decode()}/" in bundle else ""

    @property
    def has_poststop_hooks(self) -> bool:
        """Return whether somebody expects to be called once the container is gone."""
        hooks = self.config.hooks if self.config else None
        return bool(hooks and hooks.poststop)


class OwnSpec(msgspec.Struct, frozen=True):
    """What crun and youki keep beside their state: hooks, and of youki also the cgroup."""

    hooks: Hooks | None = None
    cgroup_path: str = ""

    @property
    def has_poststop_hooks(self) -> bool:
        """Return whether somebody expects to be called once the container is gone."""
        return bool(self.hooks and self.hooks.poststop)


class CrunStatus(msgspec.Struct, frozen=True):
    """crun's ``status``."""

    pid: int = 0
    start: int = msgspec.field(default=0, name="process-start-time")
    cgroup_path: str = msgspec.field(default="", name="cgroup-path")
    bundle: str = ""


T = TypeVar("T")

_spec: Final = msgspec.json.Decoder(Spec)
_annotations: Final = msgspec.json.Decoder(AllAnnotations)
_options: Final = msgspec.json.Decoder(_RuncOptions)
_bootstrap: Final = msgspec.json.Decoder(_Bootstrap)
_state: Final = msgspec.json.Decoder(RuncState)
_status: Final = msgspec.json.Decoder(CrunStatus)
_own_spec: Final = msgspec.json.Decoder(OwnSpec)

_SALVAGE: Final = re.compile(rb'"init_process_(pid|start)"\s*:\s*(\d{1,19})[\s,}]')
_PID: Final = re.compile(rb"\s*\+?(\d{1,7})\s*\Z")


def parse_spec(data: bytes) -> Spec | None:
    """Read ``config.json``."""
    return _decode(_spec, data)


def parse_annotations(data: bytes) -> dict[str, str] | None:
    """Read every annotation of ``config.json``; None if it cannot be read."""
    found = _decode(_annotations, data)
    return None if found is None else found.annotations or {}


def parse_options(data: bytes) -> Options | None:
    """Read ``options.json``: the options themselves, or an Any that wraps them."""
    found = _decode(_options, data)
    if found is None:
        return None
    if found.type_url and found.value:
        try:
            return _parse_any(binascii.a2b_base64(found.value))
        except (binascii.Error, ValueError):
            return None
    return Options(found.root, found.binary_name)


def parse_bootstrap(data: bytes) -> bytes | None:
    """Read the shim's address from ``bootstrap.json``, which old shims made a plain text."""
    found = _decode(_bootstrap, data)
    if found is not None:
        return found.address.encode("utf-8")
    text = data.strip()
    return text if text.startswith(b"unix://") else None


def parse_state(data: bytes) -> RuncState | None:
    """Read runc's ``state.json``."""
    return _decode(_state, data)


def salvage_state(data: bytes) -> RuncState:
    """Make out pid and start time in a torn ``state.json``; they stand at its beginning."""
    found = {match[1]: int(match[2]) for match in _SALVAGE.finditer(data[:PATH_MAX])}
    return RuncState("", found.get(b"pid", 0), found.get(b"start", 0))


def parse_status(data: bytes) -> CrunStatus | None:
    """Read crun's ``status``."""
    return _decode(_status, data)


def parse_own_spec(data: bytes) -> OwnSpec | None:
    """Read the spec that crun or youki keeps for when the container is deleted."""
    return _decode(_own_spec, data)


def parse_pid(data: bytes) -> int | None:
    """Read ``init.pid``; None if it holds no pid that a kernel could have given."""
    match = _PID.match(data)
    pid = int(match[1]) if match else 0
    return pid if is_pid(pid) else None


def is_pid(pid: int) -> bool:
    """Return whether a kernel could have given this pid."""
    return 0 < pid <= MAX_PID


def to_path(text: str | bytes) -> bytes | None:
    """Make a path of what a file says is one; None unless it is absolute and could exist."""
    if len(text) >= PATH_MAX:
        return None
    # To find something in text takes an eighth of the time that it takes in bytes.
    if isinstance(text, str):
        letters = text
        try:
            path = text.encode()
        except UnicodeEncodeError:
            return None
    else:
        letters, path = text.decode("latin-1"), text
    if not letters.startswith("/") or "\0" in letters or len(path) >= PATH_MAX:
        return None
    if "//" not in letters and "/." not in letters and not letters.endswith("/"):
        return path
    parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
    return None if b".." in parts else b"/" + b"/".join(parts)


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def _parse_any(message: bytes) -> Options | None:
    """Read runc's options from their protobuf form: string fields 6 (binary) and 7 (root)."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            _, at = _varint(message, at)
        elif tag & 7 == 2:  # noqa: PLR2004 - protobuf's wire type of strings
            size, at = _varint(message, at)
            found[tag >> 3] = message[at : at + size]
            at += size
        else:
            return None
    root, binary = found.get(7, b""), found.get(6, b"")
    return Options(root.decode("utf-8"), binary.decode("utf-8"))


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:  # noqa: PLR2004 - bits of the largest number
        byte = message[at] if at < len(message) else 0
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number
            break
        shift += 7
    return value, at
