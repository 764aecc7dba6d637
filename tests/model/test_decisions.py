"""Decisions: one that is about a bundle alone names nothing else, so redaction may trust it."""

from enum import Enum
from typing import get_args, get_type_hints

import pytest

from reconciler.model.decisions import Decision, OfBundle
from reconciler.model.ids import BundleKey, Identity

_NAMELESS = (bool, int, float, type(None), Identity)


@pytest.mark.parametrize("kind", OfBundle.__subclasses__(), ids=lambda kind: kind.__name__)
def test_only_the_key_of_a_decision_about_a_bundle_names_anything(kind: type[OfBundle]) -> None:
    types = get_type_hints(kind)
    assert types.pop("key") is BundleKey
    for field, one in types.items():
        for part in get_args(one) or (one,):
            assert issubclass(part, _NAMELESS) or issubclass(part, Enum), field


def test_decisions_about_a_bundle_are_decisions() -> None:
    assert set(OfBundle.__subclasses__()) <= set(get_args(Decision))
