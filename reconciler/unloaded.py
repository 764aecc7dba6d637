"""Unloaded: modules that libraries load on the way, and of which nothing here makes any use.

OpenSSL, and Python's own HTTP client and server, cost a process that lives as long as the machine
four megabytes, and each start ten milliseconds. No connection here is encrypted, h11 is the HTTP
server, and Python has the hashes itself, but for where a distribution has built it without. What
libraries derive classes from or write into signatures is stood in for; whoever did call one of
these names would get an ImportError.
"""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Final, NoReturn, TypeVar

_ABSENT: Final = ("_hashlib",)
"""Python does without: it has a way of its own for each name that these define."""

_SHA2: Final = ("_sha2",) if sys.version_info >= (3, 12) else ("_sha256", "_sha512")
_OWN_HASHES: Final = ("_md5", "_sha1", *_SHA2, "_sha3", "_blake2")
"""That way: Python for RHEL and Fedora is built ``--with-builtin-hashlib-hashes=blake2`` alone."""

_STOOD_IN_FOR: Final = (
    *("ssl", "http.server", "socketserver", "urllib.error", "urllib.request"),
    *("wsgiref.simple_server", "ctypes.util", "html.entities", "pickle"),
)

NAMES: Final = frozenset((*_ABSENT, *_STOOD_IN_FOR))


_Method = TypeVar("_Method")


def leave_out() -> None:
    """Keep them from being loaded; before anything else is imported, once in a process.

    What has been loaded by then stays, for somebody uses it.
    """
    for name in _ABSENT if all(map(find_spec, _OWN_HASHES)) else ():
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # "not there"
    # The main program has the C library's functions, so nobody need ask linkers where it is.
    made = {name: _stand_in(name) for name in _STOOD_IN_FOR}
    vars(made["ctypes.util"])["find_library"] = _no_library
    for name, module in made.items():
        sys.modules.setdefault(name, module)


def leave_out_typing_extensions() -> None:
    """Have nothing of it but `override`: in workers, before anything else is imported.

    It draws in `inspect`, and that the parser and the disassembler: an eighth of the memory of a
    fork server. Its one user there besides us, msgspec, does without where it is not installed.
    """
    vars(module := ModuleType("typing_extensions"))["override"] = _override
    sys.modules.setdefault(module.__name__, module)


def _stand_in(module: str) -> ModuleType:
    """Make a module that has whatever is imported from it: a class that cannot be made."""

    def make(name: str) -> type[Exception]:
        """Make a class of that name; it may be derived from, raised by nobody, and caught."""
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(_self: object, *_args: object, **_options: object) -> NoReturn:
            raise ImportError(f"{module}.{name} is not loaded in this program")

        made = type(name, (Exception,), {"__init__": refuse, "__module__": module})
        vars(found)[name] = made
        return made

    found = ModuleType(module)
    vars(found)["__getattr__"] = make  # PEP 562
    return found


def _override(method: _Method) -> _Method:
    """Do nothing: type checkers alone read it."""
    return method


def _no_library(_name: str) -> None:
    """Name no file: ctypes takes what the main program has, where it is given none."""
