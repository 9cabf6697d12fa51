"""The JSON API under /api/v1: what the pages show, for programs. Reading only; nothing here changes anything."""

import hashlib
from collections import defaultdict
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from cloud.store.read import (
    CountRow,
    Cursor,
    FrameAnswerRow,
    Jpeg,
    QuarantineRow,
    ResultFilter,
    ResultRow,
    VerdictFilter,
    VerdictRow,
)
from cloud.web import live, problems, shapes, words
from cloud.web.parts import Shared
from wire import bounds

DeviceName = Annotated[str, Path(pattern=bounds.NAME, description="a device's id")]
CameraName = Annotated[str, Path(pattern=bounds.NAME, description="a camera's name on its device")]
RunName = Annotated[str, Path(pattern=bounds.RUN, description="the device's process that made the record")]
FrameNumber = Annotated[int, Path(ge=1, le=bounds.SEQ_MAX, description="the camera's own number of the frame")]
SeqNumber = Annotated[int, Path(ge=1, le=bounds.SEQ_MAX, description="its number in that process")]
OnlyDevice = Annotated[str | None, Query(pattern=bounds.NAME, description="only of this device")]
OnlyCamera = Annotated[str | None, Query(pattern=bounds.NAME, description="only of this camera")]
OnlyLabel = Annotated[
    str | None, Query(min_length=1, max_length=64, pattern=r"^[^\x00]*$", description="only this decision, as sent")
]
Since = Annotated[AwareDatetime | None, Query(description="captured at this moment or later; RFC 3339 with an offset")]
OnlyMode = Annotated[
    Literal["serverless", "asynchronous", "batch"] | None, Query(description="only answers that came this way")
]
After = Annotated[str | None, Query(max_length=400, description="`next` of the page before")]
PageSize = Annotated[int, Query(ge=1, le=1000, description="rows per page")]

BAD = problems.documented(HTTPStatus.UNPROCESSABLE_ENTITY)
GONE = problems.documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
JPEG: dict[int | str, dict[str, object]] = {
    200: {"description": "The picture.", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "The picture is the one that the caller has (If-None-Match)."},
}

router = APIRouter(prefix=live.API)


@router.get("/cameras", tags=["live"], responses=problems.documented())
def cameras(shared: Shared) -> shapes.Cameras:
    """Every camera: its newest answer and picture, and what is wrong with it."""
    now = shared.now()
    return shapes.Cameras(now=now, cameras=live.cameras(live.read_rows(shared.reader), now))


@router.get(
    "/cameras/{device}/{camera}/picture.jpg", tags=["live"], response_class=Response, responses={**JPEG, **GONE}
)
def picture(shared: Shared, request: Request, device: DeviceName, camera: CameraName) -> Response:
    """A camera's newest picture. Never cached; `If-None-Match` with its ETag saves sending the same one twice."""
    found = shared.reader.picture(device, camera)
    if found is None:
        hint = "pictures come only while the device is online and its camera streams; /api/v1/cameras lists all cameras"
        raise problems.not_found("no-such-picture", f"there is no picture of {camera} on {device}", hint)
    return _jpeg(request, found, "no-store")


@router.get("/alerts", tags=["live"], responses=problems.documented())
def alerts(shared: Shared) -> shapes.Alerts:
    """The alerts that stand, and those that ended within the last day."""
    stores = {row.device: row.store for row in shared.reader.devices()}
    return live.read_alerts(shared.reader, stores, shared.now())


@router.get(
    "/alerts/{device}/{run}/{seq}/thumbnail.jpg",
    tags=["live"],
    response_class=Response,
    responses={**JPEG, **GONE},
)
def thumbnail(shared: Shared, request: Request, device: DeviceName, run: RunName, seq: SeqNumber) -> Response:
    """The picture that came with an alert. It never changes."""
    found = shared.reader.thumbnail(device, run, seq)
    if found is None:
        hint = "take `thumbnail_url` from /api/v1/alerts; it is null where the device's privacy settings send none"
        raise problems.not_found("no-such-thumbnail", f"alert {device}/{run}/{seq} has no picture here", hint)
    return _jpeg(request, found, "private, max-age=86400, immutable")


@router.get("/devices", tags=["live"], responses=problems.documented())
def devices(shared: Shared) -> shapes.Devices:
    """Every device: whether it is there, and how it does."""
    now = shared.now()
    answered = live.read_answered(shared.reader, now)
    rows = live.Rows(shared.reader.devices(), shared.reader.answers(), (), answered=answered)
    return shapes.Devices(now=now, devices=live.devices(rows, now))


@router.get("/results", tags=["store"], responses=BAD | problems.documented(HTTPStatus.BAD_REQUEST))
def results(
    shared: Shared,
    device: OnlyDevice = None,
    camera: OnlyCamera = None,
    label: OnlyLabel = None,
    since: Since = None,
    limit: PageSize = 100,
    cursor: After = None,
) -> shapes.Results:
    """Results, the newest first, page by page. Pages do not shift when new results come."""
    after = Cursor.decode(cursor) if cursor else None
    rows = shared.reader.results(ResultFilter(device, camera, label, since), limit + 1, after)
    page = rows[:limit]
    more = len(rows) > limit
    end = Cursor(page[-1].captured_at, page[-1].device, page[-1].run, page[-1].seq).encode() if more else None
    return shapes.Results(results=[_result(row) for row in page], next=end)


@router.get("/verdicts", tags=["store"], responses=BAD | problems.documented(HTTPStatus.BAD_REQUEST))
def verdicts(
    shared: Shared,
    device: OnlyDevice = None,
    camera: OnlyCamera = None,
    mode: OnlyMode = None,
    limit: PageSize = 100,
    cursor: After = None,
) -> shapes.Verdicts:
    """Late answers, the newest in the store first, page by page. Pages do not shift when new ones come."""
    after = Cursor.decode(cursor) if cursor else None
    rows = shared.reader.verdicts(VerdictFilter(device, camera, mode), limit + 1, after)
    page = rows[:limit]
    more = len(rows) > limit
    end = Cursor(page[-1].committed_at, page[-1].device, page[-1].run, page[-1].seq).encode() if more else None
    return shapes.Verdicts(verdicts=[_verdict(row) for row in page], next=end)


@router.get("/frames/{device}/{run}/{seq}/answers", tags=["store"], responses=GONE)
def frame_answers(shared: Shared, device: DeviceName, run: RunName, seq: SeqNumber) -> shapes.FrameAnswers:
    """All answers of the picture that a record speaks of, the best first: the device's own and every late one."""
    return _answers(shared.reader.frame_answers(device, run, seq), f"{device}/{run}/{seq}")


@router.get("/frames/{device}/{run}/{camera}/{frame}/answers", tags=["store"], responses=GONE)
def picture_answers(
    shared: Shared, device: DeviceName, run: RunName, camera: CameraName, frame: FrameNumber
) -> shapes.FrameAnswers:
    """The same for a camera's numbered frame. One without a late answer is found among the camera's newest 20,000."""
    found = shared.reader.picture_answers(device, run, camera, frame)
    return _answers(found, f"frame {frame} of {camera} on {device} in run {run}")


@router.get("/summary", tags=["store"], responses=BAD)
def summary(
    shared: Shared,
    window_s: Annotated[int, Query(ge=1, le=86_400, description="latency over answers of the last seconds")] = 300,
    same_clock: Annotated[
        bool, Query(description="devices and server share one clock (one machine): measure from what the device's said")
    ] = False,
) -> shapes.Summary:
    """Counts per device and in all, and how long the recent answers took."""
    now = shared.now()
    rows = [*shared.reader.stored(), *shared.reader.tallies()]
    counts = _counts(rows)
    took = shared.reader.latency(now - timedelta(seconds=window_s), same_clock=same_clock)
    return shapes.Summary(
        now=now,
        total=shapes.Counts(**{name: sum(of[name] for of in counts.values()) for name in _COUNTED}),
        answers=_by_mode(rows),
        devices=[shapes.DeviceCounts(device=device, **of) for device, of in sorted(counts.items()) if device],
        latency=shapes.Latency(
            window_s=window_s,
            capture_to_answer_ms=shapes.Percentiles.model_validate(took.answer),
            capture_to_cloud_ms=shapes.Percentiles.model_validate(took.cloud),
            cloud_measured_to="commit" if took.commit_from == "commit" else "reception",
        ),
    )


@router.get("/quarantine", tags=["store"], responses=BAD)
def quarantine(
    shared: Shared,
    device: OnlyDevice = None,
    limit: PageSize = 100,
    before: Annotated[int | None, Query(ge=1, le=bounds.SEQ_MAX, description="`next` of the page before")] = None,
) -> shapes.Quarantine:
    """Messages and records that were refused, and why; the newest first."""
    rows = shared.reader.quarantine(device, limit + 1, before)
    page = rows[:limit]
    return shapes.Quarantine(refused=[_refused(row) for row in page], next=page[-1].id if len(rows) > limit else None)


_COUNTED = tuple(shapes.Counts.model_fields)


def _counts(rows: list[CountRow]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_COUNTED, 0))
    for row in rows:
        if row.name in _COUNTED:
            found[row.device][row.name] = row.n
    return found


def _by_mode(rows: list[CountRow]) -> dict[words.Mode, int]:
    found: dict[words.Mode, int] = dict.fromkeys(words.MODES, 0)
    for row in rows:
        if (name := "real-time" if row.name == "results" else row.name.removeprefix("verdicts-")) in found:
            found[words.mode(name)] += row.n
    return found


def _result(row: ResultRow) -> shapes.Result:
    own = {name: getattr(row, name) for name in ResultRow.__dataclass_fields__}
    own["labels"] = [live.label(item) for item in row.labels]
    return shapes.Result(**own, title=words.title(row.label))


def _verdict(row: VerdictRow) -> shapes.Verdict:
    own = {name: getattr(row, name) for name in VerdictRow.__dataclass_fields__}
    own["labels"] = [live.label(item) for item in row.labels]
    own["stored_at"] = own.pop("committed_at")
    late_ms = live.late_ms(row.captured_at, row.committed_at)
    return shapes.Verdict(**own, title=words.title(row.label), late_ms=late_ms)


def _answers(rows: list[FrameAnswerRow], what: str) -> shapes.FrameAnswers:
    if not rows:
        hint = "take device, run and seq from /api/v1/results or /api/v1/verdicts"
        raise problems.not_found("no-such-frame", f"there is no answer of {what}", hint)
    best = rows[0]
    answers = [_answer(row) for row in rows]
    return shapes.FrameAnswers(device=best.device, run=best.run, camera=best.camera, frame=best.frame, answers=answers)


def _answer(row: FrameAnswerRow) -> shapes.FrameAnswer:
    own = {name: getattr(row, name) for name in FrameAnswerRow.__dataclass_fields__}
    own["labels"] = [live.label(item) for item in row.labels]
    late_ms = live.late_ms(row.captured_at, row.stored_at)
    return shapes.FrameAnswer(**own, title=words.title(row.label), late_ms=late_ms)


def _refused(row: QuarantineRow) -> shapes.Refused:
    own = {name: getattr(row, name) for name in QuarantineRow.__dataclass_fields__}
    own["payload_start"] = row.payload_start.decode("utf-8", "backslashreplace")
    return shapes.Refused(**own)


def _jpeg(request: Request, found: Jpeg, cache: str) -> Response:
    tag = f'"{hashlib.sha256(found.jpeg).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": cache}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    headers["X-Frame-Number"] = str(found.frame)
    return Response(found.jpeg, media_type="image/jpeg", headers=headers)
