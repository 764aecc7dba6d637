"""Which shims may be said to be runc's: what containerd calls one, and no other kind of runtime."""

import pytest

from reconciler.settings.load import load
from reconciler.settings.types import shim_names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("containerd-shim-runc-v2-rs", ("containerd-shim-runc-v2-rs",)),
        (
            "containerd-shim-runc-v2-rs, containerd-shim-acme-v1",
            ("containerd-shim-runc-v2-rs", "containerd-shim-acme-v1"),
        ),
    ],
)
def test_names_are_separated_by_commas(text: str, names: tuple[str, ...]) -> None:
    said = {"CONTAINERD_RECONCILER_CONTAINERD_RUNC_SHIMS": text}
    assert shim_names(text) == load(environ=said).layout.runc_shims == names


@pytest.mark.parametrize(
    "text",
    [
        "runc",
        "/usr/bin/containerd-shim-runc-v2",
        "containerd-shim-a/b",
        "containerd-shim-",
        ",",
        "containerd-shim-acme-v2,,",
        "containerd-shim-kata-v2",
        "containerd-shim-runsc-v1",
    ],
)
def test_what_is_no_shim_or_keeps_containers_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="shim"):
        shim_names(text)
