"""The application on the port for devices: enrolment, renewal, and the calls by which they hand pictures over."""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import TypeVar

from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from cloud.fleet.registry import Fleet, Refused
from cloud.repository.folder import RepositoryFolder
from cloud.web import frames, jobs, problems, repository, shards
from cloud.web.peers import PeerGuard, peer_of
from wire import enrolment, strict
from wire.errors import WireError

MOST_BODY_BYTES = 16 * 1024
CALLS_PER_S = 2.0
CALLS_BURST = 30.0
"""Of all strangers together: an installer of a whole shop is not held up, and codes cannot be walked through."""

Said = TypeVar("Said", bound=BaseModel)

NO_STORE = {"Cache-Control": "no-store"}

router = APIRouter(include_in_schema=False)


class Pace:
    """Lets `per_s` calls through, `burst` of them at once. Thread safe."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = self._left = burst
        self._clock = clock
        self._at_s = clock()
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Count a call, if it may pass."""
        with self._lock:
            now_s = self._clock()
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s
            if self._left < 1:
                return False
            self._left -= 1
            return True


def create_device_app(pages: FastAPI, fleet: Fleet, now: Callable[[], datetime]) -> FastAPI:
    """Make the application for devices, over the store, gateway and objects of the `pages`' application."""
    app = FastAPI(title="Shelfwire devices", openapi_url=None, docs_url=None, redoc_url=None)
    for name in ("gateway", "parts", "jobs", "allowed_callbacks", "shards", "repository"):
        setattr(app.state, name, getattr(pages.state, name))
    app.state.fleet = fleet
    app.state.now = now
    app.state.paces = {name: Pace(CALLS_PER_S, CALLS_BURST) for name in (enrolment.HELLO, enrolment.ENROL)}
    problems.install(app, _no_pages)
    app.include_router(router)
    app.include_router(frames.router, prefix="/v1")
    app.include_router(jobs.device_router, prefix="/v1")
    app.include_router(shards.router, prefix="/v1")
    app.include_router(shards.upload_router)
    app.include_router(repository.files_router)
    app.add_middleware(PeerGuard, fleet=fleet)

    @app.exception_handler(Refused)
    def _refused(_: Request, error: Refused) -> Response:
        return problems.answer(error.status, error.code, str(error), error.hint)

    return app


def _no_pages(_: Request) -> Response:
    hint = "the pages are served on the loopback address of the server's machine"
    return problems.answer(HTTPStatus.NOT_FOUND, "no-such-page", "this port is for devices", hint)


@router.get("/healthz")
def healthz() -> Response:
    """Say that the port answers; the pages' /healthz says more."""
    return JSONResponse({"ok": True}, headers=NO_STORE)


@router.post(enrolment.HELLO)
async def hello(request: Request) -> Response:
    """Answer to a code's public part: for whom it is, whom to trust, and the proof that this server knows the code."""
    _keep_pace(request, enrolment.HELLO)
    said = await _read(request, enrolment.Hello)
    return _written(await run_in_threadpool(request.app.state.fleet.welcome, said))


@router.post(enrolment.ENROL)
async def enrol(request: Request) -> Response:
    """Use a code: certify the device's key. The answer has the root of trust for models with it."""
    _keep_pace(request, enrolment.ENROL)
    asked = await _read(request, enrolment.Enrol)
    answer = await run_in_threadpool(request.app.state.fleet.enrol, asked)
    models = request.app.state.repository
    root = await run_in_threadpool(models.root_of_trust) if isinstance(models, RepositoryFolder) else ""
    return _written(answer.model_copy(update={"root": root}))


@router.get(enrolment.DEVICE)
def device(request: Request) -> Response:
    """Tell a device who it is taken for. Its first call ends the certificates of earlier enrolments."""
    peer = peer_of(request)
    return _written(
        enrolment.Known(
            v=1, device=peer.device, store=peer.store, serial=peer.serial, not_after=peer.not_after,
            now=request.app.state.now(),
        )
    )  # fmt: skip


@router.post(enrolment.RENEW)
async def renew(request: Request) -> Response:
    """Certify a new key of the device that asks with its present certificate."""
    asked = await _read(request, enrolment.Renew)
    return _written(await run_in_threadpool(request.app.state.fleet.renew, peer_of(request), asked.csr))


def _keep_pace(request: Request, name: str) -> None:
    if not request.app.state.paces[name].allows():
        detail, hint = "too many devices ask at once", "try again in a minute"
        raise problems.ApiProblem(HTTPStatus.TOO_MANY_REQUESTS, "enrolment-busy", detail, hint)


async def _read(request: Request, kind: type[Said]) -> Said:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY_BYTES:
            detail, hint = f"more than {MOST_BODY_BYTES} bytes", "update the agent"
            raise problems.ApiProblem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail, hint)
    try:
        return kind.model_validate(strict.loads(bytes(body), MOST_BODY_BYTES))
    except (WireError, ValidationError) as error:
        # What was sent may hold the secret, so it is not repeated.
        raise problems.ApiProblem(
            HTTPStatus.BAD_REQUEST,
            "bad-request",
            f"this is no {kind.__name__.lower()} of enrolment",
            "update the agent",
        ) from error


def _written(answer: BaseModel) -> Response:
    return JSONResponse(answer.model_dump(mode="json"), headers=NO_STORE)
