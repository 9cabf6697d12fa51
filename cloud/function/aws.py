"""AWS Lambda: a function URL, API Gateway (payload format 2.0), or a direct call with a CloudEvent.

Set the function's entry to `cloud.function.aws.lambda_handler`. A call by HTTP gets an HTTP answer; a direct one gets
the verdict, or the problem, as its result: a bad picture stays bad, so that nothing is gained when Lambda tries again.
"""

import json
from collections.abc import Mapping

from cloud.function.exchange import Refused, Reply, decoded, problem, reply_to_event, reply_to_request
from cloud.function.handler import Model

MODEL = Model.open()


def lambda_handler(event: object, context: object) -> dict[str, object]:  # noqa: ARG001 - the platform gives it
    """Answer one event."""
    call = event.get("requestContext") if isinstance(event, Mapping) else None
    http = call.get("http") if isinstance(call, Mapping) else None
    if not isinstance(event, Mapping) or not isinstance(http, Mapping):
        result: dict[str, object] = json.loads(reply_to_event(MODEL, event).body)
        return result
    reply = _reply(str(http.get("method")), event)
    return {
        "statusCode": reply.status,
        "headers": dict(reply.headers),
        "body": reply.body.decode(),
        "isBase64Encoded": False,
    }


def _reply(method: str, event: Mapping[str, object]) -> Reply:
    given = event.get("headers")
    headers = {str(name).lower(): str(value) for name, value in given.items()} if isinstance(given, Mapping) else {}
    text = str(event.get("body") or "")
    try:
        body = decoded(text) if event.get("isBase64Encoded") else text.encode()
    except Refused as error:
        return problem(error.status, error.code, str(error), error.hint)
    return reply_to_request(MODEL, method, headers, body)
