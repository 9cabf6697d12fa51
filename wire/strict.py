"""Strict JSON: what the standard parser lets through and a store or another language would choke on is refused."""

import json
import re
from typing import NoReturn

from wire import bounds
from wire.errors import WireError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def loads(payload: bytes, limit_bytes: int = bounds.ENVELOPE_BYTES) -> Json:
    """Parse one JSON document of at most `limit_bytes`, measured before it is parsed.

    Raises `WireError`: ``too-large``, ``empty``, ``not-utf8`` (UTF-16 and byte order marks too), ``bad-json``,
    ``too-deep``, ``duplicate-key``, ``not-finite`` (NaN, Infinity, 1e999), ``integer-range`` (beyond 64 bits),
    ``nul``, ``surrogate``.
    """
    if len(payload) > limit_bytes:
        raise WireError("too-large", f"{len(payload)} bytes; the limit is {limit_bytes}", "send smaller envelopes")
    if not payload:
        raise WireError("empty", "the message is empty")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError("not-utf8", f"not UTF-8 at byte {error.start}", "send JSON as UTF-8") from None
    if text[0] == "\ufeff":
        raise WireError("not-utf8", "starts with a byte order mark", "send JSON without one")
    _check_depth(payload)
    try:
        document: Json = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError("bad-json", f"not JSON: {error}") from None
    # Escapes are the only way to these two, so most messages never pay for the walk.
    if "\\u" in text or "\x00" in text:
        _check_text(document)
    return document


_QUOTED = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A text in quotes, ended or not. Possessive, so that no input makes the search try twice."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _check_depth(payload: bytes) -> None:
    """Refuse nesting before the parser recurses; brackets inside texts do not count."""
    if payload.count(b"[") + payload.count(b"{") <= bounds.DEPTH:
        return
    depth = 0
    for bracket in _QUOTED.sub(b"", payload).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > bounds.DEPTH:
            raise WireError("too-deep", f"nested deeper than {bounds.DEPTH}")


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                # Not checked for surrogates yet: only its repr is safe to log and to store.
                raise WireError("duplicate-key", f"the key {key[:40]!r} stands twice in one object")
            seen.add(key)
    return result


def _constant(name: str) -> NoReturn:
    raise WireError("not-finite", f"{name} is not a number in JSON")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise WireError("not-finite", f"{text[:40]} is beyond every number")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not -bounds.SEQ_MAX - 1 <= (value := int(text)) <= bounds.SEQ_MAX:
        raise WireError("integer-range", f"{text[:24]} does not fit into 64 bits")
    return value


def _check_text(document: Json) -> None:
    waiting: list[Json] = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part.values())
            waiting.extend(part.keys())
        elif isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, str):
            if "\x00" in part:
                raise WireError("nul", "a text holds a NUL character; no store keeps it")
            if any("\ud800" <= c <= "\udfff" for c in part):
                raise WireError("surrogate", "a text holds half a surrogate pair")
