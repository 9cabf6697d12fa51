"""A mirror behind HTTP: one kept connection, a deadline on everything, no redirects, nothing unpacked."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import requests
import requests.adapters
import requests.utils
import urllib3

from agent.errors import Retryable
from agent.link.mirror import PIECE_BYTES, Missing, Part, gather, safe_path, too_large

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 30.0
"""Longest wait for the next byte."""
SLOWEST_BYTES_PER_S = 1000
JUDGED_AFTER_S = 60.0
"""A server that drips is let go once it stayed below the slowest rate for so long; our own pauses do not count."""
MOST_READ_S = 120.0
"""For a small file as a whole."""
MOST_ERROR_BYTES = 16 * 1024

NOT_THERE = (403, 404, 410)
"""Stores of objects answer 403 for what is not there when nobody may list them."""


class HttpMirror:
    """Files below one address; see `agent.link.mirror.Mirror`. For one thread.

    `own` are this device's certificate and its key. `now` is a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        base: str,
        ca_file: Path | None = None,
        *,
        own: tuple[Path, Path] | None = None,
        agent: str = "",
        session: requests.Session | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        encrypted = urlsplit(base).scheme == "https"
        self.where = base.rstrip("/")
        self.told_at: datetime | None = None
        self.session = session if session is not None else _session(base, agent)
        self._verify: bool | str = str(ca_file) if ca_file is not None and encrypted else True
        self._own = (str(own[0]), str(own[1])) if own is not None and encrypted else None
        self._now = now

    def read(self, path: str, most_bytes: int) -> bytes:
        """See Mirror."""
        until_s = self._now() + MOST_READ_S
        with self._asked(path, 0) as reply:
            length = reply.headers.get("Content-Length", "")
            if length.isdigit() and int(length) > most_bytes:
                raise too_large(path, most_bytes)
            return gather(Part(0, self._pieces(reply, path, until_s)), path, most_bytes)

    @contextlib.contextmanager
    def open(self, path: str, start: int) -> Iterator[Part]:
        """See Mirror. A server that knows no ranges, or has another file there by now, begins at 0."""
        with self._asked(path, start) as reply:
            begins = _begins_at(reply) if reply.status_code == 206 else 0
            if begins not in (0, start):
                raise self._strange(path, f"sends bytes from {begins} on, not from {start}")
            yield Part(begins, self._pieces(reply, path, None))

    @contextlib.contextmanager
    def _asked(self, path: str, start: int) -> Iterator[requests.Response]:
        url = f"{self.where}/{safe_path(path)}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            with self.session.get(
                url, headers=headers, timeout=(CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S), allow_redirects=False,
                stream=True, verify=self._verify, cert=self._own,
            ) as reply:  # fmt: skip
                self.told_at = _date(reply)
                self._check(reply, path)
                yield reply
        except requests.exceptions.RequestException as error:
            raise self._why(error) from None

    def _check(self, reply: requests.Response, path: str) -> None:
        """Take a file as it is, and nothing else."""
        status = reply.status_code
        if status in (200, 206):
            if reply.headers.get("Content-Encoding", "identity") != "identity":
                raise self._strange(path, "sends it packed, although that was not asked for")
            return
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
            reply.raw.read(MOST_ERROR_BYTES)  # an answer that was read to its end leaves the connection in use
        if status in NOT_THERE:
            raise Missing(
                "update-missing", f"{self.where} has no {path} (HTTP {status})",
                "the mirror may lag behind; else correct [update] repository",
            )  # fmt: skip
        if 300 <= status < 400:
            raise self._strange(path, f"points elsewhere (HTTP {status}), which is not followed")
        raise self._strange(path, f"answers HTTP {status}")

    def _pieces(self, reply: requests.Response, path: str, until_s: float | None) -> Iterator[bytes]:
        """Read as it comes, without unpacking. Only the time spent waiting for the network is held against it."""
        waited_s, got_bytes = 0.0, 0
        try:
            while True:
                asked_s = self._now()
                piece: bytes = reply.raw.read1(PIECE_BYTES)
                if not piece:
                    return
                waited_s += self._now() - asked_s
                got_bytes += len(piece)
                if until_s is not None and self._now() > until_s:
                    raise self._slow(path)
                if waited_s > JUDGED_AFTER_S:
                    if got_bytes < waited_s * SLOWEST_BYTES_PER_S:
                        raise self._slow(path)
                    waited_s, got_bytes = 0.0, 0
                yield piece
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._why(error) from None

    def _slow(self, path: str) -> Retryable:
        return Retryable(
            "update-net", f"{self.where} sends {path} too slowly", "look at the shop's line; it goes on from there"
        )

    def _strange(self, path: str, what: str) -> Retryable:
        return Retryable(
            "update-net", f"asked for {path}, {self.where} {what}",
            "look whether a login page or proxy answers instead of the mirror; correct [update] repository",
        )  # fmt: skip

    def _why(self, error: Exception) -> Retryable:
        text = str(error)
        if isinstance(error, requests.exceptions.SSLError) or "[SSL" in text:
            return Retryable("update-net", f"TLS with {self.where} failed: {text[:160]}",
                             "check [cloud] ca_file, this device's certificate and its clock")  # fmt: skip
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
            return Retryable("update-net", f"{self.where} does not answer", "check the network; it is tried again")
        if "NameResolution" in text or "getaddrinfo" in text:
            return Retryable("update-net", f"the name of {self.where} is not known",
                             "check [update] repository and this network's DNS")  # fmt: skip
        if "NewConnection" in text or "refused" in text:
            return Retryable(
                "update-net", f"nothing listens at {self.where}", "start the server, or correct the address"
            )
        return Retryable("update-net", f"the connection to {self.where} was cut", "it goes on from there later")


def _session(base: str, agent: str) -> requests.Session:
    """Of the environment only its proxies count, no logins."""
    session = requests.Session()
    session.trust_env = False
    session.proxies.update(requests.utils.get_environ_proxies(base))
    session.headers.clear()  # every byte of them is paid for at every check
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": f"shelfwire-agent/{agent}".rstrip("/")})
    adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _begins_at(reply: requests.Response) -> int:
    """The first byte of a partial answer; -1 when it does not say."""
    unit, _, span = reply.headers.get("Content-Range", "").partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def _date(reply: requests.Response) -> datetime | None:
    try:
        told = parsedate_to_datetime(reply.headers.get("Date", ""))
    except ValueError:
        return None
    return told if told.tzinfo is not None else None
