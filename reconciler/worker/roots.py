"""Roots: where runc keeps its states, as the bundles of a tree name it in `options.json`. Reads.

A bundle that has lost that file does not tell. Its neighbours mostly have the same root, for one
client made them all, but that proves nothing of this one: so what is found there is only said here,
and goes as debris, where init, cgroups and hooks of that very state are asked for.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from os import geteuid
from typing import Final

from reconciler import kernel
from reconciler.model.ids import BundleKey, escape, unescape
from reconciler.probe import documents
from reconciler.probe.beneath import enter, names, opened
from reconciler.probe.context import NodeContext
from reconciler.worker.hooks import belongs_to
from reconciler.worker.objects import find

_LIMIT: Final = 8 << 20
_MOST_ROOTS: Final = 16
_MOST_ASKED: Final = 64
"""Bundles of a namespace that are asked for runc's root, and roots looked into: a node has one or
two, and to ask all bundles would cost more than all else."""


def named_roots(around: NodeContext) -> tuple[bytes, ...]:
    """Give the roots that bundles name, as far as they are in reach and root's; not the default."""
    named: set[bytes] = set()
    with suppress(FileNotFoundError), opened(around.layout.tasks) as top:
        for namespace in enter(top, names(top)):
            if namespace.fd >= 0:
                named.update(filter(None, _roots_in(namespace.fd)))
    return _trusted(named, around)


def doubt_root(around: NodeContext, key: BundleKey) -> str:
    """Say why runc may have a state of a bundle elsewhere than in its default root; empty if not.

    Raises:
        OSError: The tree cannot be read.
    """
    layout, named = around.layout, set[bytes]()
    id_, is_told = unescape(key.id), False
    with opened(layout.tree_of(key)) as top:
        for namespace in enter(top, (unescape(key.namespace),)):
            if namespace.fd < 0 or _root_in(namespace.fd, id_) is not None:
                return ""
            for root in _roots_in(namespace.fd):
                is_told = True
                named.add(root)
    for root in _trusted(named, around):
        if find(b"/".join((root, unescape(key.namespace), id_))) is not None:
            where = escape(root)
            return f"options.json is lost; the state in {where} stays until `clean --debris`"
    if is_told:
        return ""
    return "options.json is lost, and no other bundle names a root of runc's: a state may stay"


def _trusted(named: set[bytes], around: NodeContext) -> tuple[bytes, ...]:
    others = named - {b"", around.layout.runc_root}
    return tuple(root for root in sorted(others)[:_MOST_ROOTS] if _is_trusted(root, around))


def _roots_in(namespace: int) -> Iterator[bytes]:
    """Give the root of each bundle that tells; empty for the default one."""
    for id_ in islice(names(namespace), _MOST_ASKED):
        root = _root_in(namespace, id_)
        if root is not None:
            yield root


def _root_in(namespace: int, id_: bytes) -> bytes | None:
    with suppress(OSError):  # it has none, or nothing that could be read
        said = kernel.read_beneath(namespace, id_ + b"/options.json", _LIMIT)
        options = documents.parse_options(said)
        return None if options is None else documents.to_path(options.root) or b""
    return None


def _is_trusted(root: bytes, around: NodeContext) -> bool:
    with suppress(OSError), around.handles:
        around.handles.named(root)
        return belongs_to(root, 0, geteuid())
    return False
