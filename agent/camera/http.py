"""One bounded HTTP request to a camera, with the login it asks for."""

import errno
import logging
import os
import socket
import ssl
from typing import Final

import requests
import urllib3
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from agent.camera import CA_FILE
from agent.camera.address import Address, redact
from agent.camera.causes import Causes
from agent.errors import ShelfwireError
from agent.ports import Clock

# Its debug lines quote whole paths, and some cameras take their password there.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

_CHUNK_BYTES: Final = 65_536
MAX_BYTES: Final = 32 << 20
"""Largest body taken from a camera: no camera's picture comes near it."""


class Client:
    """Asks one camera's address again and again on a kept connection. Used by one thread.

    The login is sent only when asked for, and as a digest when the camera offers that: a password sent unasked
    would go over the wire in clear.
    """

    def __init__(self, name: str, address: Address, clock: Clock) -> None:
        self._address = address
        self._causes = Causes(name, address)
        self._clock = clock
        self._auth: AuthBase | None = None
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc of this machine has a say in a camera's login
        self._session.verify = CA_FILE or True
        self._session.headers.update({"User-Agent": "shelfwire", "Accept-Encoding": "identity"})

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def get(self, timeout_s: float) -> requests.Response:
        """Ask; give the answer (a status of 200 to 299) with its body still to be read, and to be closed.

        Raises the cause, as `Retryable` or `Rejected`, when there is no such answer.
        """
        deadline_ns = self._clock.now().boot_ns + round(timeout_s * 1e9)
        response = self._ask(timeout_s)
        if response.status_code == 401 and self._address.login is not None:
            self._auth = self._scheme(response.headers.get("WWW-Authenticate", ""))
            response.close()
            response = self._ask(max(0.01, (deadline_ns - self._clock.now().boot_ns) / 1e9))
        cause = self._causes.by_status(response.status_code, redact(response.headers.get("Location", "")))
        if cause is not None:
            response.close()
            raise cause
        return response

    def body(self, response: requests.Response, timeout_s: float) -> bytes:
        """Read the whole body within `timeout_s` and `MAX_BYTES`. Raises the cause when it does not come so."""
        deadline_ns = self._clock.now().boot_ns + round(timeout_s * 1e9)
        parts: list[bytes] = []
        size = 0
        try:
            # read1 gives what is there: a camera that sends a byte a second cannot hold us past the deadline.
            while part := response.raw.read1(_CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > MAX_BYTES:
                    raise self._causes.codec(f"its answer is larger than {MAX_BYTES >> 20} MiB")
                if self._clock.now().boot_ns > deadline_ns:
                    raise self._causes.timeout("the picture did not come whole", timeout_s)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise self._why(error, timeout_s) from None
        finally:
            response.close()
        return b"".join(parts)

    def _ask(self, timeout_s: float) -> requests.Response:
        try:
            return self._session.get(
                self._address.url, auth=self._auth, timeout=timeout_s, stream=True, allow_redirects=False
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._why(error, timeout_s) from None

    def _scheme(self, challenge: str) -> AuthBase:
        login = self._address.login
        assert login is not None
        if "digest" in challenge.lower():
            return HTTPDigestAuth(login.username, login.password)
        return HTTPBasicAuth(login.username.encode(), login.password.encode())

    def _why(self, error: BaseException, timeout_s: float) -> ShelfwireError:
        """Find the cause in a chain of wrapped errors. Their own texts stay out: they quote the whole address."""
        chain = _chain(error)

        def has(*kinds: type[BaseException]) -> bool:
            return any(isinstance(inner, kinds) for inner in chain)

        if network_is_shut():
            return self._causes.shut()
        # The order matters: urllib3 counts a refused connection among its timeouts.
        if has(ssl.SSLError, requests.exceptions.SSLError, urllib3.exceptions.SSLError):
            return self._causes.tls(_tls_reason(chain))
        if has(socket.gaierror, urllib3.exceptions.NameResolutionError):
            return self._causes.dns()
        if has(ConnectionRefusedError):
            return self._causes.refused()
        if has(TimeoutError, urllib3.exceptions.ReadTimeoutError):
            return self._causes.timeout("no answer", timeout_s)
        if has(urllib3.exceptions.NewConnectionError):
            return self._causes.unreachable(_system_reason(chain))
        if has(requests.exceptions.InvalidURL, urllib3.exceptions.LocationParseError):
            return self._causes.codec("this address cannot be asked")
        return self._causes.lost()


def network_is_shut() -> bool:
    """Whether this process may not even make a socket for the network (RestrictAddressFamilies= of its unit)."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno == errno.EAFNOSUPPORT
    return False


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo and len(found) < 32:
        inner = todo.pop(0)
        if isinstance(inner, BaseException) and not any(inner is f for f in found):
            found.append(inner)
            todo += [inner.__cause__, inner.__context__, getattr(inner, "reason", None), *inner.args]
    return found


def _system_reason(chain: list[BaseException]) -> str:
    codes = [inner.errno for inner in chain if isinstance(inner, OSError) and inner.errno]
    return os.strerror(codes[0]) if codes else "no connection"


def _tls_reason(chain: list[BaseException]) -> str:
    for inner in chain:
        reason = getattr(inner, "verify_message", "")
        if isinstance(reason, str) and reason:
            return reason
    return "the handshake failed"
