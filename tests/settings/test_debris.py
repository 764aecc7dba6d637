"""What a configuration says of debris: of all kinds, of one, in a rule, in the environment."""

from pathlib import Path

import pytest

from reconciler.decide.debris_verdicts import AGES
from reconciler.model.debris import DebrisKind
from reconciler.model.policy import DebrisAction, Policies
from reconciler.settings.load import load
from reconciler.settings.schema import Debris
from reconciler.settings.units import parse_duration


def said(tmp_path: Path, text: str, **environ: str) -> Policies:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(str(path), environ=environ).policies()


def actions(policies: Policies) -> set[DebrisKind]:
    """The kinds that are cleaned."""
    kinds = {kind: policies.debris_of(kind).action for kind in DebrisKind}
    return {kind for kind, action in kinds.items() if action is DebrisAction.CLEAN}


@pytest.mark.safety
def test_nothing_is_removed_unless_that_is_said(tmp_path: Path) -> None:
    assert actions(said(tmp_path, "mode = 'enforce'")) == set()
    assert actions(Policies()) == set()


def test_an_action_is_for_all_kinds_but_shims(tmp_path: Path) -> None:
    policies = said(tmp_path, "[debris]\naction = 'clean'")
    assert actions(policies) == {*DebrisKind} - {DebrisKind.SHIM}
    reports = "[debris]\naction = 'clean'\n[debris.mount]\naction = 'report'"
    assert actions(said(tmp_path, reports)) == {*DebrisKind} - {DebrisKind.SHIM, DebrisKind.MOUNT}


def test_a_kind_has_an_action_and_an_age_of_its_own(tmp_path: Path) -> None:
    text = "[debris.shim-socket]\naction = 'clean'\nage = '1h'"
    policies = said(tmp_path, text)
    assert actions(policies) == {DebrisKind.SHIM_SOCKET}
    assert policies.debris_of(DebrisKind.SHIM_SOCKET).age == 3600.0
    assert policies.debris_of(DebrisKind.CGROUP).age is None


def test_the_ages_that_are_shown_are_those_that_hold() -> None:
    shown = Debris()
    for kind in DebrisKind:
        assert parse_duration(getattr(shown, kind.name.lower()).age) == AGES[kind]


def test_the_environment_can_say_it(tmp_path: Path) -> None:
    policies = said(tmp_path, "", CONTAINERD_RECONCILER_DEBRIS_FIFO_DIR_ACTION="clean")
    assert actions(policies) == {DebrisKind.FIFO_DIR}


def test_a_rule_may_say_it_also_beside_protect(tmp_path: Path) -> None:
    rule = "[[rule]]\nname = 'a'\nmatch = {}\nprotect = true\ndebris = 'clean'"
    (only,) = said(tmp_path, rule).rules
    assert (only.policy.protect, only.policy.debris) == (True, DebrisAction.CLEAN)
