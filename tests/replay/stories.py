"""Random stories of a node, as words to the journal builder."""

from dataclasses import dataclass

from hypothesis import strategies as st

from reconciler.model.policy import Policies, Policy
from reconciler.testing.journals import JournalBuilder, key_of
from reconciler.testing.parts import Daemon

ENFORCE = Policies(default=Policy(enforce=True, grace=60.0, max_age=None, max_size=None))
OBSERVE = Policies(default=Policy(enforce=False, grace=60.0, max_age=None, max_size=None))
NAMES = ["default/a", "default/b", "k8s.io/pod", "k8s.io/m1", "k8s.io/m2"]


@dataclass(frozen=True)
class Act:
    """One thing that happens, if it can."""

    what: str
    name: str
    how: int

    def play(self, node: JournalBuilder) -> None:  # noqa: C901 - one case each
        there = key_of(self.name) in node.simulation.node.bundles
        up = node.simulation.node.daemon is Daemon.UP
        pod = "pod" if self.name.startswith("k8s.io") else None
        match self.what:
            case "start" if up and not there:
                node.start(self.name, pod=pod)
            case "create" if up and not there:
                node.create(self.name, pod=pod)
            case "wait":
                node.wait(("100ms", "3s", "70s", "8m")[self.how % 4])
            case "containerd":
                node.containerd(("up", "down", "hung")[self.how % 3], sweeps=self.how % 2 == 0)
            case "deaf":
                node.lose_events()
            case "hear":
                node.receive_again(overflow=self.how % 2 == 0)
            case "jump":
                node.jump_clock("1h", back=self.how % 2 == 0)
            case "lose" if there:
                files = (("init.pid",), ("runtime", "options.json"), ("config.json", "address"))
                node.lose_files(self.name, *files[self.how % 3])
            case "proceed" | "stop" | "delete" | "crash" | "kill_shim" | "kill_init" if there:
                getattr(node, self.what)(self.name)
            case "reuse_pid" | "mount" | "unmount" if there:
                getattr(node, self.what)(self.name)
            case _:
                pass


KINDS = [
    *("start", "start", "start", "create", "proceed", "stop", "delete", "crash", "crash"),
    *("kill_shim", "kill_init", "wait", "wait", "wait", "containerd", "deaf", "hear", "jump"),
    *("lose", "reuse_pid", "mount", "unmount"),
]
acts = st.builds(Act, st.sampled_from(KINDS), st.sampled_from(NAMES), st.integers(0, 11))
stories = st.lists(acts, min_size=3, max_size=30)
