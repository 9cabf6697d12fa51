"""The Jobs page, and the calls to submit a picture and to see what became of it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from cloud.errors import Rejected
from cloud.frame import About
from cloud.function.exchange import FRAME
from cloud.jobs.callback import Allowed
from cloud.jobs.rows import Cursor, JobRow, Jobs, NoticeRow
from cloud.web import jobs_shapes as shapes
from cloud.web import live, pages, problems, words
from cloud.web.api import JPEG, PageSize
from cloud.web.frame_headers import described
from cloud.web.jobs_intake import MOST_PICTURE_BYTES, MOST_PIXELS, read_submission, refuse_foreign_pages
from cloud.web.parts import Shared
from cloud.web.peers import only_as_itself
from cloud.web.shapes import Label, Model

RETRY_AFTER_S = "1"
"""When to look again: most pictures are classified within a second of their turn."""

_DOCUMENT = {
    "parameters": described(of_job=True),
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {
                        "picture": {"type": "string", "format": "binary"},
                        **{name: {"type": "string"} for name in ("callback", "email", "sender", "name")},
                    },
                }
            },
        },
    },
}
_ACCEPTED: dict[int | str, dict[str, object]] = {
    200: {"model": shapes.Job, "description": "The same picture with the same key as before; that job is over."},
    202: {
        "model": shapes.Job,
        "description": "Taken in, now or before with this key.",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "the job"},
            "Retry-After": {"schema": {"type": "integer"}, "description": "seconds until a look is worth it"},
        },
    },
}
_REFUSED = problems.documented(
    HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY,
)  # fmt: skip
_GONE = problems.documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)

page_router = APIRouter()
router = APIRouter(tags=["jobs"])
device_router = APIRouter()


def _jobs(request: Request) -> Jobs:
    jobs = request.app.state.jobs
    assert isinstance(jobs, Jobs)
    return jobs


def _allowed(request: Request) -> Allowed:
    allowed = request.app.state.allowed_callbacks
    assert isinstance(allowed, Allowed)
    return allowed


Store = Annotated[Jobs, Depends(_jobs)]
JobId = Annotated[UUID, Path(description="a job's id")]
OnlyState = Annotated[shapes.State | None, Query(description="only jobs in this state")]
Wish = Annotated[str | None, Query(max_length=500)]


@page_router.get("/jobs", response_class=HTMLResponse, include_in_schema=False)
async def jobs_page(shared: Shared) -> HTMLResponse:
    """The Jobs page."""
    limits = {"most_bytes": MOST_PICTURE_BYTES, "most_pixels": MOST_PIXELS}
    html = pages.render("jobs.html", version=shared.version, api=live.API, **limits)
    return HTMLResponse(html, headers={"Cache-Control": "no-cache"})


@router.post(
    "/jobs",
    status_code=HTTPStatus.ACCEPTED,
    response_model=shapes.Job,
    responses={**_ACCEPTED, **_REFUSED},
    openapi_extra=_DOCUMENT,
    dependencies=[Depends(refuse_foreign_pages)],
)
async def submit(
    request: Request,
    shared: Shared,
    store: Store,
    allowed: Annotated[Allowed, Depends(_allowed)],
    idempotency_key: Annotated[
        str | None, Header(description="made by the sender for this picture; sent again, it gives the same job")
    ] = None,
    callback: Wish = None,
    email: Wish = None,
    sender: Wish = None,
    name: Wish = None,
) -> Response:
    """Submit a picture: it is taken in at once and classified when its turn comes.

    `callback` is called by a signed webhook when the job is over, `email` gets a mail. They may stand in the address or
    in the form. A device that asks for a frame names it in `X-Shelfwire-Frame` and the headers that go with it; it
    gets the answer as a verdict.
    """
    wishes = {"callback": callback, "email": email, "sender": sender, "name": name}
    return await _submit(request, shared, store, allowed, wishes, idempotency_key)


async def _submit(
    request: Request, shared: Shared, store: Store, allowed: Allowed, wishes: Mapping[str, str | None],
    idempotency_key: str | None,
) -> Response:  # fmt: skip
    given = await read_submission(request, wishes, idempotency_key, allowed, shared.now())
    try:
        row, new = await run_in_threadpool(store.accept, given)
    except Rejected as error:
        raise problems.ApiProblem(HTTPStatus.UNPROCESSABLE_ENTITY, error.code, str(error), error.hint) from error
    job = _job(row, (), has_picture=False) if new else (await run_in_threadpool(_tell, store, [row]))[0]
    over = row.finished_at is not None
    headers = {"Location": f"{request.url.path}/{row.id}", "Cache-Control": "no-store"}
    if not over:
        headers["Retry-After"] = RETRY_AFTER_S
    return JSONResponse(job.model_dump(mode="json"), HTTPStatus.OK if over else HTTPStatus.ACCEPTED, headers)


@device_router.post("/jobs", dependencies=[Depends(refuse_foreign_pages)])
async def submit_as_device(
    request: Request, shared: Shared, store: Store, idempotency_key: Annotated[str | None, Header()] = None
) -> Response:
    """Submit a frame of the device that asks, and nothing else: nobody is called or mailed for a device."""
    device = request.headers.get(FRAME, "").partition("/")[0]
    only_as_itself(request, device)
    if not request.headers.get("content-type", "").startswith("image/"):
        detail, hint = "a device sends a frame as the picture itself", "send it with Content-Type: image/jpeg"
        raise problems.ApiProblem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "picture-content-type", detail, hint)
    return await _submit(
        request, shared, store, request.app.state.allowed_callbacks, {"sender": device}, idempotency_key
    )


@router.get("/jobs", responses=problems.documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY))
def jobs(
    store: Store,
    state: OnlyState = None,
    limit: PageSize = 50,
    cursor: Annotated[str | None, Query(max_length=400, description="`next` of the page before")] = None,
) -> shapes.JobList:
    """Jobs, the newest first, page by page. Pages do not shift when new jobs come."""
    rows = store.page(state, limit + 1, Cursor.decode(cursor) if cursor else None)
    page = rows[:limit]
    end = Cursor(page[-1].created_at, page[-1].id).encode() if len(rows) > limit else None
    return shapes.JobList(jobs=_tell(store, page), next=end)


@router.get("/jobs-summary", responses=problems.documented())
def summary(shared: Shared, store: Store) -> shapes.JobCounts:
    """How many jobs are in each state."""
    return shapes.JobCounts(now=shared.now(), **store.counts())


@router.get("/jobs/{job}", responses=_GONE)
def job(store: Store, response: Response, job: JobId) -> shapes.Job:
    """One job: its state, its result, and how its sender was told."""
    row = store.find(job)
    if row is None:
        raise problems.not_found("no-such-job", f"there is no job {job}", "finished jobs are deleted after a while")
    response.headers["Cache-Control"] = "no-store"
    if row.finished_at is None:
        response.headers["Retry-After"] = RETRY_AFTER_S
    return _tell(store, [row])[0]


@router.get("/jobs/{job}/picture.jpg", response_class=Response, responses={**JPEG, **_GONE})
def picture(store: Store, job: JobId) -> Response:
    """A job's picture, made small. It never changes."""
    found = store.thumbnail(job)
    if found is None:
        hint = "it is made when the picture is classified, and deleted some days after; see `picture_url` of the job"
        raise problems.not_found("no-such-picture", f"there is no picture of job {job}", hint)
    return Response(found, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})


def _tell(store: Jobs, rows: Sequence[JobRow]) -> list[shapes.Job]:
    """Write jobs as the API gives them."""
    if not rows:
        return []
    ids = [row.id for row in rows]
    notices, pictures = store.notices(ids), store.with_thumbnail(ids)
    return [_job(row, notices[row.id], row.id in pictures) for row in rows]


def _job(row: JobRow, notices: Sequence[NoticeRow], has_picture: bool) -> shapes.Job:
    own = {name: getattr(row, name) for name in JobRow.__dataclass_fields__ if name in shapes.Job.model_fields}
    own["sha256"] = row.sha256.hex()
    own["result"] = _result(row.result) if row.result else None
    own["frame"] = About.restored(row.about).id if row.about else None
    url = f"{live.API}/jobs/{row.id}"
    ended, began = row.finished_at, row.started_at
    return shapes.Job(
        **own,
        url=url,
        waited_ms=(began - row.created_at).total_seconds() * 1000 if began else None,
        took_ms=(ended - row.created_at).total_seconds() * 1000 if ended else None,
        model=Model(name=row.model_name, version=row.model_version or "") if row.model_name else None,
        error=_error(row),
        picture_url=f"{url}/picture.jpg" if has_picture else None,
        notices=[shapes.Notice.model_validate(notice) for notice in notices],
    )


def _error(row: JobRow) -> shapes.JobError | None:
    if row.error_code is None:
        return None
    return shapes.JobError(code=row.error_code, detail=row.error_detail or "", hint=row.error_hint or "")


def _result(stored: object) -> shapes.JobResult:
    assert isinstance(stored, dict)
    top = [Label(label=i["label"], title=words.title(i["label"]), score=i["score"]) for i in stored["top"]]
    return shapes.JobResult(**{**stored, "top": top}, title=words.title(stored["label"]))
