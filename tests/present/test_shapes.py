"""The JSON shapes are promises: their keys are written out here, and hostile names are harmless."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.decide.debris_track import DebrisView
from reconciler.decide.debris_verdicts import DebrisVerdict
from reconciler.decide.views import BundleView
from reconciler.model.debris import DebrisKind, Place, PlaceKey
from reconciler.model.decisions import Judgement, Phase, Verdict
from reconciler.model.evidence import (
    Answer,
    CgroupState,
    Entries,
    Facts,
    Init,
    InitState,
    Kind,
    Labels,
    Look,
    Mount,
    Runtime,
    RuntimeState,
    Shim,
    ShimState,
    TaskState,
)
from reconciler.model.ids import BundleKey, Identity, escape, unescape
from reconciler.model.layout import Layout
from reconciler.model.observations import Guard, Hidden, Refusal
from reconciler.model.outcome import BlockReason, Holder, Outcome, Result, Step, StepResult
from reconciler.present import debris, shapes
from reconciler.present.envelope import encode, envelope

LAYOUT = Layout()
ENVELOPE = envelope("node-1", 1_700_000_000.25)
KEY = BundleKey("k8s.io", "web")
WHOLE = Entries(0)
for _entry in Entries:
    WHOLE |= _entry

LOOK = Look(
    identity=Identity(46, 1234, 77),
    kind=Kind.DIRECTORY,
    entries=WHOLE & ~(Entries.RUNTIME | Entries.INIT_PID),
    newest_mtime=1.0,
    size_bytes=8192,
    created=Answer.YES,
    runtime=Runtime(RuntimeState.KNOWN, "io.containerd.runc.v2"),
    init=Init(InitState.DEAD, 4242, "no such process"),
    shim=Shim(ShimState.DEAD, "/run/containerd/s/ab", "web", None, "refused"),
    cgroup=CgroupState.EMPTY,
    mounts=(Mount("rootfs", 99, "overlay"),),
)
FACTS = Facts(
    Kind.DIRECTORY,
    True,
    Answer.NO,
    ShimState.DEAD,
    InitState.DEAD,
    CgroupState.EMPTY,
    RuntimeState.KNOWN,
    Answer.YES,
    TaskState.NOT_LISTED,
)
VIEW = BundleView(
    key=KEY,
    look=LOOK,
    facts=FACTS,
    judgement=Judgement(Verdict.LEFTOVER, 8, "shim dead, init dead, cgroup empty, not listed"),
    phase=Phase.WAITING,
    cause="",
    policy="cleanup",
    age_seconds=3600.12345,
    due_in_seconds=599.98765,
    attempts=0,
)
OUTCOME = Outcome(
    KEY,
    Identity(46, 1234, 77),
    Result.BLOCKED,
    BlockReason.MOUNT_BUSY,
    "rootfs is busy",
    (Holder(17, "sleep", "cwd"),),
    (Step("unmount", StepResult.BLOCKED, "EBUSY", 0.001, 0),),
    None,
    0.0123456789,
)


def test_a_bundle_has_the_promised_shape() -> None:
    shown = json.loads(encode(shapes.bundle(VIEW, LAYOUT)))
    promised = {
        "namespace": "k8s.io",
        "id": "web",
        "verdict": "leftover",
        "phase": "waiting",
        "reason": "shim dead, init dead, cgroup empty, not listed",
        "age_seconds": 3600.123,
        "size_bytes": 8192,
        "size_exact": True,
        "init": {"pid": 4242, "state": "dead", "detail": "no such process"},
        "shim": {
            "socket": "/run/containerd/s/ab",
            "state": "dead",
            "detail": "refused",
            "wedged": False,
        },
        "containerd": "not listed",
        "mounts": ["rootfs"],
        "missing": ["init.pid", "runtime"],
        "rule": 8,
        "due_in_seconds": 599.988,
    }
    assert {name: shown[name] for name in promised} == promised


def test_a_living_bundle_has_no_phase_and_is_never_due() -> None:
    running = dataclasses.replace(
        VIEW,
        judgement=Judgement(Verdict.RUNNING, 3, "shim and init live"),
        phase=Phase.NONE,
        due_in_seconds=None,
    )
    shown = json.loads(encode(shapes.bundle(running, LAYOUT)))
    assert not {"phase", "due_in_seconds", "cause", "pod"} & shown.keys(), "absent is absent"


def test_debris_has_the_promised_shape() -> None:
    place = Place(
        PlaceKey(DebrisKind.RUNC_STATE, "/run/runc/k8s.io/web"), Identity(1, 2, 3), "k8s.io", "web"
    )
    shown = debris.debris(DebrisView(place, DebrisVerdict.DEBRIS, "no bundle", 10.0))
    assert json.loads(encode(shown)) == {
        "kind": "runc-state",
        "path": "/run/runc/k8s.io/web",
        "namespace": "k8s.io",
        "id": "web",
        "age_seconds": 10.0,
        "reason": "no bundle",
        "verdict": "debris",
        "attempts": 0,
    }


def test_a_removal_of_ours_cut_short_has_the_shape_of_debris() -> None:
    found = Hidden(BundleKey("k8s.io", ".web"), Identity(1, 2, 3), mtime=90.0, ours=True)
    assert json.loads(encode(debris.unfinished(found, LAYOUT, 100.0))) == {
        "kind": "hidden-bundle",
        "path": f"{escape(LAYOUT.tasks)}/k8s.io/.web",
        "namespace": "k8s.io",
        "id": ".web",
        "age_seconds": 10.0,
        "reason": "a removal of ours was cut short",
        "verdict": "debris",
        "attempts": 0,
    }


def test_a_scan_counts_every_verdict_and_all_bytes() -> None:
    one = shapes.bundle(VIEW, LAYOUT)
    refused = (Refusal(Guard.MOUNT_NAMESPACE, "slave mount"),)
    scan = shapes.scan(
        [one, one], [], envelope=ENVELOPE, containerd="up", refused=refused, seconds=0.5
    )
    shown = json.loads(encode(scan))
    assert list(shown) == ["kind", "apiVersion", "node", "time", "bundles", "debris", "summary"]
    assert [shown[name] for name in ("kind", "apiVersion", "node", "time")] == [
        "Scan",
        "containerd-reconciler/v1",
        "node-1",
        "2023-11-14T22:13:20.250Z",
    ]
    assert shown["summary"] == {
        "bundles": 2,
        "verdicts": {verdict.value: 2 * (verdict is Verdict.LEFTOVER) for verdict in Verdict},
        "leftovers": 2,
        "debris": 0,
        "total_bytes": 16384,
        "leftover_bytes": 16384,
        "containerd": "up",
        "refused": ["slave mount"],
        "seconds": 0.5,
    }


def test_a_result_has_the_promised_shape() -> None:
    shown = json.loads(encode(shapes.outcome(OUTCOME, LAYOUT)))
    promised = {
        "kind": "bundle",
        "namespace": "k8s.io",
        "id": "web",
        "path": "/run/containerd/io.containerd.runtime.v2.task/k8s.io/web",
        "result": "blocked",
        "reason": "mount busy",
    }
    assert {name: shown[name] for name in promised} == promised
    assert shown["holders"] == [{"pid": 17, "name": "sleep", "how": "cwd"}]
    (step,) = shown["steps"]
    assert {name: step[name] for name in ("step", "result", "detail", "seconds")} == {
        "step": "unmount",
        "result": "blocked",
        "detail": "EBUSY",
        "seconds": 0.001,
    }


@pytest.mark.parametrize(
    ("entries", "missing"),
    [
        (WHOLE, []),
        (WHOLE & ~Entries.ADDRESS, []),
        (WHOLE & ~Entries.BOOTSTRAP, []),
        (WHOLE & ~(Entries.ADDRESS | Entries.BOOTSTRAP), ["address"]),
        (WHOLE & ~Entries.SHIM_BINARY_PATH, []),
        (WHOLE & ~(Entries.SHIM_BINARY_PATH | Entries.SANDBOX), ["shim-binary-path"]),
        (WHOLE & ~Entries.CONFIG, ["config.json"]),
        (
            Entries(0),
            [
                "address",
                "config.json",
                "init.pid",
                "log",
                "log.json",
                "options.json",
                "rootfs",
                "runtime",
                "shim-binary-path",
                "work",
            ],
        ),
    ],
)
def test_missing_names_what_any_version_of_containerd_would_have_written(
    entries: Entries, missing: list[str]
) -> None:
    assert shapes.missing(BundleKey("ns", "a"), replace(LOOK, entries=entries)) == missing


def test_what_is_no_directory_misses_nothing() -> None:
    assert (
        shapes.missing(BundleKey("ns", "a"), replace(LOOK, kind=Kind.SYMLINK, entries=Entries(0)))
        == []
    )


@given(namespace=st.binary(min_size=1, max_size=80), name=st.binary(min_size=1, max_size=255))
def test_a_hostile_name_survives_json_and_back(namespace: bytes, name: bytes) -> None:
    look = replace(LOOK, mounts=(Mount(escape(name), 1, "tmpfs"),))
    view = dataclasses.replace(VIEW, key=BundleKey(escape(namespace), escape(name)), look=look)
    text = encode(shapes.bundle(view, LAYOUT))
    shown = json.loads(text)
    assert unescape(shown["namespace"]) == namespace
    assert unescape(shown["id"]) == name
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize(
    ("labels", "pod"),
    [
        (Labels(), None),
        (Labels(known=True), None),
        (
            Labels(known=True, pod_namespace="shop", pod="web-0"),
            {"namespace": "shop", "name": "web-0"},
        ),
        (
            Labels(known=True, pod_namespace="shop", pod="web\n0", container="nginx"),
            {"namespace": "shop", "name": "web\\x0a0", "container": "nginx"},
        ),
    ],
)
def test_a_bundle_names_its_pod(labels: Labels, pod: dict[str, str] | None) -> None:
    view = dataclasses.replace(VIEW, labels=labels)
    for shape in (
        shapes.bundle(view, LAYOUT),
        shapes.planned(view, LAYOUT),
        shapes.outcome(OUTCOME, LAYOUT, labels),
    ):
        assert json.loads(encode(shape)).get("pod") == pod
