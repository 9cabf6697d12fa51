"""Who may ask, under which name, and what a browser may do with the pages."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from agent.local.exchange import Refusal, Request

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no referrer a browser sends `Origin: null` with our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer, unless it says otherwise itself."""

SESSION_S = 12 * 3600.0
"""A login holds this long."""
MOST_SESSIONS = 64
FREE_TRIES = 5
"""Wrong passwords that one address may give in quick succession; all addresses together ten times that."""
TRY_EVERY_S = 10.0
"""How long until one more is allowed."""
MOST_PEERS = 1024


def is_loopback(name: str) -> bool:
    """Whether a host name or address, without a port, can only mean this machine itself."""
    if name.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Names:
    """Under which names this device answers: a stranger's page must not come in by a name of the stranger's own.

    An address cannot be given another meaning by a stranger's name server, so an open device answers to any.
    """

    open: bool
    known: Collection[str] = ()

    def fits(self, host: str) -> bool:
        """Tell whether a Host header names this device."""
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.netloc != host or "@" in host or not name:
            return False
        return is_loopback(name) or (self.open and (_is_address(name) or name.rstrip(".") in self.known))


class Tries:
    """How often wrong passwords may be tried: some at once, then one now and then. Thread safe."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._used: dict[str, tuple[float, float]] = {}  # peer -> (tries used up, as of when)

    def wait_s(self, peer: str) -> float:
        """Give how long this peer must wait before it may try; 0 when it may."""
        with self._lock:
            return max(self._wait_s(peer, FREE_TRIES), self._wait_s("", 10 * FREE_TRIES))

    def failed(self, peer: str) -> None:
        """Note a wrong password."""
        with self._lock:
            now_s = self._now_s()
            for who in (peer, ""):
                self._used[who] = (self._used_up(who, now_s) + 1, now_s)
            if len(self._used) > MOST_PEERS:
                del self._used[min(self._used, key=lambda who: self._used_up(who, now_s) if who else 1e9)]

    def _used_up(self, who: str, now_s: float) -> float:
        used, since_s = self._used.get(who, (0.0, now_s))
        return max(0.0, used - (now_s - since_s) / TRY_EVERY_S)

    def _wait_s(self, who: str, most: int) -> float:
        return max(0.0, (self._used_up(who, self._now_s()) - (most - 1)) * TRY_EVERY_S)


class Guard:
    """Checks every request. Without a password everybody on this machine may ask; `secure`: TLS is spoken."""

    def __init__(
        self,
        names: Names,
        password: str | None,
        now_s: Callable[[], float],
        make_token: Callable[[], str],
        *,
        secure: bool,
    ) -> None:
        self._names = names
        self._password = None if password is None else _digest(password)
        self._now_s = now_s
        self._make_token = make_token
        self._secure = secure
        self._cookie = "__Host-shelfwire" if secure else "shelfwire"
        self._tries = Tries(now_s)
        self._lock = threading.Lock()
        self._sessions: dict[bytes, float] = {}  # digest of a token -> when it ends

    @property
    def asks_for_password(self) -> bool:
        """Whether one must log in."""
        return self._password is not None

    def check_origin(self, request: Request) -> None:
        """Refuse what another site's page had a browser send.

        Raises `Refusal` (``foreign-host``, ``foreign-page``).
        """
        host = request.header("Host")
        if not self._names.fits(host):
            raise Refusal(
                421,
                "foreign-host",
                "this device does not answer under that name",
                "open it by its address, or add the name to [local] names in the device's configuration",
            )
        origin, site = request.header("Origin"), request.header("Sec-Fetch-Site")
        scheme = "https" if self._secure else "http"
        if (origin and origin.lower() != f"{scheme}://{host}".lower()) or (
            site == "cross-site" and not _opens(request)
        ):
            raise Refusal(
                403, "foreign-page", "another site's page asks for this", "open the device's own address instead"
            )

    def check_login(self, request: Request) -> None:
        """Let through who has logged in, or gives the password as HTTP Basic. Raises `Refusal` (``login``, ...)."""
        if self._password is None or self._has_session(request):
            return
        given = _basic_password(request.header("Authorization"))
        if given is None:
            # Not to a browser, which would ask in a window of its own: the page leads to the login by itself.
            is_browser = request.wants_html or request.headers.get("Sec-Fetch-Mode") is not None
            headers = {} if is_browser else {"WWW-Authenticate": 'Basic realm="shelfwire", charset="UTF-8"'}
            raise Refusal(401, "login", "this device asks for a password", "log in, or send it as HTTP Basic", headers)
        self._check_password(request.peer, given)

    def log_in(self, request: Request, given: str) -> str:
        """Check a password and begin a session; gives the cookie to set. Raises `Refusal`."""
        self._check_password(request.peer, given)
        token = self._make_token()
        with self._lock:
            now_s = self._now_s()
            self._sessions = {key: end_s for key, end_s in self._sessions.items() if end_s > now_s}
            while len(self._sessions) >= MOST_SESSIONS:
                del self._sessions[min(self._sessions, key=lambda key: self._sessions[key])]
            self._sessions[_digest(token)] = now_s + SESSION_S
        return self._set_cookie(token, round(SESSION_S))

    def log_out(self, request: Request) -> str:
        """End the session; gives the cookie to set."""
        with self._lock:
            self._sessions.pop(_digest(self._token(request)), None)
        return self._set_cookie("", 0)

    def _set_cookie(self, token: str, age_s: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{self._cookie}={token}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}"

    def _check_password(self, peer: str, given: str) -> None:
        wait_s = self._tries.wait_s(peer)
        if wait_s > 0:
            text = f"too many wrong passwords: wait {wait_s:.0f} s"
            headers = {"Retry-After": str(int(wait_s) + 1)}
            raise Refusal(429, "login-too-often", text, "then try again; the password stands on the device", headers)
        if not hmac.compare_digest(_digest(given), self._password or b""):
            self._tries.failed(peer)
            raise Refusal(
                403,
                "login-wrong",
                "that is not the password",
                "try again; it is in the file that [local] password_file of the device names",
            )

    def _token(self, request: Request) -> str:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(request.header("Cookie")[:4096])
        except CookieError:
            return ""
        return cookies[self._cookie].value if self._cookie in cookies else ""

    def _has_session(self, request: Request) -> bool:
        # Looked up by digest: how long that takes says nothing about the token.
        with self._lock:
            return self._sessions.get(_digest(self._token(request)), 0.0) > self._now_s()


def _opens(request: Request) -> bool:
    """Whether a person follows a link of another site to here."""
    return request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _basic_password(header: str) -> str | None:
    """Read the password of HTTP Basic (RFC 7617); the user's name is not looked at."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return password if colon else None
