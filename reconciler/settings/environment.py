"""Environment: what its variables say, as a table like a file's.

``CONTAINERD_RECONCILER_<SECTION>_<KEY>`` sets a key, and ``CONTAINERD_ADDRESS``, which containerd's
own tools read, the address. An unknown variable of our prefix is a mistake and is refused like an
unknown key, but for those that Kubernetes makes of a service that is named like us.
"""

import os
import re
from collections.abc import Mapping
from typing import Final

from msgspec import inspect

from reconciler.model.ids import escape
from reconciler.settings.check import Table, check_value, known_keys
from reconciler.settings.problems import Problem, meant

ENVIRONMENT: Final = "environment"
PREFIX: Final = "CONTAINERD_RECONCILER_"
ADDRESS: Final = "CONTAINERD_ADDRESS"
NODE: Final = "NODE_NAME"
"""Holds the node's name in a pod, where a manifest asks for ``spec.nodeName``."""

_SERVICE: Final = re.compile(
    r".*(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://.*")
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")


def node_name(environ: Mapping[str, str]) -> str:
    """Give the node's name: as Kubernetes calls it where a pod is told, else as the kernel does."""
    name = environ.get(NODE) or os.uname().nodename
    return escape(name.encode("utf-8", "surrogateescape"))


def variables() -> dict[str, str]:
    """Name the variable of every key."""
    return {PREFIX + re.sub("[.-]", "_", key).upper(): key for key in known_keys()}


def from_environment(
    environ: Mapping[str, str],
) -> tuple[dict[str, tuple[str, object]], list[Problem]]:
    """Read the environment.

    Returns:
        For each key that is set its variable and value, and what is wrong with them.
    """
    known, kinds = variables(), known_keys()
    said: dict[str, tuple[str, object]] = {}
    problems: list[Problem] = []
    if environ.get(ADDRESS):
        said["containerd.address"] = ADDRESS, environ[ADDRESS]
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(PREFIX) or _is_service(variable, text):
            continue
        if variable in known:
            key = known[variable]
            said[key] = variable, _typed(text, kinds[key])
        else:
            hint = meant(variable, known)
            problems.append(Problem(ENVIRONMENT, variable, "unknown variable", hint))
    for key, (variable, value) in said.items():
        problems += check_value(value, kinds[key], ENVIRONMENT, variable)
    return said, problems


def put(table: Table, key: str, value: object) -> None:
    """Set a dotted key of a nested table."""
    *sections, last = key.split(".")
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise TypeError(f"{section} is no table")
        table = inner
    table[last] = value


def _typed(text: str, kind: inspect.Type) -> object:
    """Give text the type its key wants, if it can be that; else the check will say so."""
    if isinstance(kind, inspect.Metadata):
        return _typed(text, kind.type)
    if isinstance(kind, inspect.BoolType):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(kind, inspect.IntType) and _WHOLE.fullmatch(text):
        return int(text)
    return text


def _is_service(variable: str, text: str) -> bool:
    """Tell what the kubelet sets for a service called containerd-reconciler or like it."""
    name = variable.removeprefix(PREFIX)
    if _SERVICE.fullmatch(name):
        return True
    return name.endswith("PORT") and _SERVICE_URL.fullmatch(text) is not None
