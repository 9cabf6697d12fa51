"""The pages and their files, health and metrics. Everything comes from the package."""

import hashlib
from http import HTTPStatus
from pathlib import Path

import psycopg
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from prometheus_client import CONTENT_TYPE_LATEST
from psycopg_pool import PoolTimeout
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from cloud.web import live, metrics, shapes
from cloud.web.parts import Parts, Shared

_HERE = Path(__file__).parent
ASSETS = _HERE / "assets"

router = APIRouter()
_pages = Environment(
    loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def _with_code(text: str) -> Markup:
    """Write what stands in backquotes as code; all else is escaped."""
    parts = text.split("`")
    return Markup().join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


_pages.filters["with_code"] = _with_code


def render(template: str, **values: object) -> str:
    """Fill in a page's template."""
    return _pages.get_template(template).render(**values)


def version_of_pages(release: str) -> str:
    """Name the version of the pages by what they are made of, so that an open page knows when it is outdated."""
    digest = hashlib.sha256(release.encode())
    for path in sorted([*ASSETS.iterdir(), *(_HERE / "templates").iterdir()]):
        digest.update(path.name.encode() + path.read_bytes())
    return f"{release}+{digest.hexdigest()[:10]}"


class Assets(StaticFiles):
    """The package's files. A browser asks each time whether they changed, and is mostly told that they have not."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Serve one file."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def live_page(shared: Shared) -> HTMLResponse:
    """The Live page."""
    html = _pages.get_template("live.html").render(version=shared.version, api=live.API)
    return HTMLResponse(html, headers={"Cache-Control": "no-cache"})


@router.get("/favicon.ico", include_in_schema=False)
async def favicon() -> Response:
    """Browsers ask for this name whatever the page says."""
    return Response((ASSETS / "icon.svg").read_bytes(), media_type="image/svg+xml")


@router.get(
    "/healthz",
    tags=["server"],
    response_model=shapes.Health,
    responses={503: {"model": shapes.Health, "description": "Cannot do its work."}},
)
@router.get(f"{live.API}/healthz", include_in_schema=False)
async def healthz(shared: Shared) -> Response:
    """Whether this server can do its work: 200 or 503, with the same body."""
    alive = await run_in_threadpool(_database_answers, shared)
    health = shapes.Health(
        status="ok" if alive else "ill",
        database="ok" if alive else "away",
        stream="listening" if shared.hub.listening else "waiting",
        viewers=shared.hub.viewers,
        version=shared.version,
        now=shared.now(),
    )
    status = HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(health.model_dump(mode="json"), status, {"Cache-Control": "no-store"})


@router.get("/metrics", tags=["server"], response_class=Response)
@router.get(f"{live.API}/metrics", include_in_schema=False)
def prometheus(shared: Shared) -> Response:
    """Metrics of this process and of the fleet, for Prometheus."""
    return Response(metrics.scrape(shared.metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(f"{live.API}/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The API for people, made of its OpenAPI document."""
    html = _pages.get_template("docs.html").render(document=request.app.openapi(), api=live.API)
    return HTMLResponse(html, headers={"Cache-Control": "no-cache"})


def not_found_page(request: Request) -> HTMLResponse:
    """Tell a person that there is no such page."""
    html = _pages.get_template("missing.html").render(path=request.url.path[:200])
    return HTMLResponse(html, HTTPStatus.NOT_FOUND, {"Cache-Control": "no-store"})


def _database_answers(shared: Parts) -> bool:
    try:
        return shared.reader.alive()
    except (psycopg.Error, PoolTimeout):
        return False
