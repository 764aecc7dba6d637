"""The cast: which bundles the demo makes, what is odd about each, what is promised of it. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from reconciler.model.decisions import Phase, Verdict
from reconciler.model.ids import BundleKey


class Promise(Enum):
    """How a bundle must end."""

    KEPT = "untouched"
    BLOCKED = "kept, blocked"
    CLEANED = "removed"


@dataclass(frozen=True, slots=True)
class Fixture:
    """One bundle of the demo.

    Attributes:
        key: Its name.
        story: What it is, for people.
        shim: Whether a shim serves it: its own, or that of ``group``.
        init: Whether its init process lives.
        verdict: What it must be judged as while nothing is killed.
        promise: How it must end.
        group: The id its shim was started for, where that is not its own.
        missing: Files it lacks; ``*`` for every file.
        killed: Whether its shim and init are killed half way.
        data: Whether somebody's data lies in its rootfs directory.
    """

    key: BundleKey
    story: str
    shim: bool
    init: bool
    verdict: Verdict
    promise: Promise
    group: str | None = None
    missing: tuple[str, ...] = ()
    killed: bool = False
    data: bool = False

    @property
    def phase(self) -> Phase:
        """The phase in which it must end."""
        return {
            Promise.KEPT: Phase.NONE,
            Promise.BLOCKED: Phase.BLOCKED,
            Promise.CLEANED: Phase.CLEANED,
        }[self.promise]


def _live(  # noqa: PLR0913 - a row of the table below
    namespace: str,
    name: str,
    story: str,
    verdict: Verdict,
    *,
    shim: bool = True,
    init: bool = True,
    missing: tuple[str, ...] = (),
    group: str | None = None,
) -> Fixture:
    key = BundleKey(namespace, name)
    return Fixture(key, story, shim, init, verdict, Promise.KEPT, group=group, missing=missing)


def _dead(namespace: str, name: str, story: str, *missing: str, data: bool = False) -> Fixture:
    promise = Promise.BLOCKED if data else Promise.CLEANED
    return Fixture(
        BundleKey(namespace, name),
        story,
        shim=False,
        init=False,
        verdict=Verdict.LEFTOVER,
        promise=promise,
        missing=missing,
        data=data,
    )


_UNBORN: Final = ("init.pid", "log.json", "options.json", "runtime", "state.json")


def fixtures(which: int = 1) -> tuple[Fixture, ...]:
    """Give the roles of one demo.

    Args:
        which: Which one of those that run at a time, from 1. Each has names of its own: a living
            shim of the same namespace and id contradicts a death, whoever it belongs to.
    """
    demo = "demo" if which == 1 else f"demo{which}"
    # A namespace of their own: where every file is gone only the absence of any shim in the
    # namespace proves that none serves the bundle.
    pods, crashed = demo + "-pods", demo + "-crashed"
    stopped = "stopped: its init has ended, its shim lives"
    ended = "a pod's container that has ended; the pod's shim lives"
    no_runtime = "dead, `runtime` missing: containerd 1.x never cleans it"
    has_data = "dead, somebody's data in its rootfs directory"
    return (
        _live(demo, "web", "running", Verdict.RUNNING),
        _live(demo, "batch", stopped, Verdict.STOPPED, init=False),
        _live(demo, "lonely", "orphaned: shim killed, init alive", Verdict.ORPHANED, shim=False),
        _live(
            demo,
            "newborn",
            "being created: no init yet",
            Verdict.STARTING,
            init=False,
            missing=_UNBORN,
        ),
        _live(pods, "pod", "a pod's sandbox", Verdict.RUNNING, group="pod"),
        _live(pods, "pod-app", "a pod's container", Verdict.RUNNING, group="pod"),
        _live(pods, "pod-job", ended, Verdict.STOPPED, init=False, group="pod"),
        _dead(crashed, "complete", "dead, nothing missing"),
        _dead(crashed, "no-runtime", no_runtime, "runtime"),
        _dead(crashed, "no-init-pid", "dead, `init.pid` missing", "init.pid"),
        _dead(crashed, "emptied", "dead, every file missing", "*"),
        _dead(crashed, "has-data", has_data, data=True),
        Fixture(
            BundleKey(demo, "victim"),
            "running; its shim and init are killed half way",
            shim=True,
            init=True,
            verdict=Verdict.RUNNING,
            promise=Promise.CLEANED,
            killed=True,
        ),
    )
