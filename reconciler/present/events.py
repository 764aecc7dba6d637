"""Events: the names of everything the log says, one vocabulary. Pure.

What it is about, a dot, and what happened to it, as a verb in the past tense. A name is a promise
to whoever filters by it; contrib/systemd/README.md lists them all with their levels.
"""

from enum import Enum


class LogEvent(Enum):
    """The name of a log record."""

    # ---- a bundle, or what was its
    BUNDLE_JUDGED = "bundle.judged"
    BUNDLE_CLEANED = "bundle.cleaned"
    BUNDLE_BLOCKED = "bundle.blocked"
    BUNDLE_HELD = "bundle.held"
    BUNDLE_PROTECTED = "bundle.protected"
    BUNDLE_SKIPPED = "bundle.skipped"
    BUNDLE_VANISHED = "bundle.vanished"
    BUNDLE_REMEMBERED = "bundle.remembered"
    CLEANUP_FAILED = "cleanup.failed"
    STEP_FINISHED = "step.finished"
    HINT_RECEIVED = "hint.received"
    TASK_DIED = "task.died"
    WORKLOAD_KILLED = "workload.killed"
    BUDGET_EXCEEDED = "budget.exceeded"

    # ---- what is left outside of bundles
    DEBRIS_CLEANED = "debris.cleaned"
    DEBRIS_BLOCKED = "debris.blocked"
    DEBRIS_HELD = "debris.held"
    DEBRIS_SKIPPED = "debris.skipped"
    DEBRIS_FAILED = "debris.failed"

    # ---- the node
    BRAKE_PULLED = "brake.pulled"
    BRAKE_RELEASED = "brake.released"
    CLEANUP_REQUESTED = "cleanup.requested"
    RELEASE_REQUESTED = "release.requested"
    CONTAINERD_ASKED = "containerd.asked"
    GUARDS_CHECKED = "guards.checked"
    INVENTORY_COUNTED = "inventory.counted"
    PROCESSES_SCANNED = "processes.scanned"
    RESYNC_STARTED = "resync.started"
    TREE_LISTED = "tree.listed"
    TREE_NOT_FOUND = "tree.not_found"
    LISTING_FAILED = "listing.failed"
    WATCH_SWITCHED = "watch.switched"

    # ---- ourselves
    DAEMON_STARTED = "daemon.started"
    DAEMON_CONFINED = "daemon.confined"
    DAEMON_STOPPED = "daemon.stopped"
    READINESS_REACHED = "readiness.reached"
    STOP_REQUESTED = "stop.requested"
    CONFIG_USED = "config.used"
    CONFIG_LOADED = "config.loaded"
    CONFIG_REJECTED = "config.rejected"
    CONFIG_UNCHANGED = "config.unchanged"
    CONFIG_UNWATCHED = "config.unwatched"
    CONFIG_QUESTIONED = "config.questioned"
    ENDPOINT_OPENED = "endpoint.opened"
    ENDPOINT_FAILED = "endpoint.failed"
    CHECKPOINT_FAILED = "checkpoint.failed"
    RECORDS_LOST = "records.lost"
    LINES_DROPPED = "lines.dropped"
    PART_FAILED = "part.failed"
