"""Label selectors as kubectl takes them with ``-l``, asked of annotations and of CRI's labels.

Words flow in, a third truth value flows out: what is in a config.json that is missing is not known,
and whatever is not known is never selected. Labels that only the API server has are in no bundle.
"""

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final

import msgspec

from reconciler.errors import UsageError
from reconciler.model.evidence import Answer, Labels
from reconciler.model.labels import Known

_HOW: Final = "write it like key=value, key!=value, key, !key or key in (a,b)"
_KEY: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_EQUAL: Final = re.compile(rf"({_KEY})\s*(==|=|!=)\s*([^\s,()=!]*)")
_SET: Final = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS: Final = re.compile(rf"(!?)\s*({_KEY})")
_COMMA: Final = re.compile(r",(?![^(]*\))")
_FITS: Final = {True: Answer.YES, False: Answer.NO}

OF_CRI: Final = {
    "io.kubernetes.pod.namespace": "pod_namespace",
    "io.kubernetes.pod.name": "pod",
    "io.kubernetes.container.name": "container",
}
"""The labels by which crictl selects, and what of a bundle's labels they are."""


class Operator(Enum):
    """How a requirement compares."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "!"


class Requirement(msgspec.Struct, frozen=True):
    """One requirement of a selector: a key, and the values it may or may not have."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def fits(self, known: Known) -> Answer:
        """Return whether a bundle of these labels is selected."""
        value = _value(self.key, known)
        if value is None:
            # As kubectl has it, what is absent differs from every value.
            absent = self.operator in {Operator.NOT_IN, Operator.ABSENT}
            return _FITS[absent] if is_complete(known) else Answer.NONE
        match self.operator:
            case Operator.IN:
                return _FITS[value in self.values]
            case Operator.NOT_IN:
                return _FITS[value not in self.values]
            case Operator.EXISTS:
                return Answer.YES
            case Operator.ABSENT:
                return Answer.NO


def parse(selector: str) -> Iterator[Requirement]:
    """Read a selector.

    Raises:
        UsageError: It is none.
    """
    for text in map(str.strip, _COMMA.split(selector)):
        if found := _EQUAL.fullmatch(text):
            operator = Operator.NOT_IN if found[2] == "!=" else Operator.IN
            yield Requirement(found[1], operator, frozenset({found[3]}))
        elif found := _SET.fullmatch(text):
            values = frozenset(map(str.strip, found[3].split(",")))
            yield Requirement(found[1], Operator(found[2]), values)
        elif found := _EXISTS.fullmatch(text):
            yield Requirement(found[2], Operator.ABSENT if found[1] else Operator.EXISTS)
        else:
            raise UsageError(f"-l {selector}: {text!r} is no selector", _HOW)


def is_complete(known: Known) -> bool:
    """Return whether what is not there is known to be absent."""
    return known.is_complete or (known.own.known and known.pod.known)


def _value(key: str, known: Known) -> str | None:
    """Give a label's value: the bundle's own, else its pod's."""
    field = OF_CRI.get(key)
    if field == "container":
        return known.own.container or None
    for labels in (known.own, known.pod):
        found = getattr(labels, field) if field else _annotations(labels).get(key)
        if found or (found is not None and not field):
            return str(found)
    return None


def _annotations(labels: Labels) -> Mapping[str, str]:
    return dict(labels.annotations)
