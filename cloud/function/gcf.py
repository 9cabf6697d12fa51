"""Google Cloud Functions through the Functions Framework: `classify` by HTTP, `on_picture` for CloudEvents (Eventarc).

The framework answers nothing to a CloudEvent, so the verdict, or the problem, is written to standard output: one JSON
object per line, as Cloud Logging reads it.
"""

import json
from collections.abc import Mapping
from typing import Protocol

import flask
import functions_framework

from cloud.function.exchange import MOST_BODY_BYTES, reply_to_event, reply_to_request, too_large
from cloud.function.handler import Model

MODEL = Model.open()


class Event(Protocol):
    """What the framework gives: a CloudEvent of the SDK."""

    def get_attributes(self) -> Mapping[str, object]:
        """Give its attributes, extensions among them."""
        ...

    def get_data(self) -> object:
        """Give its data, decoded."""
        ...


@functions_framework.http
def classify(request: flask.Request) -> flask.typing.ResponseReturnValue:
    """Answer one HTTP request."""
    if (request.content_length or 0) > MOST_BODY_BYTES:
        reply = too_large()
    else:
        headers = {name.lower(): value for name, value in request.headers.items()}
        reply = reply_to_request(MODEL, request.method, headers, request.get_data())
    return reply.body, reply.status, dict(reply.headers)


@functions_framework.cloud_event
def on_picture(event: Event) -> None:
    """Take one event. A bad one is not refused: it would come again, and stay bad."""
    reply = reply_to_event(MODEL, event.get_attributes(), event.get_data())
    severity = "INFO" if reply.status == 200 else "ERROR"
    print(json.dumps({"severity": severity, "message": "verdict", "answer": json.loads(reply.body)}), flush=True)
