"""The report of the night's batch: the page with all days, one page per day, and the same for programs."""

from collections.abc import Mapping
from datetime import date, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from cloud.batch import text
from cloud.batch.pictures import Pictures
from cloud.batch.report import Report, Reports
from cloud.batch.rows import DayRow, Nights, ScoredRow
from cloud.batch.tally import Frame
from cloud.errors import CloudError
from cloud.objects import Objects
from cloud.store.read import Reader
from cloud.web import live, pages, problems, words
from cloud.web.api import JPEG
from cloud.web.parts import Shared
from cloud.web.shapes import Shape

WHYS = {
    "disagreement": ("They disagree", "device and batch were both sure; the surest first"),
    "close": ("Close calls", "the two best labels are close; the closest first"),
    "unreadable": ("Unreadable", "the picture could not be decoded"),
}
"""Why frames are worth a label, in the order of the page."""

SHOWN_IF_UNREADABLE = ("picture-truncated",)
"""Faults after which a browser still shows something."""

page_router = APIRouter()
router = APIRouter(tags=["batch"])


class Views:
    """What these pages read, over one store and one place for objects."""

    def __init__(self, reader: Reader, objects: Objects | None) -> None:
        self.nights = Nights(reader.pool)
        self.reports = None if objects is None else Reports(self.nights, objects)
        self.pictures = None if objects is None else Pictures(self.nights, objects)

    def report(self, day: date, model: str | None = None) -> Report:
        """A day's report. Raises what `Reports` raises."""
        if self.reports is None:
            raise _no_objects()
        return self.reports.report(day, model)

    def picture(self, day: date, shard: str, row: int) -> bytes:
        """A frame's picture; those of the same report and shard are made ready. Raises what `Pictures` raises."""
        if self.pictures is None:
            raise _no_objects()
        return self.pictures.picture(day, shard, row, lambda: self._shown(day, shard))

    def _shown(self, day: date, shard: str) -> list[int]:
        return [frame.row for frame in self.report(day).worth if frame.shard_sha256 == shard]


class BatchDay(Shape):
    """One day: what came in, and what models made of it, the newest work first."""

    day: date
    shards: int
    expected: int
    bad: int
    frames: int
    bytes: int
    devices: int
    scored: list["Scored"]


class Scored(Shape):
    """What one model made of a day."""

    model_name: str
    model_digest: str
    shards: int
    frames: int
    answered: int
    unreadable: int


def _views(request: Request) -> Views:
    views = request.app.state.batch
    assert isinstance(views, Views)
    return views


Batch = Annotated[Views, Depends(_views)]
Day = Annotated[date, Path(description="a day, as 2026-03-01")]
Model = Annotated[
    str | None, Query(max_length=64, description="begin of a model's digest; without it the one that scored last")
]
_GONE = problems.documented(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)


@page_router.get("/batch", response_class=HTMLResponse, include_in_schema=False)
def days_page(shared: Shared, views: Batch) -> HTMLResponse:
    """The days that came in."""
    return _page("days.html", {"version": shared.version, "days": _days(views), "sizes": _size, "long_day": long_day})


@page_router.get("/batch/{day}", response_class=HTMLResponse, include_in_schema=False)
def report_page(request: Request, shared: Shared, views: Batch, day: str, model: Model = None) -> HTMLResponse:
    """One day. What is no day, or one of which nothing came, is a missing page."""
    try:
        named = date.fromisoformat(day)
        found = views.nights.day(named)
    except (ValueError, OverflowError):
        found = None
    if found is None:
        return pages.not_found_page(request)
    given: dict[str, object] = {"version": shared.version, "day": found, "long_day": long_day, "whys": WHYS}
    given |= {"earlier": _beside(views, named, -1), "later": _beside(views, named, 1)}
    try:
        made = views.report(named, model)
    except CloudError as error:
        if error.code == "no-such-model":
            return pages.not_found_page(request)
        return _page("report.html", {**given, "report": None, "trouble": error}, HTTPStatus.SERVICE_UNAVAILABLE)
    helpers: dict[str, object] = {
        "percent": text.percent, "points": text.points, "title": words.title, "picture": _address, "shown": _shown,
    }  # fmt: skip
    return _page("report.html", {**given, **helpers, "report": made, "trouble": None})


@router.get("/batch", response_model=list[BatchDay], responses=problems.documented())
def days(views: Batch) -> list[dict[str, object]]:
    """Days with shards, the newest first, at most 60."""
    return [{**_plain(row), "scored": scored} for row, scored in _days(views)]


@router.get("/batch/{day}", responses=_GONE)
def report(views: Batch, day: Day, model: Model = None) -> Report:
    """What the batch made of a day: agreement by camera and class, the day before, the frames most worth a label."""
    try:
        return views.report(day, model)
    except CloudError as error:
        raise _missing(error) from error


@router.get("/batch/{day}/pictures/{shard}/{row}.jpg", response_class=Response, responses={**JPEG, **_GONE})
def picture(
    views: Batch,
    day: Day,
    shard: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="a shard's SHA-256")],
    row: Annotated[int, Path(ge=0, lt=1_000_000, description="the frame's row in it, from 0")],
) -> Response:
    """A frame's picture as the device has sent it. It never changes."""
    try:
        found = views.picture(day, shard, row)
    except CloudError as error:
        raise _missing(error) from error
    return Response(found, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})


def long_day(day: date) -> str:
    """A day as people write it: Sunday 1 March 2026."""
    return f"{day:%A} {day.day} {day:%B %Y}"


def _page(template: str, given: Mapping[str, object], status: int = HTTPStatus.OK) -> HTMLResponse:
    return HTMLResponse(pages.render(template, api=live.API, **given), status, {"Cache-Control": "no-cache"})


def _days(views: Views) -> list[tuple[DayRow, list[ScoredRow]]]:
    found = views.nights.days()
    scored = views.nights.scored([row.day for row in found])
    return [(row, [one for one in scored if one.day == row.day]) for row in found]


def _beside(views: Views, day: date, step: int) -> date | None:
    """The day beside this one, when something came for it."""
    try:
        other = day + timedelta(days=step)
    except OverflowError:
        return None
    return other if views.nights.day(other) is not None else None


def _address(day: date, frame: Frame) -> str:
    return f"{live.API}/batch/{day}/pictures/{frame.shard_sha256}/{frame.row}.jpg"


def _shown(frame: Frame) -> bool:
    return frame.error is None or frame.error.startswith(SHOWN_IF_UNREADABLE)


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _plain(row: DayRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in DayRow.__dataclass_fields__}


def _missing(error: CloudError) -> Exception:
    """What is not there is 404; all else is answered as every error of ours is."""
    if error.code in ("no-such-day", "no-such-model", "no-such-picture", "objects-missing"):
        return problems.not_found(error.code, str(error), error.hint)
    return error


def _no_objects() -> CloudError:
    return CloudError("objects-none", "this server was started without a place for objects", "name one: --objects")
