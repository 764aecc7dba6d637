"""A pytest plugin: test a policy against journals in a repository of your own.

    def test_web_is_never_cleaned(replay_journal):
        result = replay_journal("incident.jsonl", config="config.toml", expect="expect.toml")
        assert "default/web" not in result.cleaned

    def test_a_crash_is_cleaned_after_the_grace(build_journal, replay_journal):
        with build_journal() as node:
            node.start("default/web")
            node.crash("default/web")
            node.wait("1h")
        assert replay_journal(node.path, config="config.toml").cleaned["default/web"]

Loaded by pytest itself where the package is installed; imports the rest only when it is used.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from reconciler.model.policy import Policies
    from reconciler.testing.journals import JournalBuilder, Replayed


class ReplayJournal(Protocol):
    """What the fixture ``replay_journal`` gives."""

    def __call__(
        self,
        path: str | Path,
        policies: "Policies | None" = None,
        *,
        config: str | Path | None = None,
        expect: str | Path | None = None,
        until: float | None = None,
    ) -> "Replayed":
        """Replay a journal; paths are relative to the test's file.

        Args:
            path: The journal.
            policies: Let these decide.
            config: Let those of this configuration file decide.
            expect: A file of expectations; the test fails if one is not met.
            until: Seconds after the begin at which to end.
        """
        ...


class BuildJournal(Protocol):
    """What the fixture ``build_journal`` gives."""

    def __call__(
        self, policies: "Policies | None" = None, name: str = "built.jsonl"
    ) -> "JournalBuilder":
        """Begin a journal under the test's own temporary directory."""
        ...


@pytest.fixture
def replay_journal(request: pytest.FixtureRequest) -> ReplayJournal:
    """Replay a journal, against its own policies or others."""
    here = request.path.parent

    def run(
        path: str | Path,
        policies: "Policies | None" = None,
        *,
        config: str | Path | None = None,
        expect: str | Path | None = None,
        until: float | None = None,
    ) -> "Replayed":
        from reconciler.journal.expect import load as load_expectations
        from reconciler.settings.load import load as load_settings
        from reconciler.testing.journals import replay

        if config is not None:
            policies = load_settings(str(here / config), environ={}).policies()
        wanted = () if expect is None else load_expectations(here / expect)
        result = replay(here / path, policies, wanted, until)
        if result.unmet:
            pytest.fail("not as expected:\n" + "\n".join(result.unmet), pytrace=False)
        return result

    return run


@pytest.fixture
def build_journal(tmp_path: Path) -> BuildJournal:
    """Build a journal of a simulated node under the test's own temporary directory."""

    def begin(policies: "Policies | None" = None, name: str = "built.jsonl") -> "JournalBuilder":
        from reconciler.testing.journals import JournalBuilder

        return JournalBuilder(tmp_path / name, policies)

    return begin
