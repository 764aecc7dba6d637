"""Comparisons as words: where a replay decides otherwise, and what was cleaned when. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from reconciler.model.decisions import Decision
from reconciler.model.evidence import Facts
from reconciler.model.ids import BundleKey
from reconciler.present.decisions import DecisionSummary, evidence, key_of, summary
from reconciler.present.envelope import Document, Shape
from reconciler.present.formatting import name, span
from reconciler.present.table import Cell, Column, Table


class Differing(Shape, frozen=True, kw_only=True):
    """One turn in which the two sides differ (an element of ``differences``).

    Attributes:
        at_seconds: Seconds since the journal began.
        namespace, id: The bundle; none where it concerns the node.
        recorded, replayed: The first decisions that are not alike, none where there is none.
        evidence: What is believed about the bundle now, by witness.
    """

    at_seconds: float
    namespace: str = ""
    id: str = ""
    tree: str = ""
    recorded: DecisionSummary | None = None
    replayed: DecisionSummary | None = None
    evidence: dict[str, str]


class ReplayHead(Document, frozen=True, kw_only=True, tag="ReplayDiff"):
    """What `replay -o json` begins with; its three lists follow as they come from disk.

    Attributes:
        journal: The file that was replayed.
        begin: When it begins, as ``time``: all ``at_seconds`` count from then.
        policies: The file with other policies, if it is a what-if.
        observations: How many were played.
    """

    journal: str
    begin: str
    policies: str = ""
    observations: int


class ReplayDiff(ReplayHead, frozen=True, kw_only=True, tag=True):
    """The whole of `replay -o json`.

    Attributes:
        recorded, replayed: What was decided then and now.
        differences: Where it differs, first what is decided, then what is cleaned when.
    """

    recorded: list[DecisionSummary]
    replayed: list[DecisionSummary]
    differences: list[Differing]


@dataclass(slots=True)
class CleanupChange:
    """When one bundle was given to the cleaner, in seconds since the begin; None for never."""

    key: BundleKey
    recorded: float | None = None
    replayed: float | None = None

    @property
    def change(self) -> str:
        """What is different now: ``same``, ``only now``, ``not now``, ``earlier``, ``later``."""
        if self.recorded is None:
            return "only now"
        if self.replayed is None:
            return "not now"
        if self.recorded == self.replayed:
            return "same"
        return "earlier" if self.replayed < self.recorded else "later"


def describe(
    then: Decision | None, now: Decision | None, at: float, begin: float, facts: Facts | None
) -> Differing:
    """Put a difference into words.

    Args:
        then: What was decided when recorded; None where nothing was.
        now: What is decided now, which is not alike.
        at: Seconds since the journal began.
        begin: The monotonic time at which it did.
        facts: What is believed about the bundle now.
    """
    one = then or now
    key = None if one is None else key_of(one)
    recorded, replayed = (None if side is None else summary(at, side) for side in (then, now))
    if recorded is not None and recorded == replayed:
        replayed = replace(recorded, reason=f"{recorded.reason}; {_apart(now, then, begin)}")
        recorded = replace(recorded, reason=f"{recorded.reason}; {_apart(then, now, begin)}")
    return Differing(
        at_seconds=round(at, 6),
        namespace="" if key is None else key.namespace,
        id="" if key is None else key.id,
        tree="" if key is None else key.tree,
        recorded=recorded,
        replayed=replayed,
        evidence={} if facts is None else evidence(facts),
    )


def _apart(one: Decision | None, other: Decision | None, begin: float) -> str:
    """Name what sets a decision apart from another that the same words tell."""
    parts = []
    for what in ("due_at", "previous", "facts", "identity", "last", "cleaned", "why", "namespace"):
        said = getattr(one, what, None)
        if said != getattr(other, what, None):
            if what == "due_at":
                said = "never" if said is None else span(said - begin)
            parts.append(f"{what.replace('_', ' ')} {said}")
    return ", ".join(parts)


def fates_table(fates: Iterable[CleanupChange]) -> Table:
    """Tell what was cleaned when, then and now."""
    columns = (
        Column("BUNDLE", gives_way=True),
        Column("RECORDED", right=True),
        Column("NOW", right=True),
        Column("CHANGE"),
    )
    table = Table(columns)
    for fate in fates:
        cells = (str(fate.key), _at(fate.recorded), _at(fate.replayed), _change(fate))
        table.rows.append([Cell(text) for text in cells])
    return table


def _at(seconds: float | None) -> str:
    return "-" if seconds is None else span(seconds)


def _change(fate: CleanupChange) -> str:
    if fate.recorded is None or fate.replayed is None or fate.change == "same":
        return fate.change
    return f"{span(abs(fate.recorded - fate.replayed))} {fate.change}"


def changed(fate: CleanupChange) -> Differing:
    """Put a fate into the shape of a difference."""
    namespace, id_, tree = fate.key

    def differing(at: float | None) -> DecisionSummary | None:
        return (
            None
            if at is None
            else DecisionSummary(
                at_seconds=round(at, 6),
                namespace=namespace,
                id=id_,
                tree=tree,
                action="clean",
                reason=_change(fate),
            )
        )

    times = [at for at in (fate.recorded, fate.replayed) if at is not None]
    return Differing(
        at_seconds=min(times),
        namespace=namespace,
        id=id_,
        tree=tree,
        recorded=differing(fate.recorded),
        replayed=differing(fate.replayed),
        evidence={},
    )


def difference_text(differing: Differing) -> str:
    """Tell a difference with both sides and the evidence, over several lines."""
    lines = [f"at {span(differing.at_seconds)}: {name(differing) if differing.id else 'the node'}"]
    for side, one in (("recorded", differing.recorded), ("replayed", differing.replayed)):
        lines.append(f"  {side:<12} " + ("-" if one is None else f"{one.action}: {one.reason}"))
    lines += [f"  {witness:<12} {says}" for witness, says in differing.evidence.items()]
    return "\n".join(lines) + "\n"
