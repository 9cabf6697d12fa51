"""Every way to call the function, as a caller that gives the HTTP status and the JSON of the answer."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

from cloud.function import aws
from cloud.function.exchange import reply_to_request

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATIENCE_S = 40.0
EVENT_TYPE = "application/cloudevents+json"

Document = dict[str, object]
Call = Callable[[str, Mapping[str, str], bytes], tuple[int, Document]]
"""(method, headers, body) -> (status, answer)."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


@dataclass(slots=True)
class Server:
    """A process that answers by HTTP; `lines` are what it has written so far."""

    url: str
    process: "subprocess.Popen[str]"
    lines: list[str]
    changed: threading.Condition

    def call(self, method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Document]:
        encoded = {name: value.encode() for name, value in headers.items()}
        answer = requests.request(method, self.url, headers=encoded, data=body, timeout=PATIENCE_S)
        return answer.status_code, answer.json()

    def line(self, wanted: str) -> str:
        """Wait for a line that holds `wanted`."""
        with self.changed:
            found = self.changed.wait_for(lambda: [line for line in self.lines if wanted in line], PATIENCE_S)
        assert found, f"no line with {wanted!r}: {self.lines[-5:]}"
        return found[-1]


@contextlib.contextmanager
def server(command: list[str], port: int, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start a process that listens on `port`, wait until it does, and stop it at the end."""
    python_path = os.pathsep.join((str(ROOT), str(HERE), str(HERE.parent / "system")))
    variables = {**os.environ, "PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1", **(environment or {})}
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    ) as process:
        started = Server(f"http://127.0.0.1:{port}/", process, [], threading.Condition())
        reader = threading.Thread(target=_read, args=(started,), name="server-output")
        reader.start()
        try:
            _wait_until_open(started, port)
            yield started
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join()


def _read(started: Server) -> None:
    assert started.process.stdout is not None
    for line in started.process.stdout:
        with started.changed:
            started.lines.append(line)
            started.changed.notify_all()


def _wait_until_open(started: Server, port: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert started.process.poll() is None, "".join(started.lines[-20:])
        assert time.monotonic() < deadline_s, "the server does not listen"
        time.sleep(0.02)


def bare(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Document]:
    reply = reply_to_request(aws.MODEL, method, headers, body)
    return reply.status, json.loads(reply.body)


def function_url_event(method: str, headers: Mapping[str, str], body: bytes) -> Document:
    """A function URL's event, by its documented shape (payload format 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {
            **{name.lower(): value for name, value in headers.items()},
            "host": "<url-id>.lambda-url.us-west-2.on.aws",
            "x-amzn-trace-id": "Root=1-62ecd163-5f302e550dcde3b12402207d",
            "x-forwarded-for": "203.0.113.7",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "<url-id>",
            "authentication": None,
            "authorizer": None,
            "domainName": "<url-id>.lambda-url.us-west-2.on.aws",
            "domainPrefix": "<url-id>",
            "http": {
                "method": method,
                "path": "/",
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "shelfwire-agent",
            },
            "requestId": "e1506fd5-9e7b-434f-bd42-4f8fa224b599",
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Mar/2026:12:00:00 +0000",
            "timeEpoch": 1772366400000,
        },
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def lambda_url(method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Document]:
    answer = aws.lambda_handler(function_url_event(method, headers, body), None)
    json.dumps(answer)
    assert answer["isBase64Encoded"] is False
    return int(str(answer["statusCode"])), json.loads(str(answer["body"]))


def uvicorn_command(port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "cloud.function.asgi:app", "--host", "127.0.0.1", "--port", str(port)]


def framework_command(port: int, target: str) -> list[str]:
    options = ["--source", str(ROOT / "cloud/function/gcf.py"), "--target", target]
    program = "import functions_framework._cli as framework; framework._cli()"
    return [sys.executable, "-c", program, *options, "--host", "127.0.0.1", "--port", str(port)]


def host_command(port: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "cloud.cli", "function", "--port", str(port), *more]
