"""Tasks: which of them containerd knows, namespace by namespace, however sick their shims are.

To list a namespace containerd asks the shim of each task in turn, and waits for every one that
does not answer (2 s unless configured; containerd `services/tasks/local.go`, 1.6 to 2.1). Three
stopped shims, or one that serves a pod of three, make a list of six seconds. Asked for one task
it waits for that task's shim alone, and what it does not know it denies at once. Measured on 1.6:

- `List` shows a task of a silent shim with state 0, after the wait;
- `Get` of it does the same after one wait; others are answered at once meanwhile, also during a
  list;
- `Get` of what it has no task for says NOT_FOUND within a millisecond, be it that the container is
  recorded and has no task, or that no container of that name is recorded.

So all namespaces are listed at once, and where a list does not come soon its bundles are asked for
one by one. What was asked and is not answered stays without an answer.
"""

from collections.abc import Awaitable, Sequence
from typing import Final, TypeVar

import anyio
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from reconciler.containerd.answers import Failure, Known, NoAnswerError, Singles
from reconciler.containerd.calls import translated, unary
from reconciler.containerd.protobuf import wire
from reconciler.model.ids import BundleKey, escape, is_identifier

SOON: Final = 1.0
"""Seconds after which a list is not waited for alone any more."""

ALONE: Final = 3.0
"""Seconds for the answer about one bundle: longer than containerd waits for a shim."""

ALL_ALONE: Final = 5.0
"""Seconds in which a namespace's bundles are asked for one by one; the others come next time."""

AT_ONCE: Final = 64
"""How many are asked for at the same time; each silent shim keeps one place for its 2 s."""

_LIST: Final = "/containerd.services.tasks.v1.Tasks/List"
_GET: Final = "/containerd.services.tasks.v1.Tasks/Get"
_UNREPORTED: Final = 0  # Status UNKNOWN of task.proto: the shim did not say

_Answer = TypeVar("_Answer")


class TaskQuestions:
    """Asks one containerd over one connection.

    Args:
        channel: The connection.
        address: Where it leads, for people.
        seconds: How long a list may take where there is nobody else to ask for.
    """

    def __init__(self, channel: Channel, address: bytes, seconds: float) -> None:
        self._channel = channel
        self._address = address
        self._seconds = seconds
        self._trouble: NoAnswerError | None = None
        self._is_broken = False

    async def all(self, namespaces: Sequence[str], singles: Singles) -> Known:
        """Ask for the tasks of all these namespaces at once.

        Args:
            namespaces: Their names.
            singles: Whom to ask for where the list does not come.

        Raises:
            NoAnswerError: The connection broke, so nothing of it counts, or nothing was answered.
        """
        known = Known(unlisted=set(namespaces))
        async with anyio.create_task_group() as tasks:
            for name in namespaces:
                patience = 0.0 if name in singles.slow else min(SOON, self._seconds)
                tasks.start_soon(self._namespace, name, known, singles, patience)
        if self._is_broken or (known.unlisted and not known.answers):
            raise self._trouble or NoAnswerError(
                Failure.TIMEOUT, f"{escape(self._address)} does not answer about any task"
            )
        # It answers others meanwhile, so it waits for these shims.
        known.wedged |= known.silent
        return known

    async def one(self, key: BundleKey) -> Known:
        """Ask for a single bundle.

        Raises:
            NoAnswerError: The connection broke, or it gave no answer.
        """
        if not (is_identifier(key.id) and is_identifier(key.namespace)):
            raise NoAnswerError(Failure.ERROR, "containerd could not have created this name")
        known = Known(unlisted={key.namespace})
        await self._get(key, known, anyio.CapacityLimiter(1))
        if self._trouble is not None:
            raise self._trouble
        return known

    async def _namespace(self, name: str, known: Known, singles: Singles, patience: float) -> None:
        """List a namespace; begin to ask one by one if that takes long. The first to end wins."""
        async with anyio.create_task_group() as tasks:
            failed = anyio.Event()
            tasks.start_soon(self._list, name, known, tasks.cancel_scope, failed)
            with anyio.move_on_after(patience):
                await failed.wait()
            keys = [key for key in singles.about(name) if is_identifier(key.id)]
            if not keys:
                with anyio.move_on_after(self._seconds - patience):
                    await failed.wait()
            limiter = anyio.CapacityLimiter(AT_ONCE)
            with anyio.move_on_after(ALL_ALONE):
                async with anyio.create_task_group() as asked:
                    for key in keys:
                        asked.start_soon(self._get, key, known, limiter)
            tasks.cancel_scope.cancel()

    async def _list(
        self, name: str, known: Known, both: anyio.CancelScope, failed: anyio.Event
    ) -> None:
        listed = await self._answer(unary(self._channel, _LIST, wire.ListTasks(), wire.Tasks, name))
        if isinstance(listed, NoAnswerError):
            failed.set()
            if self._is_broken:
                both.cancel()
            return
        known.answers += 1
        known.unlisted.discard(name)
        for task in listed.tasks:
            _note(known, name, task)
        for asked in (known.absent, known.silent):
            asked.difference_update([key for key in asked if key.namespace == name])
        both.cancel()

    async def _get(self, key: BundleKey, known: Known, limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            with anyio.move_on_after(ALONE) as scope:
                request = wire.GetTask(container_id=key.id)
                got = await self._answer(
                    unary(self._channel, _GET, request, wire.Got, key.namespace)
                )
        if scope.cancelled_caught:
            known.silent.add(key)
        elif not isinstance(got, NoAnswerError):
            known.answers += 1
            _note(known, key.namespace, got.process)
        elif _denies(got):
            known.answers += 1
            known.absent.add(key)

    async def _answer(self, call: Awaitable[_Answer]) -> _Answer | NoAnswerError:
        """Await an answer in a task of its own: grpclib cancels whoever waits for a broken one."""
        try:
            with translated(self._address, self._seconds):
                return await call
        except NoAnswerError as error:
            if not _denies(error):
                self._trouble = self._trouble or error
            self._is_broken = self._is_broken or error.failure is not Failure.ERROR
            return error


def _denies(error: NoAnswerError) -> bool:
    """Distinguish "there is no such task" from not having been answered."""
    cause = error.__cause__
    return isinstance(cause, GRPCError) and cause.status is Status.NOT_FOUND


def _note(known: Known, namespace: str, task: wire.Process) -> None:
    """Take in a task that containerd reported."""
    key = BundleKey(namespace, escape((task.id or task.container_id).encode()))
    known.tasks.add(key)
    if task.status == _UNREPORTED:
        known.wedged.add(key)
