"""The calls by which a device is enrolled and renewed; see `wire.enrolment` and docs/enrolment.md."""

import json
import os
import tempfile
from collections.abc import Mapping
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from agent.core.reply import HttpReply
from agent.errors import Rejected, Retryable
from agent.link.https import Https
from wire import enrolment, strict
from wire.errors import WireError

ANSWER_S = 20.0
HEADERS: Mapping[str, str] = {"Content-Type": "application/json", "Accept": "application/json"}

Said = TypeVar("Said", bound=BaseModel)


def check_url(url: str) -> str:
    """Read the cloud's address as a person types it. Raises `Rejected` (``bad-url``)."""
    whole = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(whole)
        good = parts.scheme == "https" and parts.hostname and parts.path in ("", "/") and not parts.query
        _ = parts.port
    except ValueError:
        good = False
    if not good:
        raise Rejected(
            "bad-url",
            f"{url[:120]} is no address of a cloud",
            "type it as the operator's command printed it: https://...",
        )
    return whole.rstrip("/")


class FirstContact:
    """The two calls of an enrolment: the first to anybody, the second to whom the first has proved."""

    def __init__(self, url: str) -> None:
        self._url = url

    def hello(self, code: enrolment.Code) -> enrolment.Welcome:
        """Ask under the code's public part. What comes back is not proved yet.

        Raises `Retryable` (``api-...``) and `Rejected` (``code-...``, ``server-strange``).
        """
        said = enrolment.Hello(v=1, code=code.id, nonce=os.urandom(enrolment.NONCE_BYTES).hex())
        http = Https(self._url, agent=version("shelfwire"), verify=False)
        welcome = _call(http, "POST", enrolment.HELLO, said, enrolment.Welcome)
        keys = enrolment.stretch(code, bytes.fromhex(welcome.salt))
        if not enrolment.proves(keys, said, welcome) or not enrolment.is_certificate_text(welcome.trust):
            raise Rejected(
                "code-mismatch",
                "the cloud could not prove that it knows this code: it was typed wrong, or another server answers",
                "type the code again, letter by letter; if it stays, somebody may sit in between: call the operator",
            )
        self._keys = keys
        return welcome

    def enrol(self, code: enrolment.Code, welcome: enrolment.Welcome, csr: str) -> enrolment.Identity:
        """Use the code, with the server that `hello` has proved, over TLS that is verified by what it said.

        Raises `Retryable` (``api-...``) and `Rejected` (``code-...``, ``server-strange``).
        """
        asked = enrolment.Enrol(v=1, code=code.id, key=self._keys.device.hex(), csr=csr)
        with tempfile.NamedTemporaryFile("w", suffix=".crt", encoding="ascii") as trust:
            trust.write(welcome.trust)
            trust.flush()
            http = Https(self._url, Path(trust.name), version("shelfwire"))
            return _call(http, "POST", enrolment.ENROL, asked, enrolment.Identity)


def known(http: Https) -> enrolment.Known:
    """Ask the cloud who this device is, by its certificate.

    Raises `Retryable` and `Rejected` (``certificate-...``).
    """
    return _call(http, "GET", enrolment.DEVICE, None, enrolment.Known)


def renew(http: Https, csr: str) -> enrolment.Identity:
    """Have a new key certified, by the present certificate. Raises `Retryable` and `Rejected`."""
    return _call(http, "POST", enrolment.RENEW, enrolment.Renew(v=1, csr=csr), enrolment.Identity)


def _call(http: Https, method: str, path: str, said: BaseModel | None, kind: type[Said]) -> Said:
    body = said.model_dump_json().encode() if said is not None else b""
    reply = http.send(method, path, HEADERS, body, ANSWER_S)
    if reply.status != HTTPStatus.OK:
        raise _refusal(reply)
    try:
        return kind.model_validate(strict.loads(reply.body, enrolment.ANSWER_BYTES))
    except (WireError, ValidationError):
        raise Rejected(
            "server-strange", "what answers there is no Shelfwire cloud, or of another version",
            "check the address; the port for devices is usually 8443; else update this agent or the cloud",
        ) from None  # fmt: skip


def _refusal(reply: HttpReply) -> Rejected | Retryable:
    """Read a problem document (RFC 9457); what is none, comes from something else that answers there."""
    try:
        problem = json.loads(reply.body)
        code, detail, hint = (str(problem[key])[:300] for key in ("code", "detail", "hint"))
    except (ValueError, KeyError, TypeError):
        return Rejected(
            "server-strange", f"what answers there is no Shelfwire cloud (status {reply.status})",
            "check the address: the port for devices is usually 8443",
        )  # fmt: skip
    later = reply.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT) or reply.status >= 500
    return (Retryable if later else Rejected)(code, detail, hint)
