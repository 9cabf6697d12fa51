"""The AsyncAPI 3.0 document of the wire, made from the topics and the models: ``python -m wire.asyncapi`` prints it."""

import json
import sys
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from wire import bounds, envelope, topics
from wire.strict import Json

VERSION = "1.0.0"
"""Version of the wire, not of the package: a change that breaks readers is 2.0.0 and has its own topics."""

_MQTT_BINDING = "0.2.0"


@dataclass(frozen=True, slots=True)
class Channel:
    """One topic of a device, and what travels on it."""

    name: str
    rest: str
    """The topic below ``shelfwire/v1/{device}/``."""
    kind: str
    """Key of `envelope.TYPES`, and of either `envelope.RECORDS` or `envelope.MESSAGES`."""
    sender: Literal["device", "cloud"]
    qos: Literal[0, 1]
    retained: bool
    text: str


CHANNELS = (
    Channel(
        "status",
        topics.STATUS,
        "status",
        "device",
        1,
        True,
        "Presence and health. The last will on the same topic says offline for the connection that it belongs to.",
    ),
    Channel(
        "results",
        topics.RESULTS,
        "result",
        "device",
        1,
        False,
        "Answers, many in one envelope. Sent again until a receipt names them.",
    ),
    Channel(
        "alerts",
        topics.ALERTS,
        "alert",
        "device",
        1,
        False,
        "Alerts. They never wait behind results, and are sent again until a receipt names them.",
    ),
    Channel(
        "pictures",
        topics.PICTURES,
        "picture",
        "device",
        0,
        False,
        "The last small picture of a camera. Not stored, never sent twice.",
    ),
    Channel(
        "receipts-down",
        topics.RECEIPTS_DOWN,
        "receipt",
        "cloud",
        1,
        False,
        "Which records the cloud's store has committed, and which it refused for good.",
    ),
    Channel(
        "receipts-up",
        topics.RECEIPTS_UP,
        "receipt",
        "device",
        1,
        False,
        "Which verdicts the device's store has committed, and which it refused for good.",
    ),
    Channel(
        "verdicts",
        topics.VERDICTS,
        "verdict",
        "cloud",
        1,
        False,
        "Late answers: from the serverless function, the job queue or the night's batch. Sent again until a receipt "
        "names them.",
    ),
    Channel(
        "desired",
        topics.DESIRED,
        "desired",
        "cloud",
        1,
        True,
        "What the device should run: the newest order alone counts. An empty message means that nothing is ordered.",
    ),
    Channel(
        "reported",
        topics.REPORTED,
        "reported",
        "device",
        1,
        True,
        "What the device runs, and how far its last orders have come.",
    ),
)
"""Every topic of wire v1."""


_DESCRIPTION = f"""\
What a Shelfwire device and its cloud say to each other over MQTT 5. Every message is a CloudEvents 1.0 event in \
structured JSON, at most {bounds.ENVELOPE_BYTES} bytes and {bounds.ENVELOPE_RECORDS} records. Receivers ignore fields \
that they do not know, and refuse values out of bounds. The sender of a message is who the broker authenticated: its \
topic level, never a name inside the message."""


def document() -> dict[str, Json]:
    """Make the AsyncAPI document, told from the device's side: ``send`` is what the device says."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Shelfwire",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": envelope.CONTENT_TYPE,
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {_operation_name(channel): _operation(channel) for channel in CHANNELS},
        "components": {
            "messages": {kind: _message(kind) for kind in envelope.TYPES},
            "schemas": {**_envelopes(), **_model_schemas()},
        },
    }


def text() -> str:
    """Write the document as it stands in ``docs/asyncapi.json``."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _channel(channel: Channel) -> dict[str, Json]:
    return {
        "address": f"{topics.PREFIX}/{{device}}/{channel.rest}",
        "description": channel.text,
        "parameters": {"device": {"description": f"The device's id, one topic level: {bounds.NAME}"}},
        "messages": {channel.kind: _ref("messages", channel.kind)},
    }


def _operation_name(channel: Channel) -> str:
    return f"{_action(channel)}-{channel.name}"


def _action(channel: Channel) -> Literal["send", "receive"]:
    return "send" if channel.sender == "device" else "receive"


def _operation(channel: Channel) -> dict[str, Json]:
    return {
        "action": _action(channel),
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{channel.kind}"}],
        "bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retained, "bindingVersion": _MQTT_BINDING}},
    }


def _message(kind: str) -> dict[str, Json]:
    return {
        "name": envelope.TYPES[kind],
        "contentType": envelope.CONTENT_TYPE,
        "payload": _ref("schemas", envelope_schema_name(kind)),
    }


def envelope_schema_name(kind: str) -> str:
    """Name the schema of a whole envelope of `kind` among ``components.schemas``."""
    return f"{kind.capitalize()}Envelope"


def _envelopes() -> dict[str, Json]:
    return {envelope_schema_name(kind): _envelope(kind) for kind in envelope.TYPES}


def _envelope(kind: str) -> dict[str, Json]:
    data = _records(envelope.RECORDS[kind]) if kind in envelope.RECORDS else _model(envelope.MESSAGES[kind])
    return {
        "type": "object",
        "allOf": [_model(envelope.Event)],
        "properties": {"type": {"const": envelope.TYPES[kind]}, "data": data},
        "required": ["data"],
    }


def _records(model: type[BaseModel]) -> dict[str, Json]:
    items: dict[str, Json] = {
        "type": "array",
        "items": _model(model),
        "minItems": 1,
        "maxItems": bounds.ENVELOPE_RECORDS,
    }
    return {
        "type": "object",
        "allOf": [_model(envelope.Origin)],
        "properties": {"records": items},
        "required": ["records"],
    }


def _model_schemas() -> dict[str, Json]:
    models: tuple[type[BaseModel], ...] = (
        envelope.Event,
        envelope.Origin,
        *envelope.RECORDS.values(),
        *envelope.MESSAGES.values(),
    )
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    definitions: dict[str, Json] = schemas["$defs"]
    return dict(sorted(definitions.items()))


def _model(model: type[BaseModel]) -> dict[str, Json]:
    return _ref("schemas", model.__name__)


def _ref(section: str, name: str) -> dict[str, Json]:
    return {"$ref": f"#/components/{section}/{name}"}


if __name__ == "__main__":
    sys.stdout.write(text())
