"""Channel: what the parent, the zygote and its children say to each other, and how it is framed.

The parent decides and asks, a child judges again and does, the zygote only makes and ends
children. A message is one MessagePack struct after its length; names travel as text. Everything a
child may do is a struct on this page, so the page is the whole privileged interface. Nothing here
does I/O except :class:`Link`, the blocking end of the zygote and its children, and :class:`Slate`.

    control   parent -> zygote: Bounds, once; then Spawn (with two handles), Interrupt, Kill
              zygote -> parent: Exited
    job       parent -> child:  CleanJob, KillJob, FinishJob, SweepJob, StandJob, LookJob,
                                LockJob, Deleted
              child -> parent:  Hello, AskDelete, Done, Swept, Stood, Looks, Locked
    slate     child writes, parent reads if it must: Progress
"""

import os
import socket
import struct
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from reconciler import __version__
from reconciler.model.evidence import Answer, Containerd, Look, Sweep
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.layout import Layout
from reconciler.model.outcome import Outcome, Step
from reconciler.probe.locks import Lock

VERSION: Final = f"{__version__}/6"
"""Said first by every child. It differs if the program was replaced on disk while it ran."""

MAX_MESSAGE: Final = 1 << 24
"""16 MiB; a sweep of 100,000 ids is half of it, and hardly more is told (`probe.populated`)."""

_LENGTH: Final = struct.Struct("!I")
_CHUNK: Final = 1 << 16
_MAX_FDS: Final = 8


@dataclass(frozen=True, slots=True)
class Manner:
    """How to clean: the settings a child needs. They come with every job, so a reload is simple.

    Attributes:
        layout: Where things are.
        settle: Seconds a bundle counts as young (design section 3, rule 7).
        lazy_unmount: Detach a busy rootfs instead of leaving it, where the operator asked for it.
        runc: The runtime's binary; looked up in PATH unless it holds a slash.
        hook_seconds: How long ``runc delete`` may take with its poststop hooks.
    """

    layout: Layout
    settle: float = 120.0
    lazy_unmount: bool = False
    runc: str = "runc"
    hook_seconds: float = 30.0


class Bounds(msgspec.Struct, frozen=True, tag=True):
    """Where the children may work, and what they may execute. Said first, and only once.

    The parent says so before it has heard anything from outside. Whoever takes it over later can
    send no child to another tree, nor have it execute another program.
    """

    layout: Layout
    runc: str

    def hold(self, manner: Manner) -> bool:
        """Tell whether a job's manner keeps within them."""
        return (manner.layout, manner.runc) == (self.layout, self.runc)


class Spawn(msgspec.Struct, frozen=True, tag=True):
    """Make a child for ``slot``; its job socket and its slate come along as descriptors."""

    slot: int


class Interrupt(msgspec.Struct, frozen=True, tag=True):
    """Ask a child to stop at the next entry boundary (SIGTERM)."""

    slot: int


class Kill(msgspec.Struct, frozen=True, tag=True):
    """End a child at once (SIGKILL)."""

    slot: int


class Exited(msgspec.Struct, frozen=True, tag=True):
    """A child is gone, or could not be made.

    Attributes:
        slot: Which one.
        code: Exit code, or minus the signal's number; 0 with ``trouble`` if it was never made.
        trouble: Why it could not be made, else empty.
    """

    slot: int
    code: int
    trouble: str = ""


class CleanJob(msgspec.Struct, frozen=True, tag=True):
    """Judge this bundle again and remove it if it is still that object and still leftover.

    Of what the node's witnesses said, only containerd's word on this one bundle comes along
    (:meth:`Containerd.about`); the child sweeps /proc itself.
    """

    key: BundleKey
    identity: Identity
    containerd: Containerd
    manner: Manner


class KillJob(msgspec.Struct, frozen=True, tag=True):
    """Judge this bundle again and end its processes if it is still that object and orphaned."""

    key: BundleKey
    identity: Identity
    containerd: Containerd
    manner: Manner


class FinishJob(msgspec.Struct, frozen=True, tag=True):
    """Finish a removal of ours that was cut short; the key's id is the hidden name."""

    key: BundleKey
    identity: Identity
    manner: Manner


class SweepJob(msgspec.Struct, frozen=True, tag=True):
    """Pass over /proc once."""


class StandJob(msgspec.Struct, frozen=True, tag=True):
    """Measure whether acting is safe from where the child stands."""

    manner: Manner


class LookJob(msgspec.Struct, frozen=True, tag=True):
    """Look at these bundles and change nothing, as the parent's own eyes would.

    Attributes:
        keys: The bundles.
        annotation_keys: Annotations that rules match on.
        manner: Says where they are.
        near: Leave out what may hang, as the parent does; else whoever asks is ready to end us.
    """

    keys: tuple[BundleKey, ...]
    annotation_keys: frozenset[str]
    manner: Manner
    near: bool


class LockJob(msgspec.Struct, frozen=True, tag=True):
    """Find out who holds containerd's metadata lock.

    Attributes:
        manner: Says where it is.
        owner: If nobody does, find out whether it is that of the tree's own containerd.
    """

    manner: Manner
    owner: bool = False


class Deleted(msgspec.Struct, frozen=True, tag=True):
    """What came of asking containerd: what went wrong, empty if nothing did, None if no answer."""

    trouble: str | None = ""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The child is there and speaks this version."""

    version: str
    pid: int


class AskDelete(msgspec.Struct, frozen=True, tag=True):
    """The bundle is judged leftover and claimed: containerd is to delete its task now."""


class Progress(msgspec.Struct, frozen=True):
    """How far a job is. Not sent but written where the parent can read it, should it have to.

    Attributes:
        began: The step that runs now.
        steps: The steps that are over.
    """

    began: str = ""
    steps: tuple[Step, ...] = ()


class Done(msgspec.Struct, frozen=True, tag=True):
    """The job is over."""

    outcome: Outcome


class Swept(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`SweepJob`."""

    sweep: Sweep


class Stood(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`StandJob`: where the child stands, as measured there.

    Attributes:
        reference: With whose namespaces its own were compared, for people.
        same_pids, same_time, same_mounts: Whether the namespace is the reference's.
        shared_tree: Whether the state tree's mount is in one shared peer group with the
            reference's; asked only if the mount namespaces differ.
        fstype: Filesystem type of the state tree; empty if that could not be told, None if there is
            no tree yet.
        openat2: The kernel lets it resolve names beneath a handle.
        lacking: Privileges that are missing, by name.
    """

    reference: str
    same_pids: Answer
    same_time: Answer
    same_mounts: Answer
    shared_tree: Answer
    fstype: str | None
    openat2: bool
    lacking: tuple[str, ...] = ()


class Looks(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`LookJob`: a look for each key in order, None where no such name is.

    Attributes:
        looks: The looks.
        missed: Of those that are partial, by position: where they left something out.
    """

    looks: tuple[Look | None, ...]
    missed: dict[int, frozenset[str]] = {}


class Locked(msgspec.Struct, frozen=True, tag=True):
    """Answer to :class:`LockJob`."""

    lock: Lock


ToZygote = Bounds | Spawn | Interrupt | Kill
Job = CleanJob | KillJob | FinishJob | SweepJob | StandJob | LookJob | LockJob
ToChild = Job | Deleted
Answered = Done | Swept | Stood | Looks | Locked
FromChild = Hello | AskDelete | Answered
Message = ToZygote | Exited | ToChild | FromChild

In = TypeVar("In")

_encoder: Final = msgspec.msgpack.Encoder()
_progress: Final = msgspec.msgpack.Decoder(Progress)


class MessageError(Exception):
    """The other side said what this side does not understand: a bug, or a mixed installation."""


def pack(message: Message | Progress) -> bytes:
    """Give a message its frame."""
    payload = _encoder.encode(message)
    return _LENGTH.pack(len(payload)) + payload


class Unpacker(Generic[In]):
    """Turns bytes as they come into messages of one direction."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[In]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in what was read."""
        self._buffer += data

    def next(self) -> In | None:
        """Give the next whole message, None if more must be read first.

        Raises:
            MessageError: It is none of this direction's messages.
        """
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_MESSAGE:
            raise MessageError(f"a message of {length} bytes")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        try:
            return self._decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise MessageError(str(error)) from error


def zygote_hears() -> Unpacker[ToZygote]:
    """Unpack what the parent says to the zygote."""
    return Unpacker(msgspec.msgpack.Decoder(ToZygote))


def child_hears() -> Unpacker[ToChild]:
    """Unpack what the parent says to a child."""
    return Unpacker(msgspec.msgpack.Decoder(ToChild))


def parent_hears_zygote() -> Unpacker[Exited]:
    """Unpack what the zygote says."""
    return Unpacker(msgspec.msgpack.Decoder(Exited))


def parent_hears_child() -> Unpacker[FromChild]:
    """Unpack what a child says."""
    return Unpacker(msgspec.msgpack.Decoder(FromChild))


class Slate:
    """A small file in memory that a child writes its progress on. Nobody is woken by that.

    The parent wipes it before each job and reads it only if the child was lost.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, progress: Progress) -> None:
        """Replace what is on it; one call, so that it is there whole or not at all."""
        os.pwrite(self.fd, pack(progress), 0)

    def wipe(self) -> None:
        """Take everything off it."""
        os.ftruncate(self.fd, 0)

    def read(self) -> Progress:
        """Give what is on it; nothing if that makes no sense."""
        data = os.pread(self.fd, _CHUNK, 0)
        length = _LENGTH.unpack_from(data)[0] if len(data) > _LENGTH.size else 0
        try:
            return _progress.decode(data[_LENGTH.size : _LENGTH.size + length])
        except msgspec.MsgspecError:
            return Progress()

    def close(self) -> None:
        """Give the handle back."""
        os.close(self.fd)


class Link(Generic[In]):
    """A blocking end of a channel. Descriptors that come along wait in :attr:`fds`, in order."""

    def __init__(self, sock: socket.socket, unpacker: Unpacker[In]) -> None:
        self.socket = sock
        self.fds: list[int] = []
        self._unpacker = unpacker

    def send(self, message: Message) -> None:
        """Send; raises OSError if nobody listens any more."""
        self.socket.sendall(pack(message))

    def receive(self) -> In | None:
        """Wait for a message; None once the other side is gone."""
        while (message := self._unpacker.next()) is None:
            if not self.fill():
                return None
        return message

    def fill(self) -> bool:
        """Read once, waiting for something to come; False at the end."""
        try:
            data, fds, _, _ = socket.recv_fds(
                self.socket, _CHUNK, _MAX_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return False
        self.fds += fds
        if data:
            self._unpacker.feed(data)
        return bool(data)

    def pending(self) -> In | None:
        """Give a message that is here already, without reading."""
        return self._unpacker.next()
