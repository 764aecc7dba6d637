"""Which bundles are meant: names, verdicts, phases and labels as they are typed.

What was found flows in, the part of it that is meant flows out, and what was asked for and is not
there is an error that says so. A selection only ever narrows: unselected means untouched.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click
import msgspec
from typing_extensions import override

from reconciler.cli.labels import Requirement
from reconciler.cli.option_types import name
from reconciler.cli.output import Output
from reconciler.errors import ReconcilerError
from reconciler.model.debris import Place, PlaceKey
from reconciler.model.decisions import Phase, Verdict
from reconciler.model.evidence import NO_LABELS, Answer, Labels
from reconciler.model.ids import SANDBOX_TREE, BundleKey, escape
from reconciler.model.labels import Known
from reconciler.model.policy import Policies, Policy
from reconciler.present import formatting

if TYPE_CHECKING:
    from reconciler.cli.passes import Found
    from reconciler.decide.views import BundleView

_LISTS: Final = "`containerd-reconciler scan` lists what there is"
_SHOWN: Final = 5
"""Candidates that are named."""


class Name(msgspec.Struct, frozen=True):
    """A name as it was typed: ``NS/ID``, or ``ID`` in whatever namespace; the beginning will do."""

    namespace: str | None
    id: str
    tree: str | None = None

    @override
    def __str__(self) -> str:
        """Write it as it was typed."""
        name = self.id if self.namespace is None else f"{self.namespace}/{self.id}"
        return f"{self.tree}:{name}" if self.tree else name

    def among(self, keys: Iterable[BundleKey]) -> list[BundleKey]:
        """Give those of this very name, else those whose id begins like it; in order."""
        alike = [key for key in keys if self._fits_tree(key) and key.id.startswith(self.id)]
        return sorted([key for key in alike if key.id == self.id] or alike)

    def _fits_tree(self, key: BundleKey) -> bool:
        """Return whether a bundle is where it was said to be; ``NS/ID`` is said of tasks alone."""
        trees = (key.tree,) if self.tree is None and self.namespace is None else (self.tree or "",)
        return self.namespace in (None, key.namespace) and key.tree in trees

    def the_one(self, keys: Collection[BundleKey]) -> BundleKey:
        """Give the only one that is meant.

        Raises:
            ReconcilerError: There is none, or there are several.
        """
        alike = self.among(keys)
        if not alike:
            raise ReconcilerError(f"there is no bundle {self}", self.hint(keys))
        if len(alike) > 1:
            more = f" and {len(alike) - _SHOWN} more" if len(alike) > _SHOWN else ""
            named = ", ".join(map(str, alike[:_SHOWN]))
            how = (
                "name the namespace" if len({k.id for k in alike}) == 1 else "write more of the id"
            )
            raise ReconcilerError(f"{self} may be any of {named}{more}", how)
        return alike[0]

    def hint(self, keys: Iterable[BundleKey]) -> str:
        """Name what may be meant: another id of the namespace, or the same id in another one."""
        from difflib import get_close_matches  # only who made a mistake pays for it

        keys = list(keys)
        ids = {key.id: key for key in keys if self._fits_tree(key)}
        for near in get_close_matches(self.id, ids, n=1):
            return f"did you mean {ids[near]}?"
        elsewhere = next((key for key in keys if key.id == self.id), None)
        return _LISTS if elsewhere is None else f"did you mean {elsewhere}?"


def parse_name(text: str) -> Name:
    """Read the name of a bundle, or the beginning of one.

    Raises:
        click.BadParameter: It is none.
    """
    tree, colon, rest = text.partition(":")
    is_tree = bool(colon) and tree == SANDBOX_TREE
    namespace, slash, id_ = (rest if is_tree else text).rpartition("/")
    if not id_ or "/" in namespace or (slash and not namespace):
        raise click.BadParameter(f"{text!r} is neither NAMESPACE/ID nor ID", param_hint="bundle")
    return Name(name(namespace) if slash else None, name(id_), tree if is_tree else None)


class Selection(msgspec.Struct, frozen=True):
    """What is meant; whatever is empty means all.

    Attributes:
        names: Names of bundles.
        labels: Requirements all of which must be fulfilled.
        verdicts, phases: Any of these.
    """

    names: tuple[Name, ...] = ()
    labels: tuple[Requirement, ...] = ()
    verdicts: frozenset[Verdict] = frozenset()
    phases: frozenset[Phase] = frozenset()

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return not (self.names or self.labels or self.verdicts or self.phases)

    @property
    def annotations(self) -> frozenset[str]:
        """The annotations that must be read to tell."""
        return frozenset(one.key for one in self.labels)

    def of(self, views: "Sequence[BundleView]") -> "Selected":
        """Select among all bundles."""
        keys = [view.key for view in views]
        named = {one: one.among(keys) for one in self.names}
        meant = {key for alike in named.values() for key in alike}
        labels = labels_of(views) if self.labels else {}
        chosen, unsure, fitting = [], 0, 0
        for view in views:
            if self.names and view.key not in meant:
                continue
            answers = {one.fits(known_of(view, labels)) for one in self.labels}
            if Answer.NO in answers:
                continue
            if Answer.NONE in answers:
                unsure += 1
                continue
            fitting += 1
            if self.verdicts and view.judgement.verdict not in self.verdicts:
                continue
            if not self.phases or view.phase in self.phases:
                chosen.append(view)
        absent = [
            f"there is no bundle {one}; {one.hint(keys)}"
            for one, alike in named.items()
            if not alike
        ]
        if self.labels and not fitting and not absent:
            absent = ["no bundle has the labels that -l asks for"]
        return Selected(tuple(chosen), tuple(absent), unsure)


class Selected(msgspec.Struct, frozen=True):
    """What a selection found.

    Attributes:
        views: The bundles that are meant.
        absent: A line for each thing that was asked for and is not there.
        unsure: How many are left out because it is not known what labels they have.
    """

    views: "tuple[BundleView, ...]"
    absent: tuple[str, ...] = ()
    unsure: int = 0

    @property
    def keys(self) -> frozenset[BundleKey]:
        """Their names."""
        return frozenset(view.key for view in self.views)

    def complain(self, output: Output) -> None:
        """Say what is not there, and what could not be asked."""
        for line in self.absent:
            output.complain(line)
        if self.unsure:
            count = formatting.plural(self.unsure, "bundle")
            output.complain(f"{count} left out whose labels are not known: config.json is missing")


def known_of(view: "BundleView", labels: Mapping[BundleKey, Labels]) -> Known:
    """Join a bundle's labels with its pod's; ``labels``: those of all bundles."""
    own, key = view.look.labels, view.key
    sandbox = BundleKey(key.namespace, escape(own.sandbox.encode("utf-8", "replace")))
    if sandbox == key.task:
        return Known(own, NO_LABELS, is_sandbox=True)
    pod = labels.get(sandbox) or labels.get(sandbox.sandbox, NO_LABELS)
    return Known(own, pod)


def labels_of(views: "Iterable[BundleView]") -> dict[BundleKey, Labels]:
    """Give the labels of all bundles, by name."""
    return {view.key: view.look.labels for view in views}


def narrowed(found: "Found", keys: Collection[BundleKey]) -> "Found":
    """Give what was found without what is not meant; debris has none of what is selected by."""
    return msgspec.structs.replace(
        found,
        views=tuple(view for view in found.views if view.key in keys),
        hidden=(),
        debris=(),
        outcomes=tuple(one for one in found.outcomes if one.key in keys),
    )


class OnlyThese(Policies, frozen=True, gc=False):
    """Policies by which no other bundle is removed.

    All are looked at as ever: what else is there (a brake's mass death, another owner of a socket)
    may keep a bundle, and a selection must not take that away.

    Attributes:
        keys: These.
        finishes: Whether removals of ours that were cut short are finished, as they are otherwise.
        places: These pieces of debris.
    """

    keys: frozenset[BundleKey] = frozenset()
    finishes: bool = False
    places: frozenset[PlaceKey] = frozenset()

    @override
    def applied(self, key: BundleKey, known: Known) -> Policy:
        policy = super().applied(key, known)
        return policy if key in self.keys else _observed(policy)

    @override
    def applied_to_place(self, place: Place) -> Policy:
        policy = super().applied_to_place(place)
        return policy if place.key in self.places else _observed(policy)

    @override
    def applied_to_hidden(self, namespace: str) -> Policy:
        policy = super().applied_to_hidden(namespace)
        return policy if self.finishes else _observed(policy)


def only(policies: Policies, keys: frozenset[BundleKey]) -> OnlyThese:
    """Let nothing be removed but these, and of these no more than before."""
    same = {field: getattr(policies, field) for field in Policies.__struct_fields__}
    if isinstance(policies, OnlyThese):
        return OnlyThese(**same, keys=keys & policies.keys, finishes=policies.finishes)
    return OnlyThese(**same, keys=keys)


def as_shown(
    policies: Policies, keys: frozenset[BundleKey], places: frozenset[PlaceKey] = frozenset()
) -> Policies:
    """Let nothing be removed that was not in a plan; what was cut short is finished as before."""
    finishes = policies.finishes if isinstance(policies, OnlyThese) else True
    return msgspec.structs.replace(only(policies, keys), finishes=finishes, places=places)


@functools.lru_cache(64)
def _observed(policy: Policy) -> Policy:
    return msgspec.structs.replace(policy, enforce=False)


SORTS: "Final[dict[str, Callable[[BundleView], tuple[object, ...]]]]" = {
    "age": lambda view: (-view.age_seconds, view.key),
    "size": lambda view: (-view.look.size_bytes, view.key),
    "id": lambda view: (view.key.id, view.key),
}


def ordered(views: "Sequence[BundleView]", by: str | None) -> "tuple[BundleView, ...]":
    """Sort: the oldest first, the largest first, or by id; None leaves them as they are."""
    return tuple(views if by is None else sorted(views, key=SORTS[by]))
