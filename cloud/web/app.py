"""The web application: pages, API and stream over one store."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from cloud.gateway import Function, Gateway
from cloud.jobs.callback import Allowed
from cloud.jobs.rows import Jobs
from cloud.objects import Objects
from cloud.repository.folder import RepositoryFolder
from cloud.repository.resigning import RepositoryMetrics
from cloud.rollout.rows import Rollouts
from cloud.shards.intake import Intake
from cloud.store.modes import ModesReader
from cloud.store.read import Reader
from cloud.web import api, fleet, frames, jobs, live, modes, pages, problems, report, repository, shapes, shards, stream
from cloud.web.guard import Guard
from cloud.web.hub import Hub
from cloud.web.metrics import Fleet
from cloud.web.parts import Parts

_ABOUT = """\
What the pages show, for programs; frames and asynchronous jobs: pictures in, answers out. Times are RFC 3339 in UTC;
every error is a problem document (RFC 9457) with a `code` to compare and a `hint` that names the cure. A record's id
is `device/run/seq`.
"""


def wall_clock() -> datetime:
    """The time of day, aware."""
    return datetime.now(UTC)


def create_app(
    reader: Reader,
    *,
    hub: Hub,
    pages_version: str,
    now: Callable[[], datetime] = wall_clock,
    objects: Objects | None = None,
    function: Function | None = None,
    models: RepositoryFolder | None = None,
) -> FastAPI:
    """Make the application. It starts and stops the hub with itself; `now` is the server's clock.

    Without a place for `objects` it takes no shards. `function` answers the frames that devices ask about at once;
    `models` is the repository that devices update from.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await hub.start()
        try:
            yield
        finally:
            gateway.close()
            await hub.stop()

    app = FastAPI(
        title="Shelfwire cloud",
        version=version("shelfwire"),
        description=_ABOUT,
        lifespan=lifespan,
        openapi_url=problems.OPENAPI,
        docs_url=None,  # its pages come from another host
        redoc_url=None,
    )
    registry = CollectorRegistry()
    registry.register(Fleet(reader, hub, now))
    if models is not None:
        registry.register(RepositoryMetrics(models))
    gateway = Gateway(reader.pool, function, registry, now=now)
    app.state.gateway = gateway
    app.state.parts = Parts(reader, hub, now, registry, pages_version)
    app.state.jobs = Jobs(reader.pool)
    app.state.modes = modes.Overview(ModesReader(reader.pool), now)
    app.state.allowed_callbacks = Allowed.from_environment()
    app.state.shards = None if objects is None else Intake(reader.pool, objects, now)
    app.state.repository = models
    app.state.rollouts = Rollouts(reader.pool)
    app.state.batch = report.Views(reader, objects)
    problems.install(app, pages.not_found_page)
    app.include_router(api.router)
    app.include_router(stream.router)
    app.include_router(frames.router, prefix=live.API)
    app.include_router(frames.router, prefix="/v1", include_in_schema=False)
    app.include_router(jobs.router, prefix=live.API)
    app.include_router(jobs.router, prefix="/v1", include_in_schema=False)
    app.include_router(jobs.page_router)
    app.include_router(shards.router, prefix=live.API)
    app.include_router(shards.router, prefix="/v1", include_in_schema=False)
    app.include_router(shards.upload_router)
    app.include_router(modes.router)
    app.include_router(repository.router, prefix=live.API)
    app.include_router(repository.files_router)
    app.include_router(fleet.router, prefix=live.API)
    app.include_router(fleet.page_router)
    app.include_router(report.router, prefix=live.API)
    app.include_router(report.page_router)
    app.include_router(pages.router)
    app.mount("/assets", pages.Assets(directory=pages.ASSETS), name="assets")
    app.add_middleware(Guard)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Add to the OpenAPI document what no call returns as its body: problems and the events of the stream."""
    made = app.openapi

    def openapi() -> dict[str, object]:
        document = made()
        schemas = document["components"]["schemas"]
        for shape in (shapes.Problem, shapes.Live, shapes.Update):
            own = shape.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
            schemas.update(own.pop("$defs", {}))
            schemas[shape.__name__] = own
        return document

    app.openapi = openapi  # type: ignore[method-assign]
