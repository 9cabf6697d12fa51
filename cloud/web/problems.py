"""Errors of the API in the form of RFC 9457 (application/problem+json), each with the cure."""

import logging
from collections.abc import Callable
from http import HTTPStatus

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from cloud.errors import CloudError
from cloud.web import shapes

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = "2"

OPENAPI = "/api/v1/openapi.json"


class ApiProblem(Exception):
    """An error to answer with: `status` is the HTTP status, `code` short and stable, `hint` the cure."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.hint = hint


def not_found(code: str, detail: str, hint: str) -> ApiProblem:
    """Make the problem for a thing that is not there."""
    return ApiProblem(HTTPStatus.NOT_FOUND, code, detail, hint)


def answer(status: int, code: str, detail: str, hint: str, errors: list[dict[str, str]] | None = None) -> JSONResponse:
    """Write a problem."""
    problem = shapes.Problem(
        type="about:blank", title=HTTPStatus(status).phrase, status=status, code=code, detail=detail, hint=hint,
        errors=errors,
    )  # fmt: skip
    headers = {"Cache-Control": "no-store"}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = RETRY_AFTER_S
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["Connection"] = "close"  # else the rest of it would still be read
    return JSONResponse(problem.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, object]]:
    """Describe these errors for the OpenAPI document; every call may also find the database away."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    listed = (*statuses, HTTPStatus.SERVICE_UNAVAILABLE)
    return {int(status): {"description": status.phrase, "content": content} for status in listed}


def install(app: FastAPI, page_for_people: Callable[[Request], Response]) -> None:
    """Answer every error of the app with a problem; a browser that asks for a missing page gets one to read."""

    @app.exception_handler(ApiProblem)
    def _ours(_: Request, error: ApiProblem) -> Response:
        return answer(error.status, error.code, str(error), error.hint)

    @app.exception_handler(CloudError)
    def _cloud(_: Request, error: CloudError) -> Response:
        status = HTTPStatus.BAD_REQUEST if error.exit_code == 2 else HTTPStatus.SERVICE_UNAVAILABLE
        return answer(status, error.code, str(error), error.hint)

    @app.exception_handler(RequestValidationError)
    def _invalid(_: Request, error: RequestValidationError) -> Response:
        errors = [{"where": ".".join(str(part) for part in e["loc"]), "what": str(e["msg"])} for e in error.errors()]
        detail = "; ".join(f"{e['where']}: {e['what']}" for e in errors)[:500]
        hint = f"see {OPENAPI} for what each parameter may be"
        return answer(HTTPStatus.UNPROCESSABLE_ENTITY, "bad-parameter", detail, hint, errors)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.NOT_FOUND and "text/html" in request.headers.get("accept", ""):
            return page_for_people(request)
        code = {404: "no-such-page", 405: "method-not-allowed"}.get(error.status_code, "refused")
        detail = f"{request.method} {request.url.path[:200]}: {error.detail}"
        response = answer(error.status_code, code, detail, f"the pages start at /, the API is described by {OPENAPI}")
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(psycopg.errors.QueryCanceled)
    def _slow(_: Request, __: psycopg.Error) -> Response:
        hint = "ask for less: name a device and a camera, or a later `since`"
        return answer(
            HTTPStatus.SERVICE_UNAVAILABLE, "query-too-slow", "the search took too long and was stopped", hint
        )

    @app.exception_handler(psycopg.OperationalError)
    @app.exception_handler(PoolTimeout)
    def _away(_: Request, error: Exception) -> Response:
        log.warning("the database is away: %s", " ".join(str(error).split()))
        hint = "try again shortly; if this stays, start PostgreSQL or see the server's log"
        return answer(HTTPStatus.SERVICE_UNAVAILABLE, "database-away", "the server cannot reach its database", hint)

    @app.exception_handler(Exception)
    def _bug(request: Request, error: Exception) -> Response:
        log.error("a bug while answering %s", request.url.path[:200], exc_info=error)
        hint = "report it with the server's log; this call may work again later"
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "the server made a mistake", hint)
