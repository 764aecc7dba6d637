"""Removes a node's debris by a worker's own functions, from inside: the same as its jobs do.

    python -m tests.e2e.emptying STATE ROOT ADDRESS NAMESPACE TASK...

Whatever is certainly dead goes, however young. The tasks are those that containerd lists. What came
of each place is printed as JSON.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from reconciler.clock import SystemClock
from reconciler.model.debris import DebrisKind, DebrisResult, Place
from reconciler.model.evidence import Answer, Containerd, ContainerdState
from reconciler.model.ids import BundleKey
from reconciler.model.layout import Layout
from reconciler.worker.context import WorkerContext
from reconciler.worker.debris import clean
from reconciler.worker.inventory import take
from reconciler.worker.messages import DebrisJob, WorkerScope
from tests.e2e import product
from tests.e2e.apart import Word
from tests.e2e.node import Node

_FIRST: Final = (DebrisKind.HIDDEN_BUNDLE, DebrisKind.RUNC_STATE, DebrisKind.CGROUP)
"""A state has hidden bundles removed before it, and a group states; what else is left of a name
shows that a group of it was a container's, and goes after that."""

_RESULTS: Final = msgspec.json.Decoder(list[DebrisResult])


def empty(node: Node, *before: Word) -> list[DebrisResult]:
    """Remove all debris there is; ``before`` are words of a command that starts it."""
    listed = node.ctr("tasks", "ls", "-q").split()
    words: list[Word] = [
        sys.executable,
        "-m",
        __name__,
        node.state,
        node.root,
        node.address,
        node.namespace,
    ]
    ran = product.run(node, *words, *listed, before=before)
    assert ran.code == 0, ran.err
    return _RESULTS.decode(ran.out)


def _dead(context: WorkerContext, kind: DebrisKind) -> tuple[Place, ...]:
    return tuple(
        one
        for one in take(context).places
        if one.key.kind is kind and (one.lives, one.owned) == (Answer.NO, Answer.NO)
    )


def main(words: Sequence[str]) -> None:
    """Go over all kinds once: what another one waits for comes before it."""
    state, root, address, namespace, *tasks = words
    layout = Layout(os.fsencode(state), os.fsencode(root), os.fsencode(address))
    context = WorkerContext(
        WorkerScope(layout), SystemClock(), lambda _: None, lambda: "", lambda: False
    )
    keys = frozenset(BundleKey(namespace, id_) for id_ in tasks)
    containerd = Containerd(ContainerdState.UP, keys)
    done: list[DebrisResult] = []
    for kind in (*_FIRST, *(one for one in DebrisKind if one not in {*_FIRST, DebrisKind.SHIM})):
        done += clean(context, DebrisJob(_dead(context, kind), containerd))
    sys.stdout.buffer.write(msgspec.json.encode(done))


if __name__ == "__main__":
    main(sys.argv[1:])
