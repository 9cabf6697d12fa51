"""One request and its answer, as the page and the API see them; and what a request is refused with."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

JSON = "application/json"
HTML = "text/html; charset=utf-8"


class Refusal(Exception):
    """A request that is not answered as it stands: an HTTP status, a code to compare, and the cure."""

    def __init__(self, status: int, code: str, message: str, hint: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.hint = hint
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose head has been read. `path` is decoded, `peer` the client's address.

    `read_body` reads the body, at most so many bytes of it, and raises `Refusal` (``too-large``, ``no-length``).
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    peer: str
    read_body: Callable[[int], bytes]

    def header(self, name: str) -> str:
        """Give a header's value, empty when it is missing. Raises `Refusal` (``header-twice``) when it is not one."""
        values = self.headers.get_all(name, [])
        if len(values) > 1:
            raise Refusal(400, "header-twice", f"the header {name} is there twice", "send it once")
        return str(values[0]).strip() if values else ""

    @property
    def wants_html(self) -> bool:
        """Whether a person's browser asks, rather than a program."""
        return "text/html" in str(self.headers.get("Accept", ""))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Site(Protocol):
    """What answers requests. Any thread may ask."""

    def answer(self, request: Request) -> Reply:
        """Answer; raises nothing but `Refusal`, unless there is a bug."""
        ...

    def refuse(self, request: Request | None, refusal: Refusal) -> Reply:
        """Write a refusal as the client of this request reads it; None when its head could not be read."""
        ...


def split_target(target: str) -> tuple[str, dict[str, str]]:
    """Take a request's target apart: its decoded path, and its query. Raises `Refusal` (``bad-address``)."""
    try:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=16))
        path = unquote(parts.path, errors="strict")
    except (ValueError, UnicodeDecodeError):
        raise Refusal(400, "bad-address", "the address is not a valid one", "correct the address") from None
    return path, query


def as_json(status: int, content: object, headers: Mapping[str, str] | None = None) -> Reply:
    """Make an answer of JSON."""
    return Reply(status, json.dumps(content, separators=(",", ":")).encode(), JSON, headers or {})
