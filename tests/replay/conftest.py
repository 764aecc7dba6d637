"""The fixtures that users get, from this tree and not from an installed package."""

from reconciler.testing.plugin import build_journal, replay_journal

__all__ = ["build_journal", "replay_journal"]
