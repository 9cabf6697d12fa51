"""Every secret that the agent knows, found where it is kept: configuration, password files, keys, environment.

The configuration may be broken, so its text is read by lines as well.
"""

import base64
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

LEAST_CHARS = 4
"""Shorter ones would be found everywhere, and guessed by whoever looks for a minute."""

MOST_FILE_BYTES = 256 << 10
MOST_FILES = 200

KEY = re.compile(
    r"(?:^|[_.\-\s])(?:[a-z0-9]*(?:passw(?:or)?d|passphrase|secret|token|credentials?)|pwd|pass|psk|api[_\-]?key"
    r"|access[_\-]?key(?:[_\-]?id)?|private[_\-]?key|session[_\-]?key|account[_\-]?key|signature|authorization|cookie"
    r"|enrol(?:l?ment)?[_\-]?code|one[_\-]?time[_\-]?code|pin[_\-]?code)s?$",
    re.IGNORECASE,
)
"""Names whose value is a secret. A name that ends in ``_file`` holds a path, which is none."""

FOLDERS = ("PWD", "OLDPWD")
"""Variables of the shell that only sound like a password."""

SECRET_SUFFIXES = {".password", ".passwd", ".secret", ".token", ".key", ".code", ".pem", ".cred", ".psk", ".env"}
"""Files beside the configuration, and in the identity, that hold nothing but a secret."""

_ASSIGNED = re.compile(r"""^\s*([A-Za-z0-9_.\-"']+)\s*[=:]\s*(.*?)\s*$""")
_URL = re.compile(r"(?<![A-Za-z0-9+.\-])[A-Za-z][A-Za-z0-9+.\-]{0,20}://[^\s\"'<>]+")
_PATH_LOGIN = re.compile(
    r"(?:pass(?:word|wd)?|pwd|token|key|auth)=([^&/?;#\s\"']+?)(?=[&/?;#\s\"']|_[a-z]+=|$)", re.IGNORECASE
)
"""Some recorders take the login in the path, as in /user=admin_password=secret_channel=1.sdp"""
_PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)


def is_secret_name(name: str) -> bool:
    """Tell whether a key's name says that its value is a secret."""
    return name not in FOLDERS and bool(KEY.search(name.strip("\"' ")))


class Secrets:
    """A set of secrets, as bytes. Its repr shows none."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self.too_short = 0
        """Values that are too short to be looked for everywhere."""

    def add(self, value: str | bytes) -> None:
        """Take a secret in, with what it is made of when it is a private key."""
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        raw = raw.strip()
        for body in _PEM.findall(raw):
            self._add_key(body)
        if not raw or raw.startswith(b"-----BEGIN"):
            return
        if len(raw) < LEAST_CHARS:
            self.too_short += 1
            return
        self._known.add(raw)

    def _add_key(self, body: bytes) -> None:
        lines = [line.strip() for line in re.split(rb"\\n|\s", body)]
        base64_lines = [line for line in lines if len(line) >= 16 and b":" not in line]
        self._known.update(base64_lines)
        joined = b"".join(base64_lines)
        self._known.add(joined)
        try:
            der = base64.b64decode(joined, validate=True)
        except ValueError:
            return
        self._known.add(der)
        self._known.update(der[at : at + 32] for at in range(0, len(der) - 31, 32))

    def values(self) -> list[bytes]:
        """Give all secrets, the longest first: one may be part of another."""
        return sorted(self._known, key=lambda v: (-len(v), v))

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"Secrets({len(self)} of them)"


def gather(config_path: Path, state_dirs: Iterable[Path], environment: Mapping[str, str]) -> Secrets:
    """Find every secret that this device's agent knows. Never raises: what cannot be read cannot be shown either."""
    secrets = Secrets()
    text = _read(config_path).decode("utf-8", "replace")
    for value in _of_text(text):
        secrets.add(value)
    for path in _files(config_path, text, state_dirs):
        _add_file(secrets, path)
    for name, value in environment.items():
        if is_secret_name(name):
            secrets.add(value)
        for part in _of_urls(value):
            secrets.add(part)
    return secrets


def _of_text(text: str) -> Iterator[str]:
    """Give the secrets that stand in a configuration, whether it is sound or not."""
    try:
        yield from _of_table(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        pass
    for line in text.splitlines():
        found = _ASSIGNED.match(line.lstrip("# "))
        if found and is_secret_name(found[1]):
            yield _unquoted(found[2])
    yield from _of_urls(text)


def _unquoted(value: str) -> str:
    for mark in ('"""', "'''", '"', "'"):
        if value.startswith(mark):
            inner = value[len(mark) :]
            return inner[: inner.find(mark)] if mark in inner else inner
    return value.partition(" #")[0].rstrip(",")


def _of_table(table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        inner = value if isinstance(value, list) else [value]
        for item in inner:
            if isinstance(item, Mapping):
                yield from _of_table(item)
            elif isinstance(item, str | int) and not isinstance(item, bool) and is_secret_name(name):
                yield str(item)


def _of_urls(text: str) -> Iterator[str]:
    """Give the passwords and the values of the query of every address in a text."""
    for url in _URL.findall(text):
        try:
            parts = urlsplit(url)
        except ValueError:
            continue
        login = parts.netloc.rpartition("@")[0] or (url.partition("://")[2].rpartition("@")[0])
        _, _, password = login.partition(":")
        yield from (password, unquote(password))
        if login and not password:
            yield unquote(login)  # a token instead of a login
        for name, value in parse_qsl(parts.query, keep_blank_values=False):
            if is_secret_name(name) or len(value) >= 8:
                yield value
        for value in _PATH_LOGIN.findall(url):
            yield unquote(value)


def _files(config_path: Path, text: str, state_dirs: Iterable[Path]) -> list[Path]:
    """Give the files that hold secrets: those that the configuration names, and those beside it and in the identity."""
    named = re.findall(r"""_file\s*=\s*["']([^"']+)["']""", text)
    found = {Path(name).expanduser() for name in named}
    places = [config_path.parent]
    for folder in state_dirs:
        places += [folder, folder / "identity", folder / "local"]
    for place in places:
        try:
            found |= {p for p in place.iterdir() if p.suffix.lower() in SECRET_SUFFIXES}
        except OSError:
            continue
    return sorted(found)[:MOST_FILES]


def _add_file(secrets: Secrets, path: Path) -> None:
    raw = _read(path)
    if b"-----BEGIN" in raw:
        secrets.add(raw)  # a certificate is no secret; a private key in it is
        return
    text = raw.decode("utf-8", "replace").strip()
    secrets.add(text)
    for line in text.splitlines()[:50]:
        assigned = _ASSIGNED.match(line)
        secrets.add(_unquoted(assigned[2]) if assigned and path.suffix == ".env" else line)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_FILE_BYTES)
    except OSError:
        return b""
