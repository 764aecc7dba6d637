"""Crew: the worker processes a job can be given to; it finds or makes one, and hears it out.

A job ends in one of three ways: an answer, a worker that died (:class:`DiedError`), or a deadline;
then the worker is killed and not waited for, because the kernel may not let it die. It never gives
a job to a worker that has one, and nothing here runs while there is no job.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, assert_never

import anyio

from reconciler.act.channel import (
    VERSION,
    Answered,
    AskDelete,
    Bounds,
    CleanJob,
    Deleted,
    Done,
    FromChild,
    Hello,
    Job,
    Locked,
    Looks,
    MessageError,
    Progress,
    Stood,
    Swept,
)
from reconciler.act.nursery import Child, LostError, Nursery
from reconciler.model.ids import BundleKey

Delete = Callable[[BundleKey], Awaitable[str | None]]
"""Asks containerd to delete a task. Gives what went wrong, empty if nothing did; None if there was
no answer. Never raises."""

_WHY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds, and how many may hang.

    Attributes:
        job: One cleanup, all steps, hooks included.
        sweep: One pass over /proc.
        look: A look at one bundle where looking may hang.
        stop: From being told to stop to being ended.
        delete: containerd's answer when asked to delete a task.
        dying: Killed processes that the kernel does not let die (D state); no job begins while
            there are more.
    """

    job: float = 60.0
    sweep: float = 10.0
    look: float = 5.0
    stop: float = 3.0
    delete: float = 10.0
    dying: int = 32


@dataclass(slots=True, eq=False)
class Attempt:
    """One job under way, and what was heard of it so far.

    Attributes:
        job: What is to be done.
        progress: How far it had come when it was given up.
        interrupt: Asks its child to stop at the next entry boundary, once it has one.
        scope: Cancel it and the job is not waited for any longer.
        stopped: It was told to stop.
        brief: Its deadline is so short that missing it says nothing about the zygote.
        is_dying: Tells whether its child was killed and is still there.
    """

    job: Job
    progress: Progress = field(default_factory=Progress)
    interrupt: Callable[[], None] | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    stopped: bool = False
    brief: bool = False
    is_dying: Callable[[], bool] = lambda: False


class DiedError(Exception):
    """The worker is gone, or none could be made; the message says why."""


class Crew:
    """Worker processes: the idle ones, and a nursery to make more.

    Args:
        bounds: Where the workers may work.
        limits: Deadlines, and how many may hang.
        delete: Asks containerd to delete a task.

    Attributes:
        irreplaceable: A zygote made now would lack what the first one has: make no other.
    """

    def __init__(self, bounds: Bounds, limits: Limits, delete: Delete | None) -> None:
        self._bounds = bounds
        self._limits = limits
        self._delete = delete
        self.irreplaceable = False
        self._nursery: Nursery | None = None
        self._idle: list[tuple[Nursery, Child]] = []

    def start(self) -> None:
        """Start the zygote; the children come with the jobs."""
        self._nursery = Nursery(self._bounds)

    @property
    def zygote(self) -> int | None:
        """The zygote's pid, None if it was never started."""
        return None if self._nursery is None else self._nursery.pid

    async def zygote_ended(self) -> None:
        """Wait until the present zygote, if there is one, has ended."""
        if self._nursery is not None:
            await self._nursery.ended()

    async def ready(self) -> None:
        """Wait until a job can be sent at once.

        Raises:
            DiedError: No worker can be made.
        """
        await self._living()

    async def close(self) -> None:
        """End every process that was started."""
        for nursery, child in self._idle:
            nursery.forget(child)
        self._idle.clear()
        if self._nursery is not None:
            await self._nursery.close()

    async def run(self, attempt: Attempt, seconds: float) -> Answered | None:
        """Give a job to a child and wait for its end; None if it is not waited for any longer.

        Raises:
            DiedError: The worker is gone, or none could be made.
        """
        nursery, child = await self._employ(attempt.job)
        attempt.interrupt = partial(nursery.interrupt, child)
        if attempt.stopped:  # while it was being sent
            attempt.interrupt()
        attempt.scope.deadline = anyio.current_time() + seconds
        answer: Answered | None = None
        try:
            with attempt.scope:
                answer = await self._converse(nursery, child, attempt)
        finally:  # also when we are cancelled: nobody would hear what it does from now on
            if answer is None:
                attempt.progress = child.slate.read()
                nursery.kill(child)
                attempt.is_dying = partial(nursery.is_dying, child.slot)
            else:
                self._idle.append((nursery, child))
        if answer is None and child.pid is None and not (attempt.stopped or attempt.brief):
            nursery.abandon()  # in all that time it has made no child
        return answer

    async def _employ(self, job: Job) -> tuple[Nursery, Child]:
        """Send the job to an idle child, or to a new one."""
        while self._idle:
            nursery, child = self._idle.pop()
            try:
                child.slate.wipe()
                child.send(job)
            except LostError:
                nursery.forget(child)  # idle for so long that it ended
                continue
            return nursery, child
        nursery = await self._living()
        nursery.refresh()
        if len(nursery.dying) > self._limits.dying:
            raise DiedError(f"{len(nursery.dying)} workers hang in the kernel and cannot be ended")
        try:
            child = nursery.spawn()
            child.send(job)
        except LostError as error:
            raise DiedError("the zygote died") from error
        except OSError as error:
            raise DiedError(f"cannot make a worker: {error.strerror}") from error
        return nursery, child

    async def _living(self) -> Nursery:
        """Give a nursery that lives; the old one, if it died, is buried first."""
        nursery = self._nursery
        if nursery is not None:
            nursery.refresh()
            if not nursery.lost:
                return nursery
        if self.irreplaceable:
            raise DiedError("the zygote died, and one made now could not do its work")
        try:
            self._nursery = living = Nursery(self._bounds)
        except OSError as error:
            raise DiedError(f"cannot make a zygote: {error.strerror}") from error
        if nursery is not None:
            await nursery.close()
        return living

    async def _converse(self, nursery: Nursery, child: Child, attempt: Attempt) -> Answered:
        """Hear a child out, and ask containerd where it wants that."""
        try:
            while (message := await child.receive()) is not None:
                answer = await self._hear(message, child, attempt)
                if answer is not None:
                    return answer
        except (LostError, MessageError) as error:
            raise DiedError(str(error)) from error
        raise DiedError(await nursery.why_ended(child, _WHY_SECONDS))

    async def _hear(self, message: FromChild, child: Child, attempt: Attempt) -> Answered | None:
        match message:
            case Hello(version=version, pid=pid):
                child.pid = pid
                if version != VERSION:
                    raise DiedError("the program was replaced on disk while it ran; restart it")
            case AskDelete():
                child.send(Deleted(await self._ask_containerd(attempt.job)))
            case Done() | Swept() | Stood() | Looks() | Locked():
                return message
            case _:
                assert_never(message)
        return None

    async def _ask_containerd(self, job: Job) -> str | None:
        if self._delete is None or not isinstance(job, CleanJob):
            return "there is no connection to containerd"
        with anyio.move_on_after(self._limits.delete):
            return await self._delete(job.key)
        return None
