"""Redaction: names replaced consistently, so that a journal can leave the house and still replays.

Every name (namespace, id, pod, container, sandbox, path, host, free text) becomes a keyed hash of
itself; the key is random and forgotten with the run. Equal names stay equal, so the engine sees
the same bundles. Rules match by globs, which a hash would defeat: a name that a glob of the
policies matches carries that glob's number, and the glob is replaced by one that looks for it.
What stays: times, sizes, pids, verdicts, states, mount types, runtime names, the shape of things.
"""

import hashlib
import secrets
import string
from fnmatch import fnmatchcase
from typing import Final, assert_never

from msgspec.structs import replace

from reconciler.model.cgroups import COLON, SCOPE, names_in
from reconciler.model.debris import DebrisCleaned, Inventory, Place, PlaceKey
from reconciler.model.decisions import (
    AskNode,
    Braked,
    CleanDebris,
    Decision,
    Judged,
    OfBundle,
    Relist,
    TakeInventory,
)
from reconciler.model.evidence import Containerd, Labels, Look, ProcessScan
from reconciler.model.hidden import hidden_name, parse_hidden
from reconciler.model.ids import BundleKey, is_identifier
from reconciler.model.observations import (
    CleanRequested,
    GuardsChecked,
    Hint,
    Listed,
    Looked,
    NodeLooked,
    Observation,
    ReleaseRequested,
    Remembered,
    Resync,
    Seen,
)
from reconciler.model.outcome import Outcome
from reconciler.model.policy import Match, Policies, Policy, Rule

_REMEMBERED: Final = 1 << 16
_MARKS: Final = string.ascii_uppercase + "ghijklmnopqstuvwxyz"
"""A glob's mark is one letter that no hash and no prefix has. A name that all match still is no
longer than containerd allows; globs beyond these match nothing."""


class Redactor:
    """Replaces names. One per run, with a secret of its own."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(16)
        self._globs: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._policies: dict[str, str] = {"cleanup": "cleanup"}
        self._refused = "", ""

    # ------------------------------------------------------------------ names

    def name(self, name: str) -> str:
        """Replace a name, or free text: valid names stay valid, hidden ones hidden."""
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            known = self._names[name] = self._new_name(name)
        return known

    def _new_name(self, name: str) -> str:
        if not name:
            return ""
        ino = parse_hidden(name)
        if ino is not None:
            return hidden_name(ino, self._hash(name)[:8])
        marks = "".join(mark for glob, mark in self._globs.items() if fnmatchcase(name, glob))
        hidden = "." if name.startswith(".") else "" if is_identifier(name) else "!"
        tail = f".{marks}" if marks else ""
        return f"{hidden}r{self._hash(name).hex()[:12]}{tail}"

    def _hash(self, name: str) -> bytes:
        raw = name.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(raw, key=self._key, digest_size=16).digest()

    def _key_of(self, key: BundleKey) -> BundleKey:
        return BundleKey(self.name(key.namespace), self.name(key.id), key.tree)

    def _path(self, path: str) -> str:
        return "/".join(map(self.name, path.split("/")))

    # ------------------------------------------------------------------ policies

    def policies(self, policies: Policies) -> Policies:
        """Replace the globs of rules by such that match the replaced names alike."""
        for rule in policies.rules:
            for glob in _globs(rule.match):
                if glob not in self._globs and len(self._globs) < len(_MARKS):
                    self._globs[glob] = _MARKS[len(self._globs)]
                    self._names.clear()
        return replace(
            policies,
            default=self._policy(policies.default),
            rules=tuple(Rule(self._match(r.match), self._policy(r.policy)) for r in policies.rules),
        )

    def _policy(self, policy: Policy) -> Policy:
        return replace(policy, name=self._policy_name(policy.name))

    def _policy_name(self, name: str) -> str:
        return self._policies.setdefault(name, f"rule {len(self._policies)}")

    def _glob(self, glob: str | None) -> str | None:
        if glob is None:
            return None
        mark = self._globs.get(glob)
        return "(redacted)" if mark is None else f"*{mark}*"

    def _match(self, match: Match) -> Match:
        return Match(
            namespace=self._glob(match.namespace),
            id=self._glob(match.id),
            pod_namespace=self._glob(match.pod_namespace),
            pod=self._glob(match.pod),
            container=self._glob(match.container),
            annotations=tuple(
                (self.name(name), self._glob(glob) or "") for name, glob in match.annotations
            ),
        )

    # ------------------------------------------------------------------ observations

    def observation(  # noqa: C901, PLR0911 - one case each
        self, observation: Observation
    ) -> Observation:
        """Replace the names in an observation."""
        match observation:
            case Hint() | Remembered():
                return replace(observation, key=self._key_of(observation.key))
            case Looked():
                return Looked(self._key_of(observation.key), self._look(observation.look))
            case Resync():
                return replace(observation, namespace=self._scope(observation.namespace))
            case Listed():
                return self._listed(observation)
            case NodeLooked():
                return replace(
                    observation,
                    processes=self._scan(observation.processes),
                    containerd=self._containerd(observation.containerd),
                )
            case Inventory():
                return self._inventory(observation)
            case DebrisCleaned():
                return self._debris_cleaned(observation)
            case GuardsChecked():
                return self._guards(observation)
            case CleanRequested(keys=keys, places=places):
                its = tuple(replace(one, key=self._place_key(one.key)) for one in places)
                return replace(observation, keys=tuple(map(self._key_of, keys)), places=its)
            case ReleaseRequested():
                return observation
            case Outcome():
                return self._outcome(observation)
            case _:
                assert_never(observation)

    def _inventory(self, taken: Inventory) -> Inventory:
        return replace(
            taken,
            places=tuple(map(self._place, taken.places)),
            troubles=tuple(map(self.name, taken.troubles)),
        )

    def _place(self, place: Place) -> Place:
        return replace(
            place,
            key=self._place_key(place.key),
            namespace=self.name(place.namespace),
            id=self.name(place.id),
            detail=self.name(place.detail),
        )

    def _place_key(self, key: PlaceKey) -> PlaceKey:
        return PlaceKey(key.kind, self._path(key.path))

    def _debris_cleaned(self, cleaned: DebrisCleaned) -> DebrisCleaned:
        return DebrisCleaned(
            tuple(
                replace(
                    one,
                    key=self._place_key(one.key),
                    detail=self.name(one.detail),
                    steps=tuple(replace(step, detail=self.name(step.detail)) for step in one.steps),
                )
                for one in cleaned.results
            )
        )

    def _scope(self, namespace: str | None) -> str | None:
        return None if namespace is None else self.name(namespace)

    def _listed(self, listed: Listed) -> Listed:
        return replace(
            listed,
            bundles=tuple(Seen(self._key_of(seen.key), seen.identity) for seen in listed.bundles),
            hidden=tuple(replace(h, key=self._key_of(h.key)) for h in listed.hidden),
            namespace=self._scope(listed.namespace),
        )

    def _look(self, look: Look | None) -> Look | None:
        if look is None:
            return None
        shim = look.shim
        return replace(
            look,
            init=replace(look.init, detail=self.name(look.init.detail)),
            shim=replace(
                shim,
                socket=None if shim.socket is None else self._path(shim.socket),
                group=None if shim.group is None else self.name(shim.group),
                detail=self.name(shim.detail),
            ),
            mounts=tuple(replace(m, path=self._mount(m.path)) for m in look.mounts),
            labels=self._labels(look.labels),
            cgroup_paths=tuple(map(self._cgroup, look.cgroup_paths)),
        )

    def _cgroup(self, path: str) -> str:
        """Replace a cgroup's path, so that what names an id that is known still does."""
        return "/".join(map(self._part, path.split("/")))

    def _part(self, part: str) -> str:
        if part.endswith(SCOPE):
            return self._scope_of(part)
        head, colon, tail = part.rpartition(COLON)
        return self.name(head) + colon + self.name(tail) if colon and tail else self.name(part)

    def _scope_of(self, part: str) -> str:
        known = next((cut for cut in names_in(part) if cut != part and cut in self._names), None)
        return self.name(part) + SCOPE if known is None else "x-" + self.name(known) + SCOPE

    def _mount(self, path: str) -> str:
        """Replace a mount's path; rootfs is no secret, and what is below it must stay below."""
        parts = path.split("/")
        return "/".join(part if part == "rootfs" else self.name(part) for part in parts)

    def _labels(self, labels: Labels) -> Labels:
        return replace(
            labels,
            pod_namespace=self.name(labels.pod_namespace),
            pod=self.name(labels.pod),
            container=self.name(labels.container),
            sandbox=self.name(labels.sandbox),
            annotations=tuple((self.name(k), self.name(v)) for k, v in labels.annotations),
        )

    def _scan(self, scan: ProcessScan | None) -> ProcessScan | None:
        if scan is None:
            return None
        return replace(
            scan,
            helpers=frozenset(self._key_of(key) for key in scan.helpers),
            shims=tuple(
                p._replace(key=self._key_of(p.key), address=self._path(p.address))
                for p in scan.shims
            ),
            cgroup_names=frozenset(self.name(name) for name in scan.cgroup_names),
            unread=tuple(
                p if p.key is None else p._replace(key=self._key_of(p.key)) for p in scan.unread
            ),
            cgroup_paths=frozenset(map(self._cgroup, scan.cgroup_paths)),
        )

    def _containerd(self, containerd: Containerd | None) -> Containerd | None:
        if containerd is None:
            return None
        return replace(
            containerd,
            tasks=frozenset(map(self._key_of, containerd.tasks)),
            detail=self.name(containerd.detail),
            unlisted=frozenset(map(self.name, containerd.unlisted)),
            absent=frozenset(map(self._key_of, containerd.absent)),
            wedged=frozenset(map(self._key_of, containerd.wedged)),
            recorded=frozenset(map(self._key_of, containerd.recorded)),
            unrecorded=frozenset(map(self._key_of, containerd.unrecorded)),
        )

    def _guards(self, checked: GuardsChecked) -> GuardsChecked:
        refused = tuple(replace(r, reason=self.name(r.reason)) for r in checked.refused)
        # The brake's detail quotes the reasons; it must say what a replay will say.
        self._refused = _join(checked), _join(GuardsChecked(refused))
        return GuardsChecked(refused, tuple(map(self.name, checked.slow)))

    def _outcome(self, outcome: Outcome) -> Outcome:
        return replace(
            outcome,
            key=self._key_of(outcome.key),
            detail=self.name(outcome.detail),
            holders=tuple(replace(h, name=self.name(h.name)) for h in outcome.holders),
            steps=tuple(replace(step, detail=self.name(step.detail)) for step in outcome.steps),
            look=self._look(outcome.look),
        )

    # ------------------------------------------------------------------ decisions

    def decision(self, decision: Decision) -> Decision:
        """Replace the names in a decision."""
        match decision:
            case Judged():
                cause = decision.cause
                if cause in self._policies:
                    cause = self._policies[cause]
                return replace(decision, key=self._key_of(decision.key), cause=cause)
            case OfBundle():
                return replace(decision, key=self._key_of(decision.key))
            case CleanDebris():
                return CleanDebris(tuple(map(self._place, decision.places)))
            case Relist():
                return replace(decision, namespace=self._scope(decision.namespace))
            case Braked():
                was, is_ = self._refused
                is_quoted = was and decision.detail == was
                return replace(decision, detail=is_) if is_quoted else decision
            case AskNode() | TakeInventory():
                return decision
            case _:
                assert_never(decision)


def _globs(match: Match) -> list[str]:
    named = (match.namespace, match.id, match.pod_namespace, match.pod, match.container)
    return [glob for glob in (*named, *(glob for _, glob in match.annotations)) if glob is not None]


def _join(checked: GuardsChecked) -> str:
    return "; ".join(str(refusal) for refusal in checked.refused)
