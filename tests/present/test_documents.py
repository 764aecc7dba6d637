"""The schema of all documents: its file is what the structs make, and absent is absent in it."""

import importlib
import json
import pkgutil

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from reconciler import present
from reconciler.present.envelope import API_VERSION, Document, encode
from reconciler.present.formatting import to_json
from tests.present.test_every_value import WHOLE, status
from tests.present.test_shapes import ENVELOPE
from tests.support import schema


def test_the_file_is_what_the_structs_make() -> None:
    assert schema.PLACE.read_text() == schema.text(), (
        "written anew by: python -m tests.support.schema --write"
    )


def test_every_document_is_in_it_and_is_known_by_its_kind() -> None:
    def below(kind: type[Document]) -> set[type[Document]]:
        return {kind, *(one for sub in kind.__subclasses__() for one in below(sub))}

    for module in pkgutil.iter_modules(present.__path__, "reconciler.present."):
        importlib.import_module(module.name)  # whose documents are known then
    kinds = {str(one.__struct_config__.tag) for one in below(Document) if one is not Document}
    assert kinds == schema.KINDS
    made = schema.schema()
    definitions = made["$defs"]
    assert isinstance(definitions, dict)
    for kind in kinds:
        assert {"kind", "apiVersion", "node", "time"} <= set(definitions[kind]["required"])
        assert definitions[kind]["properties"]["kind"] == {"enum": [kind]}


def test_nothing_may_be_null_and_no_text_empty() -> None:
    text = schema.text()
    assert '"null"' not in text
    assert '"default"' not in text
    assert text.count('"type": "string"') == text.count('"minLength": 1')


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"brake": ""}, "should be non-empty"),
        ({"brake": None}, "is not of type 'string'"),
        ({"surprise": 1}, "'surprise' was unexpected"),
        ({"apiVersion": "v2"}, "is not one of"),
    ],
)
def test_the_strict_reading_finds_what_is_wrong(change: dict[str, object], why: str) -> None:
    told = json.loads(encode(status(WHOLE)))
    assert not list(schema.strict().iter_errors(told))
    (error,) = schema.strict().iter_errors(told | change)
    assert any(why in one.message for one in (error, *(error.context or ())))


def test_a_client_may_ignore_what_is_new() -> None:
    told = json.loads(encode(status(WHOLE))) | {"added": 1}
    Draft202012Validator(json.loads(schema.PLACE.read_text())).validate(told)


def test_a_status_survives_being_written_and_read() -> None:
    told = replace(status("x"), **ENVELOPE)
    for text in (encode(told), to_json(told).decode()):
        assert msgspec.json.decode(text, type=type(told)) == told
        assert json.loads(text)["apiVersion"] == API_VERSION


def test_what_is_well_has_no_key() -> None:
    told = json.loads(encode(replace(status("x"), brake="", backend_trouble="", journal=None)))
    assert not {"brake", "backend_trouble", "journal"} & told.keys()
    assert told["recent"]
