"""Files to wherever the cloud signed an address for them, in small pieces; and the two calls that go around it."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import requests.adapters
import requests.utils
import urllib3

from agent.core.reply import HttpReply
from agent.errors import Retryable
from agent.link.https import Https

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 60.0
"""How long a piece may be stuck, and the answer take, before the upload counts as cut."""

ASK_TIMEOUT_S = 30.0
DONE_TIMEOUT_S = 180.0
"""The cloud reads the whole file before it answers."""

MOST_ANSWER_BYTES = 64 * 1024


class Uploads:
    """The cloud's API as the shipper needs it; see `agent.ports.ShardApi`. For one thread."""

    def __init__(
        self, api: str, ca_file: Path | None = None, agent: str = "", *, own: tuple[Path, Path] | None = None
    ) -> None:
        self._api = urlsplit(api)
        self._http = Https(api, ca_file, agent, own=own)
        self._ca_file = ca_file
        self._own = own if self._api.scheme == "https" else None

    def announce(self, document: Mapping[str, object]) -> HttpReply:
        """Say what there is. Raises `Retryable` as `Https.send` does."""
        return self._ask("/v1/shards", document, ASK_TIMEOUT_S)

    def done(self, sha256: str, document: Mapping[str, object]) -> HttpReply:
        """Say that it was sent. Raises `Retryable` as `Https.send` does."""
        return self._ask(f"/v1/shards/{sha256}/done", document, DONE_TIMEOUT_S)

    def _ask(self, path: str, document: Mapping[str, object], timeout_s: float) -> HttpReply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return self._http.send("POST", path, headers, json.dumps(document).encode(), timeout_s)

    def put(self, url: str, headers: Mapping[str, str], pieces: Iterable[bytes], size_bytes: int) -> HttpReply:
        """Send a file to a signed address, absolute or relative to the API's host; never along a redirect.

        What `pieces` raises is raised here. Raises `Retryable`: ``upload-url``, ``upload-tls``, ``upload-timeout``,
        ``upload-cut``.
        """
        target = urljoin(f"{self._api.scheme}://{self._api.netloc}/", url)
        parts = urlsplit(target)
        weaker = self._api.scheme == "https" and parts.scheme == "http"
        if parts.scheme not in ("http", "https") or not parts.hostname or weaker:
            raise Retryable("upload-url", f"the cloud names an address that is not safe: {target[:80]}",
                            "mend the cloud's --objects address")  # fmt: skip
        at_home = parts.netloc == self._api.netloc
        ours = at_home and self._ca_file is not None
        session = requests.Session()
        session.trust_env = False  # no logins of this machine; its proxies alone
        session.proxies.update(requests.utils.get_environ_proxies(target))
        session.verify = str(self._ca_file) if ours else True
        if at_home and self._own is not None:
            session.cert = (str(self._own[0]), str(self._own[1]))  # for nobody else's eyes
        no_retries = requests.adapters.HTTPAdapter(max_retries=0)
        session.mount("https://", no_retries)
        session.mount("http://", no_retries)
        try:
            with session, session.put(
                target, data=_Sized(pieces, size_bytes), headers=dict(headers), allow_redirects=False, stream=True,
                timeout=(CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S),
            ) as reply:  # fmt: skip
                return HttpReply(reply.status_code, {k.lower(): v for k, v in reply.headers.items()}, _bounded(reply))
        except requests.RequestException as error:
            raise _why(error, parts.netloc) from None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise Retryable(
                "upload-cut", f"the answer of {parts.netloc} was cut: {error}", "it is tried again"
            ) from None


def _bounded(reply: requests.Response) -> bytes:
    """Read the start of an answer, and not for ever."""
    until_s = time.monotonic() + SILENCE_TIMEOUT_S
    answer = b""
    while len(answer) < MOST_ANSWER_BYTES and time.monotonic() < until_s:
        part = reply.raw.read1(MOST_ANSWER_BYTES)
        if not part:
            break
        answer += part
    return answer[:MOST_ANSWER_BYTES]


class _Sized:
    """A body whose size is known before it is read, so that it is sent with a Content-Length and not in chunks."""

    def __init__(self, pieces: Iterable[bytes], size_bytes: int) -> None:
        self._pieces = pieces
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


def _why(error: requests.RequestException, where: str) -> Retryable:
    if isinstance(error, requests.exceptions.SSLError):
        return Retryable("upload-tls", f"TLS with {where} failed: {str(error)[:160]}",
                         "check the certificate of the object store and this device's clock")  # fmt: skip
    if isinstance(error, requests.Timeout):
        return Retryable("upload-timeout", f"{where} does not take the file", "it is tried again")
    return Retryable("upload-cut", f"the upload to {where} was cut: {str(error)[:160]}", "it is tried again")
