"""Channel: how messages travel between the pool, the fork server and the workers.

A message is one MessagePack struct after its length, on one end of a socket pair. What the messages
are, and who sends which, is in `reconciler.worker.messages`. The fork server and the workers wait
on their ends; the pool's ends never wait, because nobody may block its loop.
"""

import os
import signal
import socket
import struct
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from reconciler.worker.messages import Message, Progress

MAX_MESSAGE: Final = 1 << 24
"""16 MiB; a sweep of 100,000 ids is half of it, and hardly more is told (`probe.populated`)."""

OF_THE_PARENT: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that only the parent takes; it closes our sockets then."""

_LENGTH: Final = struct.Struct("!I")
_CHUNK: Final = 1 << 16

In = TypeVar("In")

_encoder: Final = msgspec.msgpack.Encoder()
_progress: Final = msgspec.msgpack.Decoder(Progress)


class MessageError(Exception):
    """The other side said what this side does not understand: a bug, or a mixed installation."""


class LostError(Exception):
    """The other process is gone or does not read any more."""


def pack(message: Message | Progress) -> bytes:
    """Give a message its frame."""
    payload = _encoder.encode(message)
    return _LENGTH.pack(len(payload)) + payload


class Channel(Generic[In]):
    """One end of a channel; one whose socket has a timeout of 0 never waits.

    Attributes:
        fds: Descriptors that came along, in order; the kernel closes those beyond ``most_fds``.
    """

    def __init__(
        self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[In], *, most_fds: int = 0
    ) -> None:
        self.socket = sock
        self.fds: list[int] = []
        self._decoder = decoder
        self._most_fds = most_fds
        self._buffer = bytearray()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message whole; an end that never waits takes one that does not fit for lost.

        Raises:
            LostError: The other side is gone or does not read.
        """
        data = pack(message)
        try:
            if not fds:
                self.socket.sendall(data)
            elif socket.send_fds(self.socket, [data], list(fds)) != len(data):
                raise LostError("its channel is full")
        except BlockingIOError:
            raise LostError("its channel is full") from None
        except (BrokenPipeError, ConnectionResetError) as error:
            raise LostError(str(error)) from error

    def receive(self) -> In | None:
        """Wait for a message, where this end waits; None once the other side is gone."""
        while (message := self.pending()) is None:
            if not self.fill():
                return None
        return message

    def fill(self) -> bool | None:
        """Read once; False at the end, None if an end that never waits found nothing."""
        try:
            data, fds, _, _ = socket.recv_fds(
                self.socket, _CHUNK, self._most_fds, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return False
        self.fds += fds
        self._buffer += data
        return bool(data)

    def pending(self) -> In | None:
        """Give the next whole message, without reading; None if more must be read first.

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


class ProgressFile:
    """A small file in memory on which a worker notes its progress. Nobody is woken by that.

    The pool wipes it before each job and reads it only if the worker was lost.
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
        data = os.pread(self.fd, os.fstat(self.fd).st_size, 0)
        length = _LENGTH.unpack_from(data)[0] if len(data) > _LENGTH.size else 0
        try:
            return _progress.decode(data[_LENGTH.size : _LENGTH.size + length])
        except msgspec.MsgspecError:
            return Progress()

    def close(self) -> None:
        """Give the handle back."""
        os.close(self.fd)
