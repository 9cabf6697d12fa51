"""One request and one answer, the same on every platform: over plain HTTP, or as a CloudEvent.

Over HTTP a request is `POST` with the picture as the body and what is known about it in headers `X-Shelfwire-...`.
A CloudEvent (1.0, JSON) has the picture in `data_base64` and the same as extension attributes, whose names may hold
letters and digits only: `X-Shelfwire-Captured-At` becomes `shelfwirecapturedat`. The answer is a verdict, or a problem
(RFC 9457) with the cure.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import unquote

from pydantic import ValidationError

from cloud.errors import Rejected
from cloud.function.handler import KINDS, MOST_PICTURE_BYTES, About, Model, WrongKind, answer
from models.errors import BundleError, PictureError
from wire import WireError, strict

FRAME, CAMERA, CAPTURED_AT = "x-shelfwire-frame", "x-shelfwire-camera", "x-shelfwire-captured-at"
NUMBER, LOCAL_LABEL, TOP = "x-shelfwire-number", "x-shelfwire-local-label", "x-shelfwire-top"
EVENT_TYPE = "application/cloudevents+json"
PICTURE_TYPES = tuple(f"image/{kind}" for kind in KINDS)
MOST_BODY_BYTES = (MOST_PICTURE_BYTES + 2) // 3 * 4 + 16 * 1024
"""A CloudEvent with the largest picture: base64, and 16 KiB for its attributes."""

_FIELDS = {"camera": CAMERA, "captured_at": CAPTURED_AT, "local_label": LOCAL_LABEL}
_HEADERS = {"device": FRAME, "run": FRAME, "seq": FRAME, "frame": NUMBER, "top": TOP, **_FIELDS}
_NUMBERS = {"frame": NUMBER, "top": TOP}
_STATUS = {
    "picture-empty": HTTPStatus.BAD_REQUEST,
    "picture-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "picture-not-a-picture": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "picture-kind": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}
"""What else may be wrong with a picture is 422."""


class Refused(Rejected):
    """A request that is wrong before anybody looks at its picture; `status` is the HTTP status."""

    def __init__(self, status: HTTPStatus, code: str, message: str, hint: str) -> None:
        super().__init__(code, message, hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: JSON in `body`."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read."""

    picture: bytes
    about: About


def utc_now() -> datetime:
    """Read the clock of the platform."""
    return datetime.now(UTC)


def problem(status: int, code: str, detail: str, hint: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Write an error that names its cure (RFC 9457)."""
    title = HTTPStatus(status).phrase
    told = {"type": "about:blank", "title": title, "status": int(status), "code": code, "detail": detail, "hint": hint}
    basic = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    return Reply(int(status), json.dumps(told).encode(), {**basic, **(headers or {})})


def reply_to_request(
    model: Model, method: str, headers: Mapping[str, str], body: bytes, now: Callable[[], datetime] = utc_now
) -> Reply:
    """Answer an HTTP request; names in `headers` are in lower case. Raises nothing that a request can cause."""
    return _reply(model, now, lambda: read_request(method, headers, body))


def reply_to_event(
    model: Model, attributes: object, picture: object = None, now: Callable[[], datetime] = utc_now
) -> Reply:
    """Answer a CloudEvent; `picture` is its data when a library has already decoded it."""
    return _reply(model, now, lambda: read_event(attributes, picture))


def too_large() -> Reply:
    """Refuse a body by its length alone."""
    detail = f"the request has more than {MOST_BODY_BYTES} bytes, its picture may have {MOST_PICTURE_BYTES}"
    hint = "save the picture smaller or at a lower quality"
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "picture-too-large", detail, hint)


def _reply(model: Model, now: Callable[[], datetime], read: Callable[[], Asked]) -> Reply:
    try:
        asked = read()
        verdict = answer(model, asked.picture, asked.about, now())
    except Refused as error:
        allow = {"Allow": "POST"} if error.status == HTTPStatus.METHOD_NOT_ALLOWED else None
        return problem(error.status, error.code, str(error), error.hint, allow)
    except (PictureError, WrongKind) as error:
        status = _STATUS.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
        return problem(status, error.code, str(error), error.hint)
    except BundleError as error:
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, error.code, str(error), error.hint)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Reply(HTTPStatus.OK, verdict.model_dump_json().encode(), headers)


def read_request(method: str, headers: Mapping[str, str], body: bytes) -> Asked:
    """Read an HTTP request. Raises `Refused`."""
    if method != "POST":
        raise Refused(
            HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", f"{method[:16]} is not known", "POST a picture"
        )
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == EVENT_TYPE:
        return read_event(_parsed(body))
    if kind not in PICTURE_TYPES:
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "content-type",
            f"Content-Type {kind[:60]!r} is not taken",
            f"send {', '.join(PICTURE_TYPES)} or {EVENT_TYPE}",
        )
    given = {name: headers.get(name) for name in _HEADERS.values()}
    if (
        label := given[LOCAL_LABEL]
    ) is not None:  # percent-encoded, as CloudEvents over HTTP are: labels may be in any script
        given[LOCAL_LABEL] = unquote(label)
    return Asked(body, _about(given, str))


def read_event(event: object, picture: object = None) -> Asked:
    """Read a CloudEvent from its attributes. Raises `Refused`."""
    if not isinstance(event, Mapping):
        raise _bad_event("an event is a JSON object")
    missing = [name for name in ("specversion", "id", "source", "type") if not _is_text(event.get(name))]
    if missing or event["specversion"] != "1.0":
        raise _bad_event(f"{missing[0]} is missing" if missing else "only specversion 1.0 is known")
    given = {name: event.get(_attribute(name)) for name in _HEADERS.values()}
    return Asked(_data(event) if picture is None else _bytes(picture), _about(given, _attribute))


def _parsed(body: bytes) -> strict.Json:
    try:
        return strict.loads(body, MOST_BODY_BYTES)
    except WireError as error:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if error.code == "too-large" else HTTPStatus.BAD_REQUEST
        raise Refused(status, error.code, str(error), error.hint or "send a CloudEvent in JSON") from None


def _about(given: Mapping[str, object], shown: Callable[[str], str]) -> About:
    """Check what is known about a picture; `given` goes by header, `shown` names a header as its sender knows it."""
    frame = given[FRAME]
    device, run, seq = frame.split("/") if isinstance(frame, str) and frame.count("/") == 2 else ("", "", "")
    fields: dict[str, object] = {"device": device, "run": run, "seq": _whole(seq)}
    fields |= {name: given[header] for name, header in _FIELDS.items()}
    fields |= {name: _whole(given[header]) for name, header in _NUMBERS.items() if given[header] is not None}
    try:
        return About.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        header = _HEADERS[str(first["loc"][0])]
        state = "is missing" if given[header] is None else f"cannot be taken: {first['msg']}"
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"bad-{header.removeprefix('x-shelfwire-')}",
            f"{shown(header)} {state}"[:300],
            _SHAPES[header],
        ) from None


_SHAPES = {
    FRAME: "write the frame's id as device/run/seq, for example shop-1/00000000000000aa/17",
    CAMERA: "give the camera's name: at most 64 letters, digits, dots, dashes and underscores",
    CAPTURED_AT: "write the time as RFC 3339, for example 2026-01-31T12:00:00.000000Z",
    NUMBER: "give the camera's own number of the frame, from 1, or leave it out",
    LOCAL_LABEL: "give the device's own label of at most 64 characters, or leave it out",
    TOP: "ask for 1 to 10 labels, or leave it out",
}


def _whole(value: object) -> object:
    """A whole number from digits; anything else stays what it is, and is refused where it is checked."""
    digits = isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdigit()
    return int(value) if digits and isinstance(value, str) else value


def _attribute(header: str) -> str:
    return header.removeprefix("x-").replace("-", "")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _data(event: Mapping[str, object]) -> bytes:
    kind = event.get("datacontenttype")
    if kind not in PICTURE_TYPES:
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "content-type",
            f"datacontenttype {str(kind)[:60]!r} is not taken",
            f"send one of: {', '.join(PICTURE_TYPES)}",
        )
    encoded = event.get("data_base64")
    if not isinstance(encoded, str):
        raise _bad_event("data_base64 is missing")
    return decoded(encoded)


def decoded(encoded: str) -> bytes:
    """Bytes from base64. Raises `Refused`."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _bad_event("the picture is not base64") from None


def _bytes(picture: object) -> bytes:
    if not isinstance(picture, bytes):
        raise _bad_event("the event's data are no bytes")
    return picture


def _bad_event(message: str) -> Refused:
    hint = "send a CloudEvents 1.0 event with the picture in data_base64, as docs/function.md shows"
    return Refused(HTTPStatus.BAD_REQUEST, "bad-event", message, hint)
