"""Names and identities: what a bundle is called, and which object that name meant.

The kernel keeps names as bytes. In every value they are text, as :func:`escape` gives it: plain
for all that containerd makes, one-to-one for whatever else a disk may hold, so that it can be
shown, typed and written as JSON. Only a system call takes bytes, those of :func:`unescape`.
Nothing here looks at a disk.
"""

import re
from typing import Final, NamedTuple

import msgspec
from typing_extensions import override

MAX_IDENTIFIER: Final = 76
"""Longest name containerd accepts (containerd pkg/identifiers, also its 1.6 `identifiers`)."""

_MOST_ESCAPED: Final = 1 << 12
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*\Z")


TASK_TREE: Final = ""
SANDBOX_TREE: Final = "sandbox"
"""containerd's state trees: of tasks, and of pods that a shim serves as their sandbox (2.x)."""


class BundleKey(NamedTuple):
    """The address of a bundle: ``<namespace>/<id>``, escaped, in one of containerd's state trees.

    The same id may stand in both trees. Processes, sockets and containerd's answers name no tree:
    they are found by :attr:`task`.
    """

    namespace: str
    id: str
    tree: str = TASK_TREE

    @override
    def __str__(self) -> str:
        """Give the form people read and type; no namespace has a colon."""
        return f"{self.tree}:{self.namespace}/{self.id}" if self.tree else self.name

    @classmethod
    def parse(cls, text: str) -> "BundleKey | None":
        """Read what :meth:`__str__` gives, as it was typed; None if it is no such name."""
        name = text.removeprefix(f"{SANDBOX_TREE}:")
        namespace, slash, id_ = name.partition("/")
        if not (slash and namespace and id_) or "/" in id_:
            return None
        where = TASK_TREE if name == text else SANDBOX_TREE
        return cls(escape(unescape(namespace)), escape(unescape(id_)), where)

    @property
    def name(self) -> str:
        """``<namespace>/<id>``, whatever the tree."""
        return f"{self.namespace}/{self.id}"

    @property
    def task(self) -> "BundleKey":
        """The key of the same name in the tree of tasks."""
        return self._replace(tree=TASK_TREE) if self.tree else self

    @property
    def sandbox(self) -> "BundleKey":
        """The key of the same name in the tree of sandboxes."""
        return self._replace(tree=SANDBOX_TREE)

    @property
    def is_identifier(self) -> bool:
        """Whether containerd could have made both names."""
        return is_identifier(self.namespace) and is_identifier(self.id)

    @property
    def path(self) -> bytes:
        """Its path within a tree of namespaces, for a system call."""
        return unescape(f"{self.namespace}/{self.id}")


class Identity(msgspec.Struct, frozen=True, gc=False, array_like=True):
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


def is_identifier(name: str) -> bool:
    """Return whether containerd could have created a bundle or namespace of this name."""
    if len(name) > MAX_IDENTIFIER:
        return False
    # Nearly all ids are hexadecimal numbers.
    return (name.isascii() and name.isalnum()) or _IDENTIFIER.match(name) is not None


def escape(name: bytes) -> str:
    r"""Make a name printable on one line and typable again (see :func:`unescape`).

    Control characters, backslashes and bytes that are not UTF-8 become ``\xNN``.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return text.translate(_ESCAPED)


def printable(text: str) -> str:
    r"""Make any text printable on one line; what is printable stays as it is, backslashes too.

    For text that is read and never typed again: a command name, an error, what runc said. Control
    characters, separators of lines and lone surrogates become ``\xNN``, space stays.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _ESCAPED[ord(char)] for char in text)


def unescape(text: str) -> bytes:
    """Undo :func:`escape`; text without escapes is taken as it is."""
    raw = text.encode("utf-8", "surrogateescape")
    if "\\" not in text:
        return raw
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), raw)


class _Escaped(dict[int, str]):
    """What stands for a character, by its number; filled as they come, for names may be long."""

    def __missing__(self, code: int) -> str:
        """Make what was not asked for before."""
        char = chr(code)
        if not char.isprintable() or char == "\\":
            char = "".join(f"\\x{byte:02x}" for byte in _bytes(char))
        if len(self) < _MOST_ESCAPED:
            self[code] = char
        return char


def _bytes(char: str) -> bytes:
    """Give the bytes of a character: the one it stands for, if it is a surrogate of one."""
    try:
        return char.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair, as JSON may have it
        return char.encode("utf-8", "surrogatepass")


_ESCAPED: Final = _Escaped()
