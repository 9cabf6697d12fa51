"""What a key may be, and a permission to put one object. Pure."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from cloud.errors import Rejected

MOST_KEY: Final = 512
"""Longest key, in characters; S3 takes twice as much."""

UPLOADS: Final = "/v1/objects/"
"""Where our own server takes what it has signed."""

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9_.=-]{0,199}"
# No segment begins with a dot: none climbs out of a folder, and what begins so inside the folder is never an object.
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")


@dataclass(frozen=True, slots=True)
class SignedPut:
    """Where to PUT one object and with which headers. A `url` that begins with ``/`` is relative to our own server."""

    url: str
    headers: Mapping[str, str]
    expires_s: int


def check_key(key: str) -> str:
    """Give the key back when it is one that every place takes. Raises `Rejected` (``bad-key``)."""
    if len(key) > MOST_KEY or not _KEY.fullmatch(key):
        raise Rejected(
            "bad-key",
            f"{key[:80]!r} is no key of an object",
            "keys are made of letters, digits and _.=- between slashes, and no part begins with a dot",
        )
    return key


def check_prefix(prefix: str) -> str:
    """Give a prefix without its last slash back. Raises `Rejected` (``bad-key``)."""
    return check_key(prefix.removesuffix("/"))


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission to put the object `key` of `size` bytes and digest `sha256` until `expires_at` (Unix seconds)."""

    key: str
    size: int
    sha256: str
    expires_at: int


def sign(secret: bytes, grant: Grant) -> str:
    """The grant's signature: HMAC-SHA256 (RFC 2104) over its parts, one a line; no part can hold a line's end."""
    said = f"PUT\n{check_key(grant.key)}\n{grant.size}\n{grant.sha256}\n{grant.expires_at}"
    return hmac.new(secret, said.encode(), hashlib.sha256).hexdigest()


def address(secret: bytes, grant: Grant) -> str:
    """The path and query under which our server takes the object."""
    query = {"size": grant.size, "sha256": grant.sha256, "expires": grant.expires_at, "signature": sign(secret, grant)}
    return UPLOADS + quote(grant.key, safe="/=") + "?" + urlencode(query)


def check_grant(secret: bytes, grant: Grant, signature: str, now: float) -> None:
    """Raises `Rejected`: ``signature-bad`` for a grant that we have not signed, ``signature-expired``."""
    if not hmac.compare_digest(sign(secret, grant).encode(), signature.encode("utf-8", "replace")):
        raise Rejected(
            "signature-bad", "this address was not signed by this server", "ask for a new one: POST /v1/shards"
        )
    if now >= grant.expires_at:
        raise Rejected("signature-expired", "this address has expired", "ask for a new one: POST /v1/shards")
