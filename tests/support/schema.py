"""The JSON Schema of every document that a command or the daemon prints, made from their structs.

    python -m tests.support.schema --write      writes contrib/commands/schema.json anew

What has a default is left out where it has it (:mod:`reconciler.present.envelope`), so no key is
null and no text is empty in place of being absent: the schema says so, too.
"""

import json
import sys
from pathlib import Path
from typing import Final

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from reconciler.present.comparison import ReplayDiff
from reconciler.present.configuration import ConfigCheck, Configuration, PolicyTest
from reconciler.present.envelope import API_VERSION
from reconciler.present.explain import DebrisExplanation, Explanation
from reconciler.present.shapes import Clean, Scan
from reconciler.present.status import Status

PLACE: Final = Path(__file__).resolve().parents[2] / "contrib/commands/schema.json"
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

Document = (
    Scan
    | Clean
    | Explanation
    | DebrisExplanation
    | Status
    | ReplayDiff
    | Configuration
    | ConfigCheck
    | PolicyTest
)
KINDS: Final = frozenset(
    {
        *("Scan", "Clean", "Explanation", "DebrisExplanation", "Status", "ReplayDiff"),
        *("Configuration", "ConfigCheck", "PolicyTest"),
    },
)

Node = dict[str, object]


def schema() -> Node:
    """Make the schema of all documents together; which one it is says their ``kind``."""
    made: Node = {
        "$schema": DRAFT,
        "title": "containerd-reconciler: what commands print with -o json, and /status answers",
        "description": f"apiVersion {API_VERSION}. Keys may be added; none goes or changes.",
        **msgspec.json.schema(Document, schema_hook=_anything),
    }
    plain = _without_absent(made)
    assert isinstance(plain, dict)
    return plain


def text() -> str:
    """Write the schema as it stands in its file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def strict() -> Validator:
    """Give a validator that also refuses a key which the file does not know."""
    read: Node = json.loads(PLACE.read_text())
    closed = _closed(read)
    assert isinstance(closed, dict)
    Draft202012Validator.check_schema(closed)
    return Draft202012Validator(closed)


def _anything(kind: type) -> Node:
    """Give the schema of a value of a configuration, which is any that TOML has."""
    assert kind is object
    return {"description": "As a configuration file has it."}


def _without_absent(value: object) -> object:
    """Drop null and the empty text, which would stand for what is not there."""
    if isinstance(value, list):
        return [_without_absent(one) for one in value]
    if not isinstance(value, dict):
        return value
    node: Node = dict(value)
    nothing = {"type": "null"}
    choices = node.get("anyOf")
    if isinstance(choices, list) and nothing in choices:
        left = [one for one in choices if one != nothing]
        del node["anyOf"]
        node |= left[0] if len(left) == 1 else {"anyOf": left}
    if "default" in node and "properties" not in node:
        default = node.pop("default")
        assert default in (None, ""), f"left out where it is {default!r}, so nobody can see it"
    if node.get("type") == "string":
        node["minLength"] = 1
    return {name: _without_absent(one) for name, one in node.items()}


def _closed(value: object) -> object:
    if isinstance(value, list):
        return [_closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    closed = {name: _closed(one) for name, one in value.items()}
    return {**closed, "additionalProperties": False} if "properties" in value else closed


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.support.schema --write")
    PLACE.write_text(text())
