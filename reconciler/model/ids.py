"""Names and identities: what a bundle is called, and which object that name meant.

Names are bytes, as the kernel keeps them; text is made for people only, by :func:`show`.
Nothing here looks at a disk.
"""

import re
from typing import Final, NamedTuple

import msgspec
from typing_extensions import override

MAX_IDENTIFIER: Final = 76
"""Longest name containerd accepts (containerd pkg/identifiers, also its 1.6 `identifiers`)."""

_IDENTIFIER: Final = re.compile(rb"[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*\Z")


class BundleKey(NamedTuple):
    """The address of a bundle in one state tree: ``<namespace>/<id>``, as bytes."""

    namespace: bytes
    id: bytes

    @override
    def __str__(self) -> str:
        """Give the form people read and type, hostile bytes escaped."""
        return f"{show(self.namespace)}/{show(self.id)}"


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Which object a name meant when we looked.

    Attributes:
        dev: Device number, as ``os.makedev`` packs it.
        ino: Inode number.
        mount_id: Mount the object was reached through (statx ``STATX_MNT_ID``).
    """

    dev: int
    ino: int
    mount_id: int


NOWHERE: Final = Identity(0, 0, 0)
"""Of what is there and could not be looked at: which object it is, nobody knows."""


def is_identifier(name: bytes) -> bool:
    """Tell whether containerd could have created a bundle or namespace of this name."""
    return len(name) <= MAX_IDENTIFIER and _IDENTIFIER.match(name) is not None


def show(name: bytes) -> str:
    r"""Make a name printable on one line and typable again (see :func:`unshow`).

    Control characters, backslashes and bytes that are not UTF-8 become ``\xNN``.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_show_char(char) for char in text)


def printable(text: str) -> str:
    r"""Make any text printable on one line; what is printable stays as it is, backslashes too.

    For text that is read and never typed again: a command name, an error, what runc said. Control
    characters, separators of lines and lone surrogates become ``\xNN``, space stays.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _show_char(char) for char in text)


def unshow(text: str) -> bytes:
    """Undo :func:`show`; text without escapes is taken as it is."""
    raw = text.encode("utf-8", "surrogateescape")
    if b"\\" not in raw:
        return raw
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), raw)


def _show_char(char: str) -> str:
    if char.isprintable() and char != "\\":
        return char
    return "".join(f"\\x{byte:02x}" for byte in _bytes(char))


def _bytes(char: str) -> bytes:
    """Give the bytes of a character: the one it stands for, if it is a surrogate of one."""
    try:
        return char.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair, as JSON may have it
        return char.encode("utf-8", "surrogatepass")
