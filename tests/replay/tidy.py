"""Takes out of a recorded journal what belongs to other things on the machine it was made on."""

from pathlib import Path

from msgspec.structs import replace

from reconciler.journal.lines import Given
from reconciler.journal.listener import JournalListener, Origin
from reconciler.journal.reader import Journal
from reconciler.model.cgroups import names_of
from reconciler.model.observations import NodeLooked, Observation, Stamp


def tidy(source: Path, target: Path, namespace: str) -> None:
    """Write a journal again, with only this namespace in the sweeps and no name of the machine."""
    journal = Journal(source, print)
    header = journal.header
    given = [item for item in journal.items() if isinstance(item, Given)]
    ids = {s.key.id for g in given for s in getattr(g.observation, "bundles", ())}
    policies = header.policies
    begin = Stamp(header.mono, header.wall)
    with target.open("wb") as file:
        scribe = JournalListener(Origin("node", "boot", header.run, begin, policies), file.write)
        for one in given:
            if one.observation is not None:
                scribe.observed(one.stamp, _only(one.observation, namespace, ids))
            elif one.policies is not None:
                scribe.configured(one.stamp, one.policies)
            else:
                scribe.advanced(one.stamp)
            for decision in one.decisions:
                scribe.decided(one.stamp, decision)
        scribe.flush()


def _only(observation: Observation, namespace: str, ids: set[str]) -> Observation:
    if not isinstance(observation, NodeLooked) or observation.processes is None:
        return observation
    scan = observation.processes
    ours = replace(
        scan,
        helpers=frozenset(key for key in scan.helpers if key.namespace == namespace),
        shims=tuple(p for p in scan.shims if p.key.namespace == namespace),
        cgroup_names=scan.cgroup_names & ids,
        cgroup_paths=frozenset(p for p in scan.cgroup_paths if ids.intersection(names_of(p))),
    )
    said = observation.containerd
    told = None if said is None else replace(said, detail="")  # it names our directory
    return replace(observation, processes=ours, containerd=told)
