r"""The journal's format, schema 1: one JSON object a line. Only shapes, no behaviour.

The first line is a :class:`Header`, every other a :class:`Record`. A reader ignores fields it does
not know; a change that an older reader would misunderstand raises :data:`SCHEMA`, and a newer
schema is refused.

Names are kept small by numbers. A record's ``n`` names bundles for the first time: they get the
next numbers, from 0. The same holds for ``j``, rows of judgement and facts. ``b`` is a bundle's
number everywhere. A bundle's number ends with the record that says it is gone (a ``gone`` look, or
a ``vanished`` decision). A ``gap`` and every header begin all numbering anew. Names and paths are
text with every byte that is not printable UTF-8, and every backslash, as ``\xNN``.

A field at its default is left out. Times: ``t`` is the monotonic clock in seconds; the wall clock
is ``t + (header.wall - header.mono)`` plus ``w`` steps of 2**-22 seconds, or ``W`` where that is
not exact. Enumerations are written by value. Field letters mean the same everywhere:

    a answered   b bundle (number)   c cause or reason   d detail   i identity [dev, ino, mount id]
    k kind of a record's part        s state or seconds  v verdict  y why
"""

from typing import Final

import msgspec

MAGIC: Final = "containerd-reconciler"
SCHEMA: Final = 1

Identity = tuple[int, int, int]
Name = tuple[str, str]
"""Namespace and id."""
Labels = tuple[bool, str, str, str, str, tuple[tuple[str, str], ...]]
"""Known, pod namespace, pod, container, sandbox, annotations. Left out if nothing is known."""
Seen = int | tuple[int, Identity]
"""A bundle's number, with its identity where that is not the one last recorded."""


# ------------------------------------------------------------------------------ configuration


class Match(msgspec.Struct, frozen=True, omit_defaults=True):
    """Globs of a rule."""

    namespace: str | None = None
    id: str | None = None
    pod_namespace: str | None = None
    pod: str | None = None
    container: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """One policy; times in seconds, sizes in bytes, null for no such limit."""

    name: str
    enforce: bool
    protect: bool
    grace: float
    threshold: float
    max_age: float | None
    max_size: int | None
    orphans: str


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule."""

    match: Match
    policy: Policy


class Policies(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything the engine knew of the configuration."""

    default: Policy
    rules: tuple[Rule, ...]
    brakes: tuple[int | None, float, int]
    backoff: tuple[float, float]
    settle: float
    recheck: float
    confirm_death: float
    parallel: int
    node_max_size: int | None
    volatile: bool


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of every file.

    Attributes:
        journal: :data:`MAGIC`.
        schema: :data:`SCHEMA`.
        program: Version that wrote it.
        host, boot: Host name and boot id.
        mono, wall: The clocks when the file was begun.
        run: Identifies the run: all files of one rotation carry the same.
        part: Number of the file within the run, from 0.
        config: Digest of the policies.
        policies: In force when the file was begun.
        redacted: Names were replaced.
    """

    journal: str
    schema: int
    program: str
    host: str
    boot: str
    mono: float
    wall: float
    run: str
    part: int
    config: str
    policies: Policies
    redacted: bool = False


# ----------------------------------------------------------------------------------- evidence


class Look(msgspec.Struct, frozen=True, omit_defaults=True):
    """One close look."""

    i: Identity
    k: str  # kind
    e: int  # entries, bits as in reconciler.model.evidence.Entries
    m: float  # newest mtime
    z: int  # size in bytes, or more if cut
    created: str
    runtime: tuple[str, str]  # state, name
    init: tuple[str, int | None, str]  # state, pid, detail
    shim: tuple[str, str | None, str | None, int | None, str]  # state, socket, group, pid, detail
    cgroup: str
    mounts: tuple[tuple[str, int, str], ...] = ()  # path, mount id, filesystem type
    shown: tuple[int, ...] = ()  # places in it: mounts that others outside show, too
    labels: Labels | None = None
    cut: bool = False  # the size was not counted to its end
    cgroup_source: str = ""
    cgroup_paths: tuple[str, ...] = ()


class Sweep(msgspec.Struct, frozen=True, omit_defaults=True):
    """One pass over /proc, as a difference to the last one of this file."""

    a: bool = True
    helpers: tuple[Name, ...] = ()
    no_helpers: tuple[Name, ...] = ()
    shims: tuple[tuple[str, str, int, str], ...] = ()  # namespace, id, pid, address
    no_shims: tuple[tuple[str, str, int, str], ...] = ()
    cgroups: tuple[str, ...] = ()
    no_cgroups: tuple[str, ...] = ()
    unread: tuple[tuple[int, Name | None], ...] = ()  # all of them: pid, namespace and id
    paths: tuple[str, ...] = ()
    no_paths: tuple[str, ...] = ()
    unplaced: int = 0


class Containerd(msgspec.Struct, frozen=True, omit_defaults=True):
    """containerd's word; its tasks as a difference to the last one of this file.

    The rest is whole: it is empty but where shims do not answer containerd.
    """

    s: str
    tasks: tuple[Name, ...] = ()
    no_tasks: tuple[Name, ...] = ()
    pid: int | None = None
    version: str = ""
    d: str = ""
    unlisted: tuple[str, ...] = ()
    absent: tuple[Name, ...] = ()
    wedged: tuple[Name, ...] = ()


# ------------------------------------------------------------------------------- observations


class Hint(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="hint"):
    """Something may have changed."""

    b: int
    y: str = "changed"


class Doubt(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="doubt"):
    """Everything may have changed."""

    y: str
    ns: str | None = None


class Listed(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="list"):
    """A listing.

    Either ``b`` lists all bundles, or the listing differs from the last one of the same scope in
    this file: first ``x`` are taken out, then each of ``add`` is inserted at its position.
    """

    a: bool = True
    present: bool = True
    ns: str | None = None
    s: float = 0.0
    b: tuple[tuple[int, Identity], ...] | None = None
    x: tuple[int, ...] = ()
    add: tuple[tuple[int, Seen], ...] = ()
    hidden: tuple[tuple[str, str, Identity, float, bool], ...] = ()


class Looked(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="look"):
    """A look that found something new."""

    b: int
    l: Look  # noqa: E741 - one letter of the format


class Same(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="same"):
    """A look that found what the last one found."""

    b: int


class Gone(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="gone"):
    """A look that found nothing of that name."""

    b: int


class Node(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="node"):
    """The node's witnesses; null for one that was not asked."""

    since: float
    sweep: Sweep | None = None
    containerd: Containerd | None = None


class Guards(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="guards"):
    """Guards that refuse, and why."""

    c: tuple[tuple[str, str], ...] = ()


class Remembered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="remembered"):
    """What an earlier run wrote down."""

    b: int
    i: Identity
    alive: float | None = None
    leftover: float | None = None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="outcome"):
    """What came of a cleanup."""

    b: int
    i: Identity
    r: str  # result
    c: str | None = None
    d: str = ""
    holders: tuple[tuple[int, str, str], ...] = ()  # pid, name, how
    steps: tuple[tuple[str, str, str, float, int], ...] = ()  # step, result, detail, s, mutations
    l: Look | None = None  # noqa: E741 - one letter of the format
    s: float = 0.0


Observation = Hint | Doubt | Listed | Looked | Same | Gone | Node | Guards | Remembered | Outcome


# ---------------------------------------------------------------------------------- decisions


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A judgement and the facts it was made from, in their order in reconciler.model.evidence."""

    v: str
    r: int
    y: str
    claimed: bool = False
    f: tuple[str, bool, str, str, str, str, str, str, str] | None = None


class Judged(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="judged"):
    """A verdict or phase changed; ``j`` is the number of its row."""

    b: int
    j: int
    p: str = ""
    before: str | None = None
    c: str = ""
    due: float | None = None


class Vanished(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="vanished"):
    """A bundle is gone."""

    b: int
    v: str | None = None
    cleaned: bool = False


class Died(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="died"):
    """A task ended abnormally."""

    b: int
    c: str


class OverBudget(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="over-budget"):
    """A running task exceeds a budget."""

    b: int
    c: str


class Braked(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="brake"):
    """A brake was pulled or released."""

    y: str
    on: bool
    d: str


class Looks(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="look-at"):
    """Looks asked for; ``b`` null for every bundle of the listing in this record."""

    y: str = "changed"
    b: tuple[int, ...] | None = None


class Relist(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="relist"):
    """A listing asked for."""

    y: str
    ns: str | None = None


class AskNode(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="ask"):
    """The witnesses are to be asked."""

    y: str


class Clean(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="clean"):
    """A cleanup asked for."""

    b: int
    i: Identity
    claimed: bool = False
    attempt: int = 1
    kill: bool = False


class Finish(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="k", tag="finish"):
    """The rest of a removal of ours is to be removed."""

    b: int
    i: Identity


Decision = (
    Judged | Vanished | Died | OverBudget | Braked | Looks | Relist | AskNode | Clean | Finish
)


# ------------------------------------------------------------------------------------ records


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing given to the engine and all it concluded from it.

    Attributes:
        t, w, W: When; see above.
        o: The observation. Without one the engine was given the time alone, or policies.
        p: Policies that were put into force.
        d: What was decided, in order.
        n, j: Names and rows that appear for the first time.
        gap: So many records were lost here, why in ``y``; ``p`` is in force after it. Nothing
            else is in such a record.
    """

    gap: int | None = None  # first, so that the writer knows one without reading it
    t: float = 0.0
    w: int = 0
    W: float | None = None
    n: tuple[Name, ...] = ()
    j: tuple[Row, ...] = ()
    o: Observation | None = None
    p: Policies | None = None
    d: tuple[Decision, ...] = ()
    y: str = ""
