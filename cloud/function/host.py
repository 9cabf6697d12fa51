"""The local function host: what AWS does around a function, on this machine and to its bill.

`POST /` is the function's URL; `POST /2015-03-31/functions/shelfwire/invocations` is Lambda's own Invoke, so that its
clients work too. `/meter`, `/metrics` and `/healthz` say how it goes.
"""

import asyncio
import base64
import json
import logging
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloud.function.body import read_body
from cloud.function.exchange import Reply, problem
from cloud.function.guard import Guard
from cloud.function.meter import BILLED_MS, USD, Meter, Report
from cloud.function.pool import Answered, Failed, Options, Pool, Throttled

log = logging.getLogger(__name__)

MOST_PAYLOAD_BYTES = 6 * 1024 * 1024
"""Lambda's limit on one event: base64 of the body, and what stands around it."""
BODY_S = 10.0
"""How long a sender may take for its body."""
IDLE_CONNECTION_S = 30
MOST_CONNECTIONS = 256
GRACE_S = 1
"""How long connections may last once the host stops."""
DRAIN_S = 0.6
"""How long calls under way may take then; less than `GRACE_S`, so that the others still get their answer."""
RETRY_AFTER_S = "1"
LOOK_EVERY_S = 0.1

_STATUS = {"timeout": HTTPStatus.GATEWAY_TIMEOUT}
"""Other failures are 502."""


class Host:
    """The pool behind its addresses; `app` is an ASGI application."""

    def __init__(self, options: Options) -> None:
        self.meter = Meter()
        self.pool = Pool(options, self.meter)
        routes = [
            Route("/", self._by_http, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
            Route("/2015-03-31/functions/{name}/invocations", self._invoke, methods=["POST"]),
            Route("/meter", self._meter),
            Route("/metrics", self._metrics),
            Route("/healthz", self._health),
        ]
        self.app = Guard(Starlette(routes=routes))

    async def _by_http(self, request: Request) -> Response:
        """A call of the function's URL."""
        body = await _body(request, MOST_PAYLOAD_BYTES * 3 // 4)
        if not isinstance(body, bytes):
            return _response(body)
        event = json.dumps(http_event(request, body)).encode()
        if len(event) > MOST_PAYLOAD_BYTES:
            return _response(_too_large())
        answer = await self._ask(event)
        if isinstance(answer, Reply):
            return _response(answer)
        return _response(_http_answer(answer), _costs(answer.report))

    async def _invoke(self, request: Request) -> Response:
        """A direct call; an error that the function raised is an answer here, as with Lambda."""
        if request.headers.get("x-amz-invocation-type", "RequestResponse") != "RequestResponse":
            hint = "leave X-Amz-Invocation-Type out"
            return _response(
                problem(HTTPStatus.BAD_REQUEST, "invocation-type", "only RequestResponse is done here", hint)
            )
        body = await _body(request, MOST_PAYLOAD_BYTES)
        if not isinstance(body, bytes):
            return _response(body)
        try:
            json.loads(body)
        except ValueError:
            return _response(problem(HTTPStatus.BAD_REQUEST, "bad-json", "the event is not JSON", "send JSON"))
        answer = await self._ask(body)
        if isinstance(answer, Failed) and answer.outcome == "error":
            return Response(answer.detail, media_type="application/json", headers={"X-Amz-Function-Error": "Unhandled"})
        if isinstance(answer, Answered):
            return Response(answer.body, media_type="application/json")
        return _response(answer if isinstance(answer, Reply) else _http_answer(answer))

    async def _ask(self, event: bytes) -> Answered | Failed | Reply:
        try:
            return await self.pool.invoke(event)
        except Throttled as error:
            busy = error.code == "function-busy"
            status = HTTPStatus.TOO_MANY_REQUESTS if busy else HTTPStatus.SERVICE_UNAVAILABLE
            return problem(status, error.code, str(error), error.hint, {"Retry-After": RETRY_AFTER_S})
        except Failed as error:
            return error

    async def _meter(self, _: Request) -> Response:
        return JSONResponse(self.meter.shown())

    async def _metrics(self, _: Request) -> Response:
        states = [worker.state for worker in self.pool.workers.values()]
        gauge = "# HELP shelfwire_function_workers Workers that live\n# TYPE shelfwire_function_workers gauge\n"
        text = self.meter.prometheus() + f"{gauge}shelfwire_function_workers {len(states)}\n".encode()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _health(self, _: Request) -> Response:
        workers = [
            {"number": worker.number, "state": worker.state, "pid": worker.process.pid if worker.process else None}
            for worker in self.pool.workers.values()
        ]
        told = {"status": "ok", "workers": len(workers), "concurrency": self.pool.options.concurrency}
        return JSONResponse({**told, "processes": workers})


async def _body(request: Request, limit_bytes: int) -> bytes | Reply:
    try:
        async with asyncio.timeout(BODY_S):
            body = await read_body(request.receive, limit_bytes)
    except TimeoutError:
        hint = "send it faster, or a smaller picture"
        return problem(HTTPStatus.REQUEST_TIMEOUT, "body-timeout", f"the body took longer than {BODY_S:g} s", hint)
    return _too_large() if body is None else body


def _too_large() -> Reply:
    detail = f"an event may have {MOST_PAYLOAD_BYTES} bytes, with the picture in base64"
    hint = "save the picture smaller or at a lower quality"
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "picture-too-large", detail, hint)


def http_event(request: Request, body: bytes) -> dict[str, object]:
    """Write a request as a function URL gives it to the function (payload format 2.0).

    https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads
    """
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    now = datetime.now(UTC)
    path, host = request.url.path, headers.get("host", "")
    http = {
        "method": request.method,
        "path": path,
        "protocol": f"HTTP/{request.scope.get('http_version', '1.1')}",
        "sourceIp": request.client.host if request.client else "",
        "userAgent": headers.get("user-agent", ""),
    }
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": request.url.query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "local",
            "domainName": host,
            "domainPrefix": "local",
            "http": http,
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def _costs(report: Report | None) -> dict[str, str]:
    """Say what a call cost, for a caller who keeps a budget. Real platforms say it in their logs only."""
    return {} if report is None else {BILLED_MS: str(report.billed_ms), USD: f"{report.usd:.12f}"}


def _http_answer(answer: Answered | Failed) -> Reply:
    """Turn what the function gave back into an answer by HTTP, as its URL does."""
    if isinstance(answer, Failed):
        status = _STATUS.get(answer.outcome, HTTPStatus.BAD_GATEWAY)
        said = _said(answer.detail)
        return problem(status, answer.code, f"{answer}{said}", answer.hint)
    try:
        given = json.loads(answer.body)
        body = base64.b64decode(given["body"]) if given.get("isBase64Encoded") else str(given["body"]).encode()
        return Reply(int(given["statusCode"]), body, {str(k): str(v) for k, v in given["headers"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        hint = "the entry must give statusCode, headers and body"
        return problem(HTTPStatus.BAD_GATEWAY, "function-reply", "the function's answer is no HTTP answer", hint)


def _said(detail: bytes) -> str:
    try:
        told = json.loads(detail)
        return f": {told['errorType']}: {told['errorMessage']}"[:300]
    except (ValueError, KeyError, TypeError):
        return ""


def _response(reply: Reply, more: Mapping[str, str] = MappingProxyType({})) -> Response:
    return Response(reply.body, reply.status, {**reply.headers, **more})


class _Server(uvicorn.Server):
    """uvicorn, but that signals stay with the caller."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def serve(
    options: Options, opened: socket.socket, *, on_ready: Callable[[], None], stop: Callable[[], bool]
) -> Mapping[str, object]:
    """Run a host on an open socket until `stop()` is true; it is asked ten times a second. Closes the socket.

    `on_ready` is called once, when requests are answered. Gives what the meter shows at the end; all workers have
    ended then.
    """
    return asyncio.run(_serve(options, opened, on_ready, stop))


async def _serve(
    options: Options, opened: socket.socket, on_ready: Callable[[], None], stop: Callable[[], bool]
) -> Mapping[str, object]:
    host = Host(options)
    config = uvicorn.Config(
        host.app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=MOST_CONNECTIONS,
        proxy_headers=False,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[opened]), name="function-host")
    ending: asyncio.Task[None] | None = None
    try:
        told = False
        while not running.done():
            if server.started and not told:
                on_ready()
                told = True
            if stop() and ending is None:
                server.should_exit = True
                ending = asyncio.create_task(host.pool.stop(DRAIN_S), name="function-pool-stop")
            await asyncio.wait((running,), timeout=LOOK_EVERY_S if told else LOOK_EVERY_S / 10)
    finally:
        server.should_exit = True
        await running
        await (host.pool.stop() if ending is None else ending)
    return host.meter.shown()
