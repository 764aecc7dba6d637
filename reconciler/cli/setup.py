"""From words to a setup: options over environment over defaults, as one value for the session.

Pure but for reading the environment. The order is the promise: what is said on the command line
wins over ``CONTAINERD_ADDRESS``, which wins over the defaults.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from reconciler.assembly import Backend, Setup
from reconciler.cli.options import Globals
from reconciler.decide.policy import Policies
from reconciler.errors import ConfigError, UsageError
from reconciler.model.ids import unshow
from reconciler.model.layout import DEFAULT_ADDRESS, DEFAULT_ROOT, DEFAULT_STATE, Layout

_UNIX: Final = "unix://"


@dataclass(frozen=True, slots=True)
class Changes:
    """What one command changes of the policies; None leaves it as it is.

    Attributes:
        enforce: Whether leftovers are removed.
        grace, threshold, settle: In seconds.
        backend: How to watch.
        once: A single pass: then the brake on the rate would only leave work undone.
    """

    enforce: bool | None = None
    grace: float | None = None
    threshold: float | None = None
    settle: float | None = None
    backend: Backend | None = None
    once: bool = False


def make_setup(
    said: Globals,
    changes: Changes = Changes(),
    *,
    without_containerd: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Setup:
    """Join options, environment and defaults.

    Raises:
        UsageError: A path that cannot be meant.
    """
    if said.config is not None:
        raise ConfigError("configuration files are not read yet", "leave --config out")
    state = _directory("--state", said.state, DEFAULT_STATE)
    layout = Layout(
        state=state,
        root=_directory("--root", said.root, DEFAULT_ROOT),
        address=_address(said.address or environ.get("CONTAINERD_ADDRESS"), state),
    )
    return Setup(
        layout=layout,
        policies=_policies(Policies(), changes),
        backend=changes.backend or "auto",
        waived=without_containerd,
        namespaces=frozenset(unshow(name) for name in said.namespace),
    )


def _policies(policies: Policies, changes: Changes) -> Policies:
    said = {
        name: value
        for name, value in (
            ("enforce", changes.enforce),
            ("grace", changes.grace),
            ("threshold", changes.threshold),
        )
        if value is not None
    }
    settle = policies.settle if changes.settle is None else changes.settle
    brakes = replace(policies.brakes, max_per_minute=None) if changes.once else policies.brakes
    default = replace(policies.default, **said)  # type: ignore[arg-type]
    return replace(policies, default=default, settle=settle, brakes=brakes)


def _directory(option: str, said: str | None, default: bytes) -> bytes:
    if said is None:
        return default
    if not said:
        raise UsageError(f"{option} is empty", "name a directory or leave it out")
    return os.path.abspath(os.fsencode(said))


def _address(said: str | None, state: bytes) -> bytes:
    if not said:
        return DEFAULT_ADDRESS if state == DEFAULT_STATE else state + b"/containerd.sock"
    return os.path.abspath(os.fsencode(said.removeprefix(_UNIX)))
