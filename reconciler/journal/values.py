"""Values to wire and back: one pair of functions for each value without memory of other records.

The conversion is explicit, so that a change of the model does not silently change the format; a
property test sends every value there and back. Nothing here does I/O.
"""

from functools import cache
from typing import Final

from reconciler.journal import wire
from reconciler.model import evidence
from reconciler.model import policy as decide
from reconciler.model.cgroups import CgroupSource
from reconciler.model.decisions import Judgement, Verdict
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Entries,
    Facts,
    InitState,
    Kind,
    RuntimeState,
    ShimState,
    TaskState,
)
from reconciler.model.ids import Identity

# A look-up in a dictionary takes a third of the time of one in the enumeration.
_KINDS: Final = {kind.value: kind for kind in Kind}
_ANSWERS: Final = {answer.value: answer for answer in Answer}
_RUNTIMES: Final = {state.value: state for state in RuntimeState}
_INITS: Final = {state.value: state for state in InitState}
_SHIMS: Final = {state.value: state for state in ShimState}
_CGROUPS: Final = {state.value: state for state in CgroupState}
_SOURCES: Final = {"": CgroupSource.NONE, **{source.value: source for source in CgroupSource}}

_entries: Final = cache(Entries)

# ------------------------------------------------------------------------------- small values


def identity_out(identity: Identity) -> wire.Identity:
    """Write an identity."""
    return (identity.dev, identity.ino, identity.mount_id)


def identity_in(parts: wire.Identity) -> Identity:
    """Read an identity."""
    return Identity(*parts)


# --------------------------------------------------------------------------------------- looks


def look_out(look: evidence.Look) -> wire.Look:
    """Write a look."""
    init, shim, labels = look.init, look.shim, look.labels
    return wire.Look(
        i=identity_out(look.identity),
        k=look.kind.value,
        e=int(look.entries),
        m=look.newest_mtime,
        z=look.size_bytes,
        created=look.created.value,
        runtime=(look.runtime.state.value, look.runtime.name),
        init=(init.state.value, init.pid, init.detail),
        shim=(shim.state.value, shim.socket, shim.group, shim.pid, shim.detail),
        cgroup=look.cgroup.value,
        mounts=tuple((m.path, m.mount_id, m.fstype) for m in look.mounts),
        shown=tuple(place for place, m in enumerate(look.mounts) if m.shown_outside),
        labels=None if labels == evidence.NO_LABELS else labels_out(labels),
        cut=not look.size_exact,
        cgroup_source=look.cgroup_source.value
        if look.cgroup_source is not CgroupSource.NONE
        else "",
        cgroup_paths=look.cgroup_paths,
    )


def look_in(look: wire.Look) -> evidence.Look:
    """Read a look."""
    runtime, runtime_name = look.runtime
    init, init_pid, init_detail = look.init
    shim, socket, group, shim_pid, shim_detail = look.shim
    return evidence.Look(  # by position: there are many of them
        Identity(*look.i),
        _KINDS[look.k],
        _entries(look.e),
        look.m,
        look.z,
        _ANSWERS[look.created],
        evidence.Runtime(_RUNTIMES[runtime], runtime_name),
        evidence.Init(_INITS[init], init_pid, init_detail),
        evidence.Shim(_SHIMS[shim], socket, group, shim_pid, shim_detail),
        _CGROUPS[look.cgroup],
        _mounts_in(look),
        evidence.NO_LABELS if look.labels is None else labels_in(look.labels),
        not look.cut,
        _SOURCES[look.cgroup_source],
        look.cgroup_paths,
    )


def _mounts_in(look: wire.Look) -> tuple[evidence.Mount, ...]:
    shown = look.shown
    return tuple(
        [
            evidence.Mount(path, number, kind, place in shown)
            for place, (path, number, kind) in enumerate(look.mounts)
        ]
    )


def labels_out(labels: evidence.Labels) -> wire.Labels:
    """Write labels."""
    return (
        labels.known,
        labels.pod_namespace,
        labels.pod,
        labels.container,
        labels.sandbox,
        labels.annotations,
    )


def labels_in(labels: wire.Labels) -> evidence.Labels:
    """Read labels."""
    return evidence.Labels(*labels)


# -------------------------------------------------------------------------------- judgements


def row_out(judgement: Judgement, facts: Facts | None) -> wire.Row:
    """Write a judgement and the facts it was made from."""
    said = None
    if facts is not None:
        said = (
            facts.kind.value,
            facts.identifier,
            facts.helper.value,
            facts.shim.value,
            facts.init.value,
            facts.cgroup.value,
            facts.runtime.value,
            facts.created.value,
            facts.task.value,
        )
    verdict, rule = judgement.verdict.value, judgement.rule
    return wire.Row(v=verdict, r=rule, y=judgement.reason, claimed=judgement.claimed, f=said)


def row_in(row: wire.Row) -> tuple[Judgement, Facts | None]:
    """Read a judgement and the facts it was made from."""
    judgement = Judgement(Verdict(row.v), row.r, row.y, row.claimed)
    if row.f is None:
        return judgement, None
    kind, identifier, helper, shim, init, cgroup, runtime, created, task = row.f
    return judgement, Facts(
        kind=Kind(kind),
        identifier=identifier,
        helper=Answer(helper),
        shim=ShimState(shim),
        init=InitState(init),
        cgroup=CgroupState(cgroup),
        runtime=RuntimeState(runtime),
        created=Answer(created),
        task=TaskState(task),
    )


# ---------------------------------------------------------------------------------- policies


def policies_out(policies: decide.Policies) -> wire.Policies:
    """Write the policies."""
    brakes, backoff = policies.brakes, policies.backoff
    return wire.Policies(
        default=_policy_out(policies.default),
        rules=tuple(wire.Rule(_match_out(r.match), _policy_out(r.policy)) for r in policies.rules),
        brakes=(brakes.max_per_minute, brakes.hold, brakes.mass_deaths),
        backoff=(backoff.first, backoff.most),
        settle=policies.settle,
        recheck=policies.recheck,
        confirm_death=policies.confirm_death,
        parallel=policies.parallel,
        node_max_size=policies.node_max_size,
        volatile=policies.volatile,
    )


def policies_in(policies: wire.Policies) -> decide.Policies:
    """Read the policies."""
    return decide.Policies(
        default=_policy_in(policies.default),
        rules=tuple(decide.Rule(_match_in(r.match), _policy_in(r.policy)) for r in policies.rules),
        brakes=decide.Brakes(*policies.brakes),
        backoff=decide.Backoff(*policies.backoff),
        settle=policies.settle,
        recheck=policies.recheck,
        confirm_death=policies.confirm_death,
        parallel=policies.parallel,
        node_max_size=policies.node_max_size,
        volatile=policies.volatile,
    )


def _match_out(match: decide.Match) -> wire.Match:
    return wire.Match(
        namespace=match.namespace,
        id=match.id,
        pod_namespace=match.pod_namespace,
        pod=match.pod,
        container=match.container,
        annotations=match.annotations,
    )


def _match_in(match: wire.Match) -> decide.Match:
    return decide.Match(
        namespace=match.namespace,
        id=match.id,
        pod_namespace=match.pod_namespace,
        pod=match.pod,
        container=match.container,
        annotations=match.annotations,
    )


def _policy_out(policy: decide.Policy) -> wire.Policy:
    return wire.Policy(
        name=policy.name,
        enforce=policy.enforce,
        protect=policy.protect,
        grace=policy.grace,
        threshold=policy.threshold,
        max_age=policy.max_age,
        max_size=policy.max_size,
        orphans=policy.orphans.value,
    )


def _policy_in(policy: wire.Policy) -> decide.Policy:
    return decide.Policy(
        name=policy.name,
        enforce=policy.enforce,
        protect=policy.protect,
        grace=policy.grace,
        threshold=policy.threshold,
        max_age=policy.max_age,
        max_size=policy.max_size,
        orphans=decide.Orphans(policy.orphans),
    )
