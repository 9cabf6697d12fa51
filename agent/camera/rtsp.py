"""As much of RTSP (RFC 2326, RFC 7826) as it takes to ask a camera what it has under a path: DESCRIBE, with login."""

import base64
import hashlib
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.camera.address import Login

_HEAD_MAX_BYTES = 16_384
_BODY_MAX_BYTES = 65_536
_STATUS = re.compile(r"RTSP/\d\.\d (\d{3})(?: |$)")
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


@dataclass(frozen=True, slots=True)
class Reply:
    """The camera's answer: status, what kinds of login it asks for, and the session description (SDP)."""

    status: int
    challenges: tuple[str, ...]
    body: str


def describe(connection: socket.socket, url: str, authorization: str | None, left_s: Callable[[], float]) -> Reply:
    """Ask for the description of `url` (without login) on a fresh connection.

    `left_s` gives the seconds left. Raises TimeoutError when they are over, OSError when the connection fails and
    ValueError, with a sentence for people, when the answer is not RTSP.
    """
    lines = [f"DESCRIBE {url} RTSP/1.0", "CSeq: 1", "Accept: application/sdp", "User-Agent: shelfwire"]
    if authorization is not None:
        lines.append(f"Authorization: {authorization}")
    connection.settimeout(left_s())
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    received = _read_until(connection, b"", _HEAD_MAX_BYTES, left_s, lambda got: b"\r\n\r\n" in got)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    match = _STATUS.match(first)
    if match is None:
        raise ValueError("what listens there does not speak RTSP")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in rest)]
    length = next((int(v) for n, v in headers if n == "content-length" and v.isdecimal() and len(v) < 9), 0)
    size = min(length, _BODY_MAX_BYTES)
    body = _read_until(connection, body, _BODY_MAX_BYTES, left_s, lambda got: len(got) >= size)
    challenges = tuple(value for name, value in headers if name == "www-authenticate")
    return Reply(int(match[1]), challenges, body[:size].decode("utf-8", "replace"))


def authorize(challenges: Sequence[str], method: str, url: str, login: Login) -> str | None:
    """Answer a challenge: the header's value, or None when no kind of login asked for is known.

    Digest (RFC 7616, MD5 and SHA-256) goes before Basic, which shows the password to whoever listens.
    """
    for challenge in challenges:
        if challenge.lower().startswith("digest"):
            answer = _digest(challenge[6:], method, url, login)
            if answer is not None:
                return answer
    if any(challenge.lower().startswith("basic") for challenge in challenges):
        return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    return None


def _digest(text: str, method: str, url: str, login: Login) -> str | None:
    given = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(text)}
    algorithm = given.get("algorithm", "MD5").upper()
    new_hash = _HASHES.get(algorithm)
    if new_hash is None or "nonce" not in given:
        return None

    def digest(value: str) -> str:
        return new_hash(value.encode(), usedforsecurity=False).hexdigest()

    realm, nonce = given.get("realm", ""), given["nonce"]
    secret, request = digest(f"{login.username}:{realm}:{login.password}"), digest(f"{method}:{url}")
    answer = {"username": login.username, "realm": realm, "nonce": nonce, "uri": url}
    tail = ""
    if "auth" in [q.strip() for q in given.get("qop", "").split(",")]:
        # One request per nonce, so its count is 1 and our own nonce may be anything.
        answer["cnonce"] = digest(nonce)[:16]
        answer["response"] = digest(f"{secret}:{nonce}:00000001:{answer['cnonce']}:auth:{request}")
        tail = ", qop=auth, nc=00000001"
    else:
        answer["response"] = digest(f"{secret}:{nonce}:{request}")
    if "opaque" in given:
        answer["opaque"] = given["opaque"]
    tail += f", algorithm={algorithm}" if "algorithm" in given else ""
    return "Digest " + ", ".join(f'{name}="{value}"' for name, value in answer.items()) + tail


def _read_until(
    connection: socket.socket, got: bytes, most_bytes: int, left_s: Callable[[], float], enough: Callable[[bytes], bool]
) -> bytes:
    while not enough(got) and len(got) < most_bytes:
        connection.settimeout(left_s())
        part = connection.recv(4096)
        if not part:
            break
        got += part
    return got
