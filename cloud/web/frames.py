"""PUT /frames: a device asks about one picture, and is answered when the verdict is in the store."""

import asyncio
import hashlib
import time
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from cloud import frame
from cloud.errors import Rejected
from cloud.function.exchange import PICTURE_TYPES
from cloud.function.handler import KINDS, MOST_PICTURE_BYTES, MOST_PICTURE_PIXELS
from cloud.gateway import Gateway, NoAnswer
from cloud.gateway.gateway import MOST_CALL_S
from cloud.web import problems
from cloud.web.api import DeviceName, RunName, SeqNumber
from cloud.web.frame_headers import described
from cloud.web.jobs_intake import bounded, refuse_foreign_pages
from cloud.web.parts import Shared
from cloud.web.peers import only_as_itself
from cloud.web.problems import ApiProblem
from cloud.web.shapes import Shape
from models import PictureError, picture_size

BODY_S = 20.0
"""How long a sender may take for its picture; it holds a place meanwhile."""

_DOCUMENT = {
    "parameters": described(),
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURE_TYPES},
    },
}
_REFUSED = problems.documented(
    HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT,
)  # fmt: skip

router = APIRouter(tags=["frames"])


class FrameAnswer(Shape):
    """The verdict is in the store and on its way to the device by MQTT. Costs are null where nobody knows them."""

    state: str = Field(description="`answered`", examples=["answered"])
    usd: float | None = Field(description="what the call cost, by list price")
    billed_ms: int | None


def _gateway(request: Request) -> Gateway:
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway


@router.put(
    "/frames/{device}/{run}/{seq}",
    response_model=FrameAnswer,
    responses=_REFUSED,
    openapi_extra=_DOCUMENT,
    dependencies=[Depends(refuse_foreign_pages)],
)
async def ask(
    request: Request,
    shared: Shared,
    gateway: Annotated[Gateway, Depends(_gateway)],
    device: DeviceName,
    run: RunName,
    seq: SeqNumber,
) -> Response:
    """Ask the function about a frame. 200 when its verdict is in the store: sent again, it is not called again."""
    only_as_itself(request, device)
    began_s = time.monotonic()
    try:
        with gateway.counted():
            sent = _read_headers(request, f"{device}/{run}/{seq}", shared)
            with gateway.place():
                picture = await _read_picture(request, sent)
                kind = _judge(picture, sent)
                within_s = MOST_CALL_S
                if sent.deadline_ms is not None:
                    within_s = sent.deadline_ms / 1000 - (time.monotonic() - began_s)
                costs = await gateway.answer(sent.about, picture, kind, within_s)
    except NoAnswer as error:
        refusal = problems.answer(error.status, error.code, str(error), error.hint)
        if error.retry_after_s is not None:
            refusal.headers["Retry-After"] = str(error.retry_after_s)
        return refusal
    told = FrameAnswer(state="answered", usd=costs.usd, billed_ms=costs.billed_ms)
    return JSONResponse(told.model_dump(), headers={"Cache-Control": "no-store"})


def _read_headers(request: Request, frame_id: str, shared: Shared) -> frame.Sent:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in PICTURE_TYPES:
        raise _wrong(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-type", f"Content-Type {kind[:60]!r} is not taken",
            f"send one of: {', '.join(PICTURE_TYPES)}",
        )  # fmt: skip
    try:
        return frame.read(request.headers, frame_id, shared.now())
    except Rejected as error:
        raise _wrong(HTTPStatus.BAD_REQUEST, error.code, str(error), error.hint) from error


async def _read_picture(request: Request, sent: frame.Sent) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            return b"".join([part async for part in bounded(request, MOST_PICTURE_BYTES)])
    except TimeoutError:
        hint = "try again when the link is better, or send a smaller picture"
        detail = f"the picture took longer than {BODY_S:g} s"
        raise _wrong(HTTPStatus.REQUEST_TIMEOUT, "body-timeout", detail, hint) from None
    except ApiProblem as error:
        raise _wrong(error.status, error.code, str(error), error.hint) from error
    except ClientDisconnect:
        detail, hint = f"the sender of {sent.about.id} hung up", "try again"
        raise _wrong(HTTPStatus.BAD_REQUEST, "body-incomplete", detail, hint) from None


def _judge(picture: bytes, sent: frame.Sent) -> str:
    """Look at a picture's digest and its header; gives its kind (``jpeg``, ...)."""
    unprocessable = HTTPStatus.UNPROCESSABLE_ENTITY
    if sent.sha256 is not None and hashlib.sha256(picture).hexdigest() != sent.sha256:
        detail, hint = "the body is not the one that X-Shelfwire-Sha256 speaks of", "send it again"
        raise _wrong(unprocessable, "bad-sha256", detail, hint)
    try:
        width, height, kind = picture_size(picture)
    except PictureError as error:
        unknown = error.code == "picture-not-a-picture"
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE if unknown else unprocessable
        raise _wrong(status, error.code, str(error), error.hint) from error
    if kind not in KINDS:
        hint = f"send one of: {', '.join(KINDS)}"
        raise _wrong(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "picture-kind", f"a {kind} file is not taken", hint)
    if width * height > MOST_PICTURE_PIXELS:
        most = f"at most {MOST_PICTURE_PIXELS // 1_000_000} million are taken"
        detail, hint = f"the picture has {width} x {height} pixels, {most}", "scale it down before it is sent"
        raise _wrong(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "picture-too-large", detail, hint)
    return kind


def _wrong(status: HTTPStatus, code: str, detail: str, hint: str) -> NoAnswer:
    return NoAnswer(status, "refused", code, detail, hint)
