"""Decisions: everything the engine ever concludes or asks for, as a closed union of values."""

import msgspec

from reconciler.model.debris import Place
from reconciler.model.evidence import Facts
from reconciler.model.ids import BundleKey, Identity
from reconciler.model.observations import HintKind, ResyncKind
from reconciler.model.values import Tagged, Value, Word


class Verdict(Word):
    """What a bundle is (design section 3)."""

    RUNNING = "running"
    STOPPED = "stopped"
    ABANDONED = "abandoned"
    STARTING = "starting"
    IN_TRANSITION = "in-transition"
    ORPHANED = "orphaned"
    LEFTOVER = "leftover"
    UNKNOWN = "unknown"
    FOREIGN = "foreign"


class Phase(Word):
    """Where a leftover stands; ``NONE`` for everything else."""

    NONE = ""
    WAITING = "waiting"
    DUE = "due"
    CLEANING = "cleaning"
    CLEANED = "cleaned"
    BLOCKED = "blocked"
    PROTECTED = "protected"
    HELD = "held"


class Judgement(Value, frozen=True):
    """A bundle's verdict with the rule that fired and why, in words.

    Attributes:
        verdict: See :class:`Verdict`.
        rule: Row of the verdict table, 1 to 8.
        reason: One line for people.
        claimed: A leftover that containerd still lists: it is asked to delete it first.
    """

    verdict: Verdict
    rule: int
    reason: str
    claimed: bool = False


class Judged(Tagged, frozen=True, tag="judged"):
    """A bundle's verdict or phase changed (also said once when a bundle is first judged).

    Attributes:
        key, judgement, phase: What is believed now.
        previous: The verdict before, None if new.
        cause: Phase's cause: the block reason, the brake, the protecting rule; empty if none.
        due_at: Monotonic time at which a waiting leftover becomes due, None if never or now.
        facts: The row the verdict was made from.
    """

    key: BundleKey
    judgement: Judgement
    phase: Phase = Phase.NONE
    previous: Verdict | None = None
    cause: str = ""
    due_at: float | None = None
    facts: Facts | None = None


class OfBundle(Tagged, frozen=True):
    """A decision about one bundle; all else in it are numbers and words of enumerations.

    So only its key names anything, and whoever redacts it needs to know no more. A decision with
    text of its own is none of these.
    """

    key: BundleKey


class Vanished(OfBundle, frozen=True, tag="vanished"):
    """A bundle is no longer there. ``cleaned`` says whether it was our own doing."""

    last: Verdict | None = None
    cleaned: bool = False


class DeathCause(Word):
    """Whose end was abnormal."""

    INIT = "init"
    SHIM = "shim"
    BOTH = "both"


class Died(OfBundle, frozen=True, tag="died"):
    """A task ended abnormally: counted once per death (metric ``abnormal_terminations_total``)."""

    cause: DeathCause


class BudgetKind(Word):
    """Which budget is exceeded."""

    AGE = "age"
    SIZE = "size"


class OverBudget(OfBundle, frozen=True, tag="over-budget"):
    """A *running* task exceeds a budget: reported, never touched."""

    kind: BudgetKind = msgspec.field(name="budget")


class Braked(Tagged, frozen=True, tag="braked"):
    """A brake was pulled (``on``) or released."""

    brake: str
    on: bool
    detail: str


class LookAt(OfBundle, frozen=True, tag="look-at"):
    """Ask for a close look at a bundle."""

    why: HintKind = HintKind.CHANGED


class Relist(Tagged, frozen=True, tag="relist"):
    """Ask for a listing of the tree or of one namespace."""

    why: ResyncKind
    namespace: str | None = None


class AskNode(Tagged, frozen=True, tag="ask-node"):
    """Ask the node's witnesses (sweep of /proc, containerd) anew."""

    why: str


class TakeInventory(Tagged, frozen=True, tag="take-inventory"):
    """Ask for an inventory of what lies outside of bundles; one at a time."""


class CleanDebris(Tagged, frozen=True, tag="clean-debris"):
    """Ask for the removal of debris: places of one kind. A DebrisCleaned must follow.

    One batch is under way at a time.
    """

    places: tuple[Place, ...]


class Clean(OfBundle, frozen=True, tag="clean"):
    """Ask for a cleanup. At most one per bundle is under way; an Outcome must follow.

    ``kill``: it is not a leftover but an orphaned workload that the operator wants ended; nothing
    is removed by that. ``shim``: likewise, of an abandoned shim.
    """

    identity: Identity
    claimed: bool
    attempt: int
    kill: bool = False
    shim: bool = False

    @property
    def wanted(self) -> Verdict:
        """The verdict that what is to be removed or ended must have."""
        if self.shim:
            return Verdict.ABANDONED
        return Verdict.ORPHANED if self.kill else Verdict.LEFTOVER


class FinishRemoval(OfBundle, frozen=True, tag="finish-removal"):
    """Ask to finish a removal of ours that was cut short; the key's id is the hidden name."""

    identity: Identity


Report = Judged | Vanished | Died | OverBudget | Braked
"""Conclusions: for listeners only."""

Request = LookAt | Relist | AskNode | TakeInventory | CleanDebris | Clean | FinishRemoval
"""Work for the loop to do."""

Decision = Report | Request


def assert_reported(_: Report) -> None:
    """Accept what is left of a match whose every request has a case: there is nothing to do.

    As `assert_never`, it is for the type checker, which names the match that a new kind of request
    has no case in, and is content with a new kind of report.
    """


def assert_requested(_: Request) -> None:
    """Accept what is left of a match whose every report has a case; as `assert_reported`."""
