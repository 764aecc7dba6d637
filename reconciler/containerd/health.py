"""Health: containerd's own word, and the difference between silence and proven absence.

Up means it answered; where it listed no tasks is said with it. Down is said only if nobody listens
on its socket, its metadata lock lies free before and after that *and* the tree's bundles are that
containerd's; everything between is no answer: starting (it holds the lock and sweeps while its
socket refuses), hung, forbidden, or not where we look. Lock and bundles are a worker's to look at:
nothing here opens or follows a path but that of the socket.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from reconciler.containerd.answers import (
    NOBODY,
    Failure,
    Known,
    NoAnswerError,
    Singles,
    is_absent,
    nobody,
)
from reconciler.model.containerd import ShimGroup
from reconciler.model.evidence import Containerd, ContainerdState
from reconciler.model.ids import BundleKey, escape
from reconciler.model.layout import Layout
from reconciler.probe.locks import Lock, LockState

if TYPE_CHECKING:
    from reconciler.containerd.client import ContainerdClient

DEADLINE: Final = 5.0


class ReadLock(Protocol):
    """Says who holds the metadata lock. Where others hold very many that takes long."""

    async def __call__(self, *, owner: bool = False) -> Lock:
        """Return it; with ``owner`` also whether a free one is that of the tree's containerd."""
        ...


_Question = Callable[["ContainerdClient"], Awaitable[Containerd]]

_SKIPPED: Final = Containerd(ContainerdState.SKIPPED, detail="skipped: --without-containerd")

_RIGHT: Final = "; is --root right?"
_NOT_HELD: Final = frozenset({LockState.FREE, LockState.ABSENT})


def connect(address: bytes, seconds: float = DEADLINE) -> "ContainerdClient":
    """Make a client; nothing is connected before it asks.

    Args:
        address: Path of containerd's gRPC socket.
        seconds: How long a call may take.
    """
    # Here, because it loads gRPC, which takes a third of the start of a short command.
    from reconciler.containerd.client import ContainerdClient

    return ContainerdClient(address, seconds)


async def ask(
    layout: Layout,
    read_lock: ReadLock,
    *,
    deadline: float = DEADLINE,
    without_containerd: bool = False,
    singles: Singles = NOBODY,
) -> Containerd:
    """Ask the containerd of a layout; never raises.

    Args:
        layout: Where its socket and its metadata lock are.
        read_lock: Gives who holds the lock, and whose it is; may look where looking can hang.
        deadline: Seconds until it must have begun to answer.
        without_containerd: The caller said that there is no containerd to ask.
        singles: Whom to ask for one by one in a namespace whose list does not come soon.
    """
    if without_containerd:
        return _SKIPPED

    async def question(client: "ContainerdClient") -> Containerd:
        answers = await client.ask(singles)
        return _known(answers.known, answers.version)

    return await _ask(layout, deadline, read_lock, question)


async def ask_one(  # noqa: PLR0913 - what is asked, and how
    layout: Layout,
    key: BundleKey,
    read_lock: ReadLock,
    *,
    shim: ShimGroup = (),
    deadline: float = DEADLINE,
    without_containerd: bool = False,
) -> Containerd:
    """Ask for one bundle alone, and for its shim's records; never raises.

    What comes back speaks about no other bundle but those of that shim.
    """
    if without_containerd:
        return _SKIPPED

    async def question(client: "ContainerdClient") -> Containerd:
        return _known(await client.find(key, shim), "")

    return await _ask(layout, deadline, read_lock, question)


async def _ask(
    layout: Layout,
    deadline: float,
    read_lock: ReadLock,
    question: _Question,
) -> Containerd:
    """Ask, and look at the lock before and after it."""
    before = await read_lock()
    try:
        if is_absent(layout.address):
            raise nobody(layout.address)
        said = await question(connect(layout.address, deadline))
    except NoAnswerError as error:
        # Whose it is takes a look at every bundle, and matters only if it may be proven down.
        may_be_down = before.state is LockState.FREE and error.failure is Failure.NOBODY
        after = await read_lock(owner=may_be_down)
        return _silent(layout, error, before, after)
    held = before if before.state is LockState.HELD else await read_lock()
    if held.state is LockState.TOO_MANY:
        return _none(f"{_lock(layout)} cannot be judged: {held.detail}")
    if held.state in _NOT_HELD:
        # Whoever answers is another containerd, and another one's "not listed" proves nothing.
        return _none(f"{escape(layout.address)} answers but nobody holds {_lock(layout)}{_RIGHT}")
    return replace(said, pid=held.pid)


def _known(known: Known, version: str) -> Containerd:
    return Containerd(
        ContainerdState.UP,
        frozenset(known.tasks),
        version=version,
        detail=_slowness(known),
        unlisted=frozenset(known.unlisted),
        absent=frozenset(known.absent),
        wedged=frozenset(known.wedged),
        recorded=frozenset(known.recorded),
        unrecorded=frozenset(known.unrecorded),
    )


def _slowness(known: Known) -> str:
    if not known.unlisted:
        return ""
    names = ", ".join(sorted(known.unlisted))
    return f"its list of tasks does not come in {names}; it was asked for single ones"


def _silent(layout: Layout, error: NoAnswerError, before: Lock, after: Lock) -> Containerd:
    """Distinguish silence from absence; the lock was looked at before and after the failed call."""
    match after.state:
        case LockState.HELD:
            return _holding(error, after)
        case LockState.NONE | LockState.TOO_MANY:
            return _none(f"{error}, and {_lock(layout)} cannot be judged: {after.detail}")
        case LockState.ABSENT:
            return _none(f"{error}, and there is no {_lock(layout)}{_RIGHT}")
        case LockState.FREE:
            return _free(layout, error, before, after)


def _holding(error: NoAnswerError, after: Lock) -> Containerd:
    who = "containerd" if after.pid is None else f"containerd (pid {after.pid})"
    busy = "it is starting and sweeping" if error.failure is Failure.NOBODY else "it hangs"
    text = f"{who} holds its metadata lock, but {error}: {busy}, or --address is not right"
    return Containerd(pid=after.pid, detail=text)


def _free(layout: Layout, error: NoAnswerError, before: Lock, after: Lock) -> Containerd:
    if error.failure is not Failure.NOBODY:
        return _none(f"{error}, though nobody holds {_lock(layout)}{_RIGHT}")
    if before.state is not LockState.FREE:
        return _none(f"{error}; it has just ended, or is just starting")
    detail = f"{error}, and nobody holds {_lock(layout)}"
    if after.doubt:
        # It may be a stale database, while the tree's own containerd starts or hangs.
        return _none(f"{detail}, but {after.doubt}{_RIGHT}")
    return Containerd(ContainerdState.DOWN, detail=detail)


def _none(detail: str) -> Containerd:
    return Containerd(detail=detail)


def _lock(layout: Layout) -> str:
    return f"metadata lock {escape(layout.metadata_lock)}"
