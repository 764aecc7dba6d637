"""Envelope: what every JSON document begins with, so that it says by itself what it is.

``{"kind": ..., "apiVersion": ..., "node": ..., "time": ..., ...}``, as readers of kubectl's output
expect it: a file with the scans of a hundred nodes can be sorted by kind, node and time. What is
absent has no key: no null, and no empty text in its place. Numbers, yes and no, and lists are there
also where they are 0, no and empty.
"""

from typing import Final, Literal, TypedDict

import msgspec

from reconciler.present.formatting import iso, to_json

ApiVersion = Literal["containerd-reconciler/v1"]
API_VERSION: Final = "containerd-reconciler/v1"


class Shape(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is written as a JSON object; a key whose value is its default is left out."""


class Envelope(TypedDict):
    """The fields of a :class:`Document`, to be given to any of them."""

    api_version: ApiVersion
    node: str
    time: str


class Document(Shape, frozen=True, kw_only=True, tag_field="kind"):
    """A whole answer; its kind is the tag of its class.

    Attributes:
        api_version: Changes where a reader would have to change.
        node: The node it is about, by the name that Kubernetes or the kernel gives it.
        time: When it was made: RFC 3339, UTC, with milliseconds.
    """

    api_version: ApiVersion = msgspec.field(name="apiVersion")
    node: str
    time: str


def envelope(node: str, wall: float) -> Envelope:
    """Give the envelope of a document of this node, made at ``wall`` seconds since the epoch."""
    return Envelope(api_version=API_VERSION, node=node, time=iso(wall))


def encode(value: Shape) -> str:
    """Encode for people and machines: indented JSON with a final newline."""
    return msgspec.json.format(to_json(value), indent=2).decode() + "\n"
