"""A camera's address and login, and the one rule for showing an address: never with what opens the camera."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from agent.config import Camera
from agent.errors import Broken, Rejected

_PASSWORD_MAX_BYTES = 4096
_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://).*@", re.DOTALL)
_QUERY_VALUE = re.compile(r"([?&;][^=&;#\s]*=)[^&;#\s]*")
# Some recorders take the login in the path, as in /user=admin_password=secret_channel=1.sdp
_PATH_SECRET = re.compile(
    r"((?:user(?:name)?|pass(?:word|wd)?|pwd|token|key|auth)=)[^&/?;#\s]*?(?=[&/?;#\s]|_[a-z]+=|$)", re.IGNORECASE
)


def redact(url: str) -> str:
    """Give `url` as it may be shown: login, query values and fragment hidden, host and path kept.

    Everything up to the last ``@`` counts as the login, since people forget to percent-encode a slash in a password.
    """
    if "://" not in url:
        return url
    shown = _USERINFO.sub(r"\1***@", url).partition("#")[0]
    return _PATH_SECRET.sub(r"\1***", _QUERY_VALUE.sub(r"\1***", shown))


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A camera's user name and password, in clear. Its repr shows neither."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Login(***)"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A network camera's address without its login. `url` may still hold secrets in its query; show `shown`."""

    url: str
    scheme: str
    host: str
    port: int
    login: Login | None

    @property
    def shown(self) -> str:
        """The address as it may stand in a log or an error."""
        return redact(self.url)

    @property
    def secure(self) -> bool:
        """True when the camera is reached through TLS."""
        return self.scheme in ("https", "rtsps")

    def with_login(self) -> str:
        """Give the address with its login, percent-encoded, for a library that takes it no other way. Never show it."""
        if self.login is None:
            return self.url
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{quote(self.login.username, safe='')}:{quote(self.login.password, safe='')}@{rest}"

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def address_of(camera: Camera, schemes: Sequence[str] = tuple(_DEFAULT_PORTS)) -> Address:
    """Read the address, with one of `schemes`, and the login of a network camera.

    `username` and `password_file` win over a login in the url. Raises `Rejected` (``camera-address``) for an address
    that cannot be meant, and `Broken` (``camera-password-file``) when the password cannot be read.
    """
    parts = _split(camera, schemes)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return Address(url, parts.scheme, parts.hostname or "", port, _login(camera, parts))


def _split(camera: Camera, schemes: Sequence[str]) -> SplitResult:
    try:
        parts = urlsplit(camera.url)
        usable = bool(parts.hostname) and parts.port != 0 and parts.scheme in schemes
    except ValueError:
        usable = False
    if not usable or any(c.isspace() for c in camera.url) or "@" in parts.path:
        raise Rejected(
            "camera-address",
            f"camera {camera.name}: {redact(camera.url)} is not an address that this kind of camera can have",
            f"write it as {schemes[0]}://host:port/path; put the login into username and "
            "password_file, or percent-encode the characters / ? # @ in it",
        )
    return parts


def _login(camera: Camera, parts: SplitResult) -> Login | None:
    username = camera.username if camera.username is not None else unquote(parts.username or "")
    if camera.password_file is not None:
        return Login(username, _password(camera, camera.password_file))
    if camera.username is None and parts.username is None:
        return None
    return Login(username, unquote(parts.password or ""))


def _password(camera: Camera, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_PASSWORD_MAX_BYTES + 1)
        text = content.decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Broken(
            "camera-password-file",
            f"camera {camera.name}: the password file {path} cannot be read: {reason}",
            "write the password alone into this file and let only the device's user read it",
        ) from None
    if not text or len(content) > _PASSWORD_MAX_BYTES or "\n" in text:
        raise Broken(
            "camera-password-file",
            f"camera {camera.name}: the password file {path} does not hold one line of text",
            "write the password alone into this file, on one line",
        )
    return text
