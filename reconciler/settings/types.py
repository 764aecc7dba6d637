"""Types of text in a configuration: what each may look like, and what is wrong if it does not.

Text flows in, a value flows out or a ValueError whose message ends the sentence "KEY: ...". Nothing
here looks at a disk: whether a directory exists is a question for whoever opens it.
"""

import os
import re
from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec

from reconciler.settings import globs
from reconciler.settings.problems import LONGEST, short
from reconciler.settings.units import parse_duration, parse_size

NONE: Final = "none"
"""How a budget is switched off. Zero is refused: some mean "no limit" by it, some "nothing"."""

_Number = TypeVar("_Number", int, float)

_UNIX: Final = "unix://"

_SHARED: Final = frozenset(
    {
        *(
            f"/var/{name}"
            for name in ("cache", "lib", "lock", "log", "mail", "opt", "run", "spool", "tmp")
        ),
        *(f"/run/{name}" for name in ("docker", "k3s", "lock", "systemd", "user")),
        *(f"/var/run/{name}" for name in ("docker", "k3s", "lock", "systemd", "user")),
        *(f"/var/lib/{name}" for name in ("containers", "docker", "kubelet", "rancher")),
    }
)
"""Directories that never belong to containerd alone, beside all at the top."""

_FOREIGN: Final = ("/boot/", "/dev/", "/etc/", "/proc/", "/sys/", "/usr/")
_MEMORY: Final = "/dev/shm/"  # noqa: S108 - nothing is made there
"""Anybody's tmpfs, and where `demo` makes its tree: what is in it may be somebody's alone."""

_LAST_PORT: Final = 65535
_LONGEST_PATH: Final = 4095
_LONGEST_SOCKET: Final = 107
_CENTURY: Final = 36525 * 86400
_LARGEST_SIZE: Final = (1 << 63) - 1
_SHIM: Final = re.compile(r"containerd-shim-[A-Za-z0-9._-]{1,64}")
_NOT_RUNC: Final = ("kata", "runsc", "gvisor", "wasm", "windows")


def path(text: str) -> str:
    """Accept an absolute path without surprises; gives it without a final slash."""
    if not text:
        raise ValueError("is empty; name an absolute path")
    if "\0" in text:
        raise ValueError("holds a NUL")
    if len(text) > _LONGEST_PATH:
        raise ValueError(f"is longer than {_LONGEST_PATH} characters")
    if not text.startswith("/"):
        raise ValueError(f"{short(text)!r} is not an absolute path")
    if ".." in text.split("/"):
        raise ValueError(f"{short(text)!r} goes back by '..'; write where it leads")
    return "/" + os.path.normpath(text).lstrip("/")


def tree(text: str) -> str:
    """Accept a directory that may be containerd's own."""
    where = path(text)
    is_foreign = where.startswith(_FOREIGN) and not where.startswith(_MEMORY)
    if where.rfind("/") == 0 or where in _SHARED or is_foreign:
        raise ValueError(f"{short(where)!r} is not containerd's alone; name the directory that is")
    return where


def socket(text: str) -> str:
    """Accept the path of a unix socket, also as ``unix:///path``."""
    if text.startswith(("tcp:", "vsock:")):
        raise ValueError(f"{short(text)!r} is not a unix socket")
    where = path(text.removeprefix(_UNIX))
    if len(os.fsencode(where)) > _LONGEST_SOCKET:
        raise ValueError(f"is longer than the {_LONGEST_SOCKET} bytes of a socket's path")
    return where


def _or_nothing(parse: Callable[[str], str]) -> Callable[[str], str]:
    """Accept nothing as well, which switches it off."""
    return lambda text: parse(text) if text else ""


def listen(text: str) -> str:
    """Accept ``host:port`` or ``[v6]:port``."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host):
        raise ValueError(f"{short(text)!r} is not host:port, like 127.0.0.1:9618")
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) <= _LAST_PORT:
        raise ValueError(f"{short(text)!r} names no port between 1 and 65535")
    return text


def duration(text: str) -> float:
    """Accept a duration that can be waited for."""
    seconds = parse_duration(text)
    if seconds > _CENTURY:
        raise ValueError(f"{short(text)!r} is longer than a hundred years")
    return seconds


def interval(text: str) -> float:
    """Accept a duration of at least a second."""
    seconds = duration(text)
    if seconds < 1:
        raise ValueError(f"{short(text)!r} is too often; a second is the least")
    return seconds


def max_age(text: str) -> float | None:
    """Accept an age budget, in seconds; None for none."""
    if text == NONE:
        return None
    return _budget(text, duration)


def max_size(text: str) -> int | None:
    """Accept a size budget, in bytes; None for none."""
    if text == NONE:
        return None
    return _budget(text, parse_size)


def _budget(text: str, parse: Callable[[str], _Number]) -> _Number:
    value = parse(text)
    if value <= 0:
        raise ValueError(
            f'{short(text)!r} would make every leftover due at once; "none" means no budget'
        )
    return value


def name(text: str) -> str:
    """Accept a name for people; short, so that it can be shown whole wherever it is."""
    if not text:
        raise ValueError("is empty")
    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    return text


def shim_names(text: str) -> tuple[str, ...]:
    """Accept names of shims' binaries, separated by commas; empty for none.

    containerd calls every shim so, and by that prefix it is known among processes.
    """
    names = tuple(one.strip() for one in text.split(",")) if text else ()
    for one in names:
        if not _SHIM.fullmatch(one):
            hint = "name binaries as containerd does: containerd-shim-NAME-VERSION"
            raise ValueError(f"{short(one)!r} is no shim's name; {hint}")
        if any(word in one for word in _NOT_RUNC):
            raise ValueError(f"{short(one)!r} keeps its containers in other ways than runc's does")
    return names


def size(text: str) -> int:
    """Accept a size in bytes, not zero."""
    count = parse_size(text)
    if count <= 0:
        raise ValueError(f"{short(text)!r} is no room at all")
    if count > _LARGEST_SIZE:
        raise ValueError(f"{short(text)!r} is larger than any file can be")
    return count


def _kind(parse: Callable[[str], object], what: str, *examples: str) -> msgspec.Meta:
    return msgspec.Meta(
        description=what, examples=list(examples), extra={"parse": parse, "what": what}
    )


Duration = Annotated[str, _kind(duration, "a duration", "10s", "1h30m", "7d")]
Interval = Annotated[str, _kind(interval, "a duration", "5m")]
Size = Annotated[str, _kind(size, "a size", "10GB", "512MiB")]
MaxAge = Annotated[str, _kind(max_age, 'a duration or "none"', "168h", "none")]
MaxSize = Annotated[str, _kind(max_size, 'a size or "none"', "10GB", "none")]
Tree = Annotated[str, _kind(tree, "an absolute path", "/run/containerd")]
Socket = Annotated[str, _kind(socket, "the path of a socket", "/run/containerd/containerd.sock")]
OptionalSocket = Annotated[
    str, _kind(_or_nothing(socket), "the path of a socket", "/run/containerd-reconciler/http.sock")
]
OptionalPath = Annotated[
    str, _kind(_or_nothing(path), "an absolute path", "/var/log/journal.jsonl")
]
Listen = Annotated[str, _kind(_or_nothing(listen), "host:port", "127.0.0.1:9618")]
IdentifierGlob = Annotated[str, _kind(globs.identifier, "a glob", "kube-*")]
NameGlob = Annotated[str, _kind(globs.name, "a glob", "kube-*")]
TextGlob = Annotated[str, _kind(globs.text, "a glob", "kube-*")]
ShimNames = Annotated[str, _kind(shim_names, "names of shims", "containerd-shim-runc-v2-rs")]
Name = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, extra={"parse": name, "what": "text"})
]
