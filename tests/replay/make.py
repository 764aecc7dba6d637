"""The made journals among the regressions, as stories. `python -m tests.replay.make` writes them.

A story that changes is written anew on purpose; the stored journal is what is replayed. Those whose
names begin with `containerd-` were recorded on a real one, by tests/e2e/test_record.py.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from reconciler.testing.journals import JournalBuilder
from tests.replay.stories import ENFORCE

JOURNALS: Final = Path(__file__).with_name("journals")
Story = Callable[[JournalBuilder], None]


def seed(node: JournalBuilder) -> None:
    """One file missing per bundle, as after the crash that began all this."""
    missing = {"no-runtime": ["runtime"], "no-pid": ["init.pid"], "no-options": ["options.json"]}
    missing["none-of-them"] = ["runtime", "init.pid", "options.json"]
    node.start("default/alive")
    for name in missing:
        node.start(f"default/{name}")
    node.wait("1m")
    node.containerd("down")
    node.crash(*(f"default/{name}" for name in missing))
    for name, files in missing.items():
        node.lose_files(f"default/{name}", *files)
    node.containerd("up")
    node.wait("10m")


def moby_50040(node: JournalBuilder) -> None:
    """`address config.json log rootfs shim-binary-path work` and nothing else; no runc state."""
    node.start("moby/alive")
    node.start("moby/half")
    node.containerd("down")
    node.crash("moby/half")
    node.lose_files("moby/half", "init.pid", "options.json", "runtime", "log.json")
    node.lose_runc_state("moby/half")
    node.wait("10m")


def shared_shim(node: JournalBuilder) -> None:
    """A pod's members share one shim; a stopped one is nobody's leftover while it lives."""
    node.start("k8s.io/pod", pod="pod")
    node.start("k8s.io/member", pod="pod")
    node.start("k8s.io/ended", pod="pod")
    node.lose_files("k8s.io/member", "shim-binary-path")
    node.stop("k8s.io/ended")
    node.wait("24h")
    node.containerd("down")
    node.crash("k8s.io/pod", "k8s.io/member")
    node.wait("10m")


def pid_reuse(node: JournalBuilder) -> None:
    """The pid a dead bundle names lives again, as somebody else."""
    node.start("default/dead")
    node.start("default/alive")
    node.containerd("down")
    node.crash("default/dead")
    node.reuse_pid("default/dead")
    node.wait("10m")


def overflow(node: JournalBuilder) -> None:
    """Half of what happened was never heard; the overflow says so, and the relist heals."""
    for number in range(20):
        node.start(f"default/b{number}")
    node.lose_events()
    for number in range(0, 20, 2):
        node.stop(f"default/b{number}")
        node.delete(f"default/b{number}")
    node.start("default/late")
    node.crash("default/b1")
    node.receive_again(overflow=True)
    node.wait("10m")


def mass_death(node: JournalBuilder) -> None:
    """Most of what lived is dead at once: held for ten minutes, then believed."""
    names = [f"k8s.io/c{number}" for number in range(15)]
    for name in names:
        node.start(name)
    node.wait("1m")
    node.containerd("down")
    node.crash(*names[:14])
    node.wait("9m")
    node.wait("11m")


def clock_set_back(node: JournalBuilder) -> None:
    """A wall clock set back a day must not keep a dead creation young until it has caught up."""
    node.create("default/torso")
    node.jump_clock("24h", back=True)
    node.crash("default/torso")
    node.wait("1h")


def silent_containerd(node: JournalBuilder) -> None:
    """containerd hangs: whatever is dead is unknown, for a month if need be."""
    node.start("default/dead")
    node.containerd("hung")
    node.crash("default/dead")
    node.simulation.manners.relist = 86400.0
    node.wait("2h")
    node.containerd("up")
    node.wait("10m")


def abandoned(node: JournalBuilder) -> None:
    """Shims that containerd has lost: one serves nobody, one still serves a member of its pod."""
    node.start("default/leaked")
    node.start("default/ended")
    node.start("k8s.io/pod", pod="pod")
    node.start("k8s.io/member", pod="pod")
    node.start("default/late")
    node.wait("10m")
    node.stop("default/ended")
    for name in ("default/leaked", "default/late", "k8s.io/pod"):
        node.stop(name)
        node.lose_records(name)
    node.wait("1h")
    node.kill_shim("default/late")
    node.wait("10m")


STORIES: Final[dict[str, Story]] = {
    "seed": seed,
    "moby-50040": moby_50040,
    "shared-shim": shared_shim,
    "pid-reuse": pid_reuse,
    "overflow": overflow,
    "mass-death": mass_death,
    "clock-set-back": clock_set_back,
    "silent-containerd": silent_containerd,
    "abandoned": abandoned,
}


def make(name: str, path: Path) -> None:
    """Write the journal of a story."""
    with JournalBuilder(path, ENFORCE) as node:
        STORIES[name](node)


if __name__ == "__main__":
    for each in sys.argv[1:] or STORIES:
        make(each, JOURNALS / f"{each}.jsonl")
