"""The calls by which a device hands its night over: announce a shard, send it to a signed address, have it received."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from cloud.errors import CloudError, Rejected
from cloud.objects.folder import FolderObjects
from cloud.objects.keys import MOST_KEY, Grant
from cloud.shards.form import MOST_BYTES, BadShard, Declared
from cloud.shards.intake import Intake, NotThere, Received
from cloud.web import problems
from cloud.web.jobs_intake import refuse_foreign_pages
from cloud.web.peers import only_as_itself
from cloud.web.shapes import Shape
from wire.records import Digest, Name, Part

PIECE_BYTES = 1024 * 1024
"""What of a body is gathered before a thread writes it to the disk."""

STATUS = {
    "objects-missing": HTTPStatus.CONFLICT,
    "shard-missing": HTTPStatus.CONFLICT,
    "shard-unknown": HTTPStatus.NOT_FOUND,
    "signature-bad": HTTPStatus.FORBIDDEN,
    "signature-expired": HTTPStatus.FORBIDDEN,
    "object-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "objects-auth": HTTPStatus.SERVICE_UNAVAILABLE,
    "objects-bucket": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Statuses of what is refused; all else that the sender must change is 422, all that may pass is 503."""

router = APIRouter(tags=["shards"])
upload_router = APIRouter()


class Put(Shape):
    """Where to send the file, and with which headers. A `url` without a host is relative to this server."""

    url: str
    headers: dict[str, str]


class ShardState(Shape):
    """`received`: the cloud has it for good. `expected`: send it to `put` within `expires_in_s` seconds."""

    state: Literal["received", "expected"]
    put: Put | None = None
    expires_in_s: int | None = None


class Done(Part):
    """Who has sent the shard."""

    device: Name


def _intake(request: Request) -> Intake:
    intake = request.app.state.shards
    if not isinstance(intake, Intake):
        raise problems.ApiProblem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "objects-off",
            "this server has no place for objects",
            "start it with --objects DIR or --objects s3://bucket/prefix",
        )
    return intake


TakesShards = Annotated[Intake, Depends(_intake)]


@router.post(
    "/shards",
    response_model=ShardState,
    response_model_exclude_none=True,
    responses=problems.documented(HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY),
    dependencies=[Depends(refuse_foreign_pages)],
)
def announce(request: Request, intake: TakesShards, declared: Declared) -> ShardState:
    """Announce a shard: it is there already, or may be sent to a signed address.

    Announcing the same file again changes nothing. The address takes only this file, and only for a while.
    """
    only_as_itself(request, declared.device)
    try:
        state = intake.announce(declared)
    except CloudError as error:
        raise _problem(error) from error
    if isinstance(state, Received):
        return ShardState(state="received")
    put = Put(url=state.put.url, headers=dict(state.put.headers))
    return ShardState(state="expected", put=put, expires_in_s=state.put.expires_s)


@router.post(
    "/shards/{sha256}/done",
    response_model=ShardState,
    response_model_exclude_none=True,
    responses=problems.documented(
        HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY
    ),
    dependencies=[Depends(refuse_foreign_pages)],
)
def done(
    request: Request,
    intake: TakesShards,
    sha256: Annotated[Digest, Path(description="the file's digest, as announced")],
    by: Done,
) -> Response:
    """Have a shard received that was sent: size, digest, columns and every row are looked at first.

    200 is the receipt: from then on the device may delete its pictures. 409 says that the file is not there, 422 that
    it is not what was announced.
    """
    only_as_itself(request, by.device)
    try:
        intake.finish(sha256, by.device)
    except NotThere as error:
        answer = {"state": "expected", "code": error.code, "detail": str(error), "hint": error.hint, "status": 409}
        return JSONResponse(answer, HTTPStatus.CONFLICT, {"Cache-Control": "no-store"}, problems.MEDIA_TYPE)
    except CloudError as error:
        raise _problem(error) from error
    return JSONResponse({"state": "received"}, headers={"Cache-Control": "no-store"})


@upload_router.put("/v1/objects/{key:path}", include_in_schema=False, status_code=HTTPStatus.CREATED)
async def upload(
    intake: TakesShards,
    request: Request,
    key: Annotated[str, Path(max_length=MOST_KEY)],
    size: Annotated[int, Query(ge=0, le=MOST_BYTES)],
    sha256: Annotated[str, Query(pattern=r"^[0-9a-f]{64}$")],
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=64)],
) -> Response:
    """Take one object to an address that this server has signed; only where objects lie in a folder of its own."""
    objects = intake.objects
    if not isinstance(objects, FolderObjects):
        raise problems.not_found("no-such-page", "objects are not sent here", "use the address that was given")
    try:
        receiving = objects.receive(Grant(key, size, sha256, expires), signature)
        told = request.headers.get("content-length", "")
        if told.isdigit() and int(told) > size:
            raise Rejected(
                "object-too-large", f"the body has more than the {size} bytes signed", "send the file itself"
            )
        with receiving:
            gathered = bytearray()
            async for piece in request.stream():
                gathered += piece
                if len(gathered) >= PIECE_BYTES:
                    await run_in_threadpool(receiving.write, bytes(gathered))
                    gathered.clear()
            await run_in_threadpool(receiving.write, bytes(gathered))
            await run_in_threadpool(receiving.finish)
    except CloudError as error:
        raise _problem(error) from error
    return Response(status_code=HTTPStatus.CREATED)


def _problem(error: CloudError) -> problems.ApiProblem:
    """Say the error as a problem: what the sender must change is 4xx, what may pass by itself is 503."""
    usual = HTTPStatus.UNPROCESSABLE_ENTITY if isinstance(error, Rejected) else HTTPStatus.SERVICE_UNAVAILABLE
    status = HTTPStatus.UNPROCESSABLE_ENTITY if isinstance(error, BadShard) else STATUS.get(error.code, usual)
    return problems.ApiProblem(status, error.code, str(error), error.hint)
