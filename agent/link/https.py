"""The cloud's API over HTTP: one connection per thread, a deadline on everything, answers bounded."""

import contextlib
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import requests
import requests.adapters
import requests.utils
import urllib3

from agent.core.reply import HttpReply
from agent.errors import Retryable
from wire import tls

CONNECT_TIMEOUT_S = 5.0
MOST_ANSWER_BYTES = 64 * 1024
"""An answer is a few hundred bytes; what comes beyond this is not read."""

PIECE_BYTES = 8 * 1024


class Https:
    """Sends requests to one API; see `agent.ports.Http`. `own` are this device's certificate and its key.

    With `verify` false anybody may answer: only for a first contact that proves the server in another way.
    """

    def __init__(
        self,
        api: str,
        ca_file: Path | None = None,
        agent: str = "",
        *,
        own: tuple[Path, Path] | None = None,
        verify: bool = True,
    ) -> None:
        self._api = api.rstrip("/")
        encrypted = urlsplit(api).scheme == "https"
        self._verify: bool | str = str(ca_file) if verify and ca_file is not None and encrypted else verify
        self._own = own if encrypted else None
        self._agent = agent
        self._local = threading.local()

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> HttpReply:
        """Send one request; `timeout_s` is for the answer as a whole, from the moment that a connection stands.

        Raises `Retryable`: ``api-dns``, ``api-refused``, ``api-tls``, ``api-timeout``, ``api-cut``.
        """
        until_s = time.monotonic() + CONNECT_TIMEOUT_S + timeout_s
        try:
            with _quiet(unverified=self._verify is False):
                reply = self._session().request(
                    method, self._api + path, headers=dict(headers), data=body, timeout=(CONNECT_TIMEOUT_S, timeout_s),
                    allow_redirects=False, stream=True, verify=self._verify,
                    cert=(str(self._own[0]), str(self._own[1])) if self._own is not None else None,
                )  # fmt: skip
            with reply:
                answer = _bounded(reply, until_s)
                return HttpReply(reply.status_code, {k.lower(): v for k, v in reply.headers.items()}, answer)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self._local.session = None
            raise self._why(error) from None

    def _session(self) -> requests.Session:
        """One per thread: a session is not safe to share. Of the environment only its proxies count, no logins."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False
            session.headers["Accept-Encoding"] = "identity"
            session.proxies.update(requests.utils.get_environ_proxies(self._api))
            session.headers["User-Agent"] = f"shelfwire-agent/{self._agent}" if self._agent else "shelfwire-agent"
            adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            self._local.session = session
        return session

    def _why(self, error: Exception) -> Retryable:
        where = f"the cloud's API at {self._api}"
        text = str(error)
        if isinstance(error, requests.exceptions.SSLError) or "[SSL" in text:
            reason = tls.explain(text, self._own[0] if self._own is not None else None)
            if reason is not None:
                return Retryable(reason.code or "api-tls", f"TLS with {where} failed: {reason.text}", reason.hint)
            return Retryable("api-tls", f"TLS with {where} failed: {text[:160]}",
                             "check [cloud] ca_file, the API's certificate and this device's clock")  # fmt: skip
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
            return Retryable("api-timeout", f"{where} does not answer", "check the network; it will be tried again")
        if "NameResolution" in text or "getaddrinfo" in text:
            return Retryable("api-dns", f"the name of {where} is not known", "check [cloud] api and this network's DNS")
        if "NewConnection" in text or "refused" in text:
            return Retryable(
                "api-refused", f"nothing listens for {where}", "start shelfwire-cloud serve, or correct api"
            )
        # With TLS 1.3 a certificate is refused after the handshake, and the reason may be lost with the connection.
        own = tls.trouble_with(self._own[0], datetime.now(UTC)) if self._own is not None else None
        if own is not None:
            return Retryable(own.code, f"{where} hung up: {own.text}", own.hint)
        return Retryable("api-cut", f"the connection to {where} was cut", "it will be tried again")


@contextlib.contextmanager
def _quiet(*, unverified: bool) -> Iterator[None]:
    """Leave out the library's warning where somebody else proves the server. Not for a process with many threads."""
    if not unverified:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        yield


def _bounded(reply: requests.Response, until_s: float) -> bytes:
    """Read piece by piece as it comes, so that a server that drips cannot hold on for longer than it was given."""
    answer = b""
    while len(answer) < MOST_ANSWER_BYTES:
        part = reply.raw.read1(PIECE_BYTES)
        if not part:
            break
        answer += part
        if time.monotonic() > until_s:
            raise requests.ReadTimeout
    return answer[:MOST_ANSWER_BYTES]
