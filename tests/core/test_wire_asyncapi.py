"""The AsyncAPI document is current, hangs together, and accepts what is really sent."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from wire import asyncapi, envelope, topics

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "wire-v1"
RENEW = "renew it: .venv/bin/python -m wire.asyncapi > docs/asyncapi.json"

DOCUMENT = json.loads(asyncapi.text())

KINDS = {
    "results.json": "result",
    "newer-results.json": "result",
    "alert.json": "alert",
    "status-online.json": "status",
    "status-offline.json": "status",
    "receipt.json": "receipt",
    "newer-receipt.json": "receipt",
    "picture.json": "picture",
    "verdicts.json": "verdict",
    "desired.json": "desired",
    "reported.json": "reported",
}


def schema_of(kind: str) -> jsonschema.protocols.Validator:
    name = asyncapi.envelope_schema_name(kind)
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    # AsyncAPI 3.0 payloads are a superset of JSON Schema draft 7.
    jsonschema.Draft7Validator.check_schema(DOCUMENT["components"]["schemas"][name])
    return jsonschema.Draft7Validator(schema)


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_the_document_in_docs_is_current() -> None:
    assert (ROOT / "docs" / "asyncapi.json").read_text("utf-8") == asyncapi.text(), RENEW


def test_every_golden_file_has_a_kind() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(KINDS)


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_golden_files_are_accepted(name: str, kind: str) -> None:
    schema_of(kind).validate(json.loads((GOLDEN / name).read_bytes()))


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_golden_files_are_refused_where_they_do_not_belong(name: str, kind: str) -> None:
    document = json.loads((GOLDEN / name).read_bytes())
    for other in set(envelope.TYPES) - {kind}:
        assert not schema_of(other).is_valid(document)


@pytest.mark.parametrize(
    ("name", "value"), [("seq", 0), ("seq", "1"), ("labels", []), ("camera", "a/b"), ("mode", "later"), ("run", None)]
)
def test_a_bad_record_is_refused_by_the_schema_too(name: str, value: object) -> None:
    document = json.loads((GOLDEN / "results.json").read_bytes())
    document["data"]["records"][0][name] = value
    assert not schema_of("result").is_valid(document)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        assert reference.startswith("#/")
        place = DOCUMENT
        for step in reference[2:].split("/"):
            place = place[step]


def test_the_structure_is_that_of_asyncapi_3() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    for name, operation in DOCUMENT["operations"].items():
        assert operation["action"] in {"send", "receive"}
        channel = DOCUMENT["channels"][operation["channel"]["$ref"].removeprefix("#/channels/")]
        # An operation's messages are named through its channel, never through the components.
        prefix = operation["channel"]["$ref"] + "/messages/"
        for message in operation["messages"]:
            assert message["$ref"].removeprefix(prefix) in channel["messages"], name
    for channel in DOCUMENT["channels"].values():
        assert set(channel["parameters"]) == {"device"}
        assert "{device}" in channel["address"]


def test_every_topic_and_every_kind_is_described() -> None:
    named = {value for name, value in vars(topics).items() if name.isupper() and not name.startswith("_")}
    described = {channel.rest for channel in asyncapi.CHANNELS}
    assert described == named - {topics.PREFIX}
    assert {channel.kind for channel in asyncapi.CHANNELS} == set(envelope.TYPES)
    assert set(envelope.TYPES) == {*envelope.RECORDS, *envelope.MESSAGES}
