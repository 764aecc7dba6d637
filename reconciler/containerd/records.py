"""Records: does containerd know a shim at all: as a task, a container, or a sandbox?

A task of containerd's may end, and its container or its pod's sandbox stays; whoever has one may
start it again, and its shim is no leak. So before a living shim that serves nobody is called
abandoned, each name that it may serve is asked for. Only "not found", said to each of these
questions about each of its names, is a denial. An error, a deadline or a service that this
containerd should have and has not is none.

Asked is nothing but what :class:`ShimGroup` values name, each question with an end of its own.
"""

from collections.abc import Awaitable, Sequence
from typing import Final

import anyio
from google.protobuf.message import Message
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from reconciler.containerd.answers import Known, NoAnswerError
from reconciler.containerd.calls import translated, unary
from reconciler.containerd.protobuf import wire
from reconciler.model.containerd import ShimGroup
from reconciler.model.evidence import Answer
from reconciler.model.ids import BundleKey

MOST: Final = 500
"""Shims of which it is asked at a time; of further ones it is not known whether they are leaked."""

ALONE: Final = 3.0
"""Seconds for one answer: longer than containerd waits for a shim."""

ALL: Final = 10.0
"""Seconds for all of them together."""

AT_ONCE: Final = 16

_TASK: Final = "/containerd.services.tasks.v1.Tasks/Get"
_CONTAINER: Final = "/containerd.services.containers.v1.Containers/Get"
_SANDBOX: Final = "/containerd.services.sandbox.v1.Store/Get"
_SANDBOXES_SINCE: Final = (1, 7)
"""The first version that has a store of sandboxes (`api/services/sandbox/v1`)."""


class RecordQuestions:
    """Asks one containerd over one connection.

    Args:
        channel: The connection.
        address: Where it leads, for people.
        version: As it calls itself; one that cannot be understood may have sandboxes.
    """

    def __init__(self, channel: Channel, address: bytes, version: str) -> None:
        self._channel = channel
        self._address = address
        self._has_sandboxes = _number(version) >= _SANDBOXES_SINCE
        self._limiter = anyio.CapacityLimiter(AT_ONCE)

    async def ask(self, groups: Sequence[ShimGroup], known: Known) -> None:
        """Ask for every name of each group, and note what is known of it."""
        with anyio.move_on_after(ALL):
            async with anyio.create_task_group() as tasks:
                for group in groups[:MOST]:
                    tasks.start_soon(self._group, group, known)

    async def _group(self, group: ShimGroup, known: Known) -> None:
        async with self._limiter:
            for key in group:
                answer = await self._is_known(key)
                if answer is not Answer.NO:
                    if answer is Answer.YES:
                        known.recorded.update(group)
                    return
            known.unrecorded.update(group)

    async def _is_known(self, key: BundleKey) -> Answer:
        if not key.is_identifier or (key.tree and not self._has_sandboxes):
            return Answer.NONE
        questions: list[tuple[str, Message]] = [
            (_TASK, wire.GetTask(container_id=key.id)),
            (_CONTAINER, wire.GetContainer(id=key.id)),
        ]
        if self._has_sandboxes:
            questions.append((_SANDBOX, wire.GetSandbox(sandbox_id=key.id)))
        for path, request in questions:
            call = unary(self._channel, path, request, wire.Recorded, key.namespace)
            answer = await self._answer(call)
            if answer is not Answer.NO:
                return answer
        return Answer.NO

    async def _answer(self, call: Awaitable[Message]) -> Answer:
        try:
            with translated(self._address, ALONE), anyio.fail_after(ALONE):
                await call
        except NoAnswerError as error:
            cause = error.__cause__
            denies = isinstance(cause, GRPCError) and cause.status is Status.NOT_FOUND
            return Answer.NO if denies else Answer.NONE
        return Answer.YES


def _number(version: str) -> tuple[int, ...]:
    """Read "v1.7.24" or "1.6.20~ds1"; the newest there can be if it is neither."""
    first = version.removeprefix("v").split(".")[:2]
    return tuple(map(int, first)) if all(map(str.isdecimal, first)) else (1 << 30,)
