"""Calls: one request on containerd's socket, and a name for every kind of silence.

Whatever goes wrong below, in grpclib, HTTP/2 or the kernel, comes out as a
:class:`~reconciler.containerd.answers.NoAnswerError`. Nothing here knows what is asked.
"""

import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from errno import EINVAL
from typing import TypeVar

from anyio.lowlevel import cancel_shielded_checkpoint
from google.protobuf.message import DecodeError, Message
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from reconciler.containerd.answers import Failure, NoAnswerError, nobody
from reconciler.model.ids import escape
from reconciler.probe import reach

Reply = TypeVar("Reply", bound=Message)


@contextmanager
def translated(address: bytes, seconds: float) -> Generator[None]:
    """Name the kind of silence, whatever it was raised as."""
    where = escape(address)
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise nobody(address) from error
    except PermissionError as error:
        raise NoAnswerError(Failure.FORBIDDEN, f"no permission to ask {where}") from error
    except TimeoutError as error:
        text = f"no answer from {where} within {seconds:g} s"
        raise NoAnswerError(Failure.TIMEOUT, text) from error
    except GRPCError as error:
        text = f"{where} answers {error.status.name}: {error.message}"
        raise NoAnswerError(Failure.ERROR, text) from error
    except (OSError, StreamTerminatedError, ProtocolError, H2Error, DecodeError) as error:
        text = f"{where} broke off: {error}"
        raise NoAnswerError(Failure.BROKEN, text) from error
    except AttributeError as error:
        if error.name != "_transport":
            raise
        # grpclib 0.4.9 fails so on a connection that broke before its first use
        raise NoAnswerError(Failure.BROKEN, f"{where} broke off at once") from error


async def unary(
    channel: Channel, path: str, request: Message, reply: type[Reply], namespace: str = ""
) -> Reply:
    """Make one request and wait for its reply."""
    metadata = {"containerd-namespace": namespace} if namespace else None
    return await UnaryUnaryMethod(channel, path, type(request), reply)(request, metadata=metadata)


@asynccontextmanager
async def opened(address: bytes) -> AsyncGenerator[Channel]:
    """Open a connection with the first request made on it, and close it."""
    if b"\0" in address:
        raise OSError(EINVAL, "a NUL in the path")
    if why := reach.trouble(address):
        raise NoAnswerError(Failure.BROKEN, why)  # to connect there could hold us up for good
    channel = Channel(path=os.fsdecode(address))
    try:
        yield channel
    finally:
        channel.close()
        await cancel_shielded_checkpoint()  # the transport closes in the loop's next turn
