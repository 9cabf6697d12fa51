"""What an HTTP answer means for the frame that was sent: taken, not now, or never. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

TRY_AGAIN = frozenset({408, 425, 429})
NOT_ABOUT_THE_FRAME = frozenset({401, 403, 404, 405, 407})
"""Without a problem document these are a proxy's or another server's words: the address is wrong, not the frame."""

ABOUT_THE_SENDER = ("certificate-", "foreign-device")
"""Codes of an API that does not let this device in, or not under this name: its frames are good, and wait."""

_CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP answer: names of headers in lower case, the body as far as it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """The cloud's store has it. What the answer cost, where it says so."""

    usd: float | None = None


@dataclass(frozen=True, slots=True)
class NotNow:
    """It may work later. `retry_after_s`: when the other side asked to come back."""

    code: str
    text: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Never:
    """The cloud refuses this frame for good."""

    code: str
    text: str


def sort(reply: HttpReply, taken: frozenset[int], now_wall_ns: int) -> Taken | NotNow | Never:
    """Say what an answer means; `taken` are the statuses by which the cloud says that it has the frame."""
    document = _document(reply)
    status = reply.status
    if status in taken:
        return Taken(_number(document.get("usd")))
    code = str(document.get("code", ""))
    code = code if _CODE.fullmatch(code) else f"http-{status}"
    text = str(document.get("detail") or document.get("title") or f"status {status}")[:200]
    if status in TRY_AGAIN or status >= 500:
        return NotNow(code, text, _retry_after_s(reply.headers.get("retry-after", ""), now_wall_ns))
    if code.startswith(ABOUT_THE_SENDER):
        return NotNow(code, text)
    problem = reply.headers.get("content-type", "").startswith("application/problem+json")
    if not 400 <= status < 500 or (status in NOT_ABOUT_THE_FRAME and not problem):
        return NotNow(code, f"{text}: this is not the cloud's API, or a proxy stands before it")
    return Never(code, text)


def _document(reply: HttpReply) -> dict[str, Any]:
    try:
        document = json.loads(reply.body) if reply.body else {}
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _number(value: object) -> float | None:
    """A cost: finite, not negative, and no more than a call can cost."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def _retry_after_s(value: str, now_wall_ns: int) -> float | None:
    """Read a Retry-After header, seconds or a date (RFC 9110, section 10.2.3)."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        then = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.fromtimestamp(now_wall_ns / 1e9, UTC)).total_seconds())
