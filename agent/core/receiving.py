"""What the cloud's answers about a file of the night mean: it has it, wants it, not now, or never. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.reply import HttpReply, Never, NotNow, sort

OK = frozenset({200})
NOT_SENT = 409
"""By this status the cloud says that the file has not arrived where it should be."""

NOT_ABOUT_THE_FILE = frozenset({401, 403, 404, 405, 407})
"""About who asks, or where: a thousand pictures are not given up for that."""

MOST_HEADERS = 32
MOST_URL = 8192
OUR_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Ours to set, whatever the answer says."""


@dataclass(frozen=True, slots=True)
class Received:
    """The cloud has the file, verified and committed. This is the receipt."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The cloud wants the file, at this address and with these headers."""

    url: str
    headers: Mapping[str, str]


def read_announced(reply: HttpReply, now_wall_ns: int) -> Received | Expected | NotNow | Never:
    """Read the answer to `POST /v1/shards`."""
    sorted_ = _sort(reply, now_wall_ns)
    if sorted_ is not None:
        return sorted_
    match _document(reply):
        case {"state": "received"}:
            return Received()
        case {"state": "expected", "put": {"url": str(url), "headers": dict(headers)}} if _sane(url, headers):
            return Expected(url, {k: v for k, v in headers.items() if k.lower() not in OUR_HEADERS})
    return _odd()


def read_sent(reply: HttpReply, now_wall_ns: int) -> NotNow | None:
    """Read the answer to the upload itself; None: go on. Only the cloud's own word decides about the file.

    A refusal here speaks of the signature, the place or the line, so it is tried again with a new signature.
    """
    if 200 <= reply.status < 300 or reply.status == 412:  # 412: it is there already
        return None
    sorted_ = sort(reply, OK, now_wall_ns)
    if isinstance(sorted_, NotNow):
        return sorted_
    code = sorted_.code if isinstance(sorted_, Never) else "upload-odd"
    return NotNow(code, f"the upload was refused with status {reply.status}")


def read_done(reply: HttpReply, now_wall_ns: int) -> Received | NotNow | Never:
    """Read the answer to `POST /v1/shards/SHA256/done`."""
    if reply.status == NOT_SENT:
        return NotNow("shard-missing", "the cloud does not find the file where it was sent")
    sorted_ = _sort(reply, now_wall_ns)
    if sorted_ is not None:
        return sorted_
    return Received() if _document(reply).get("state") == "received" else _odd()


def _sort(reply: HttpReply, now_wall_ns: int) -> NotNow | Never | None:
    """Sort what is no success; None when it is one."""
    found = sort(reply, OK, now_wall_ns)
    if isinstance(found, Never) and reply.status in NOT_ABOUT_THE_FILE:
        return NotNow(found.code, found.text)
    return found if isinstance(found, NotNow | Never) else None


def _odd() -> NotNow:
    return NotNow("api-odd", "the answer is none of the cloud's API, or of another version")


def _document(reply: HttpReply) -> dict[str, Any]:
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _sane(url: str, headers: dict[Any, Any]) -> bool:
    texts = all(isinstance(text, str) for item in headers.items() for text in item)
    return 0 < len(url) <= MOST_URL and len(headers) <= MOST_HEADERS and texts
