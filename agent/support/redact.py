"""Takes secrets out of text: first by value in every encoding, then by the name of the key, then by shape.

By value is what counts: a list of names misses the next name, and a shape the next shape. Names and shapes catch what
this device does not know that it knows, and what they catch is from then on looked for by value as well.
"""

import base64
import binascii
import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote_to_bytes

from agent.camera.address import redact as redact_address
from agent.support.secrets import Secrets, is_secret_name

MARK = "[REDACTED]"
DEPTH = 4
"""How many encodings over one another are undone: a password in an address in JSON in base64."""

LEARN_CHARS = 8

_RUN = re.compile(r"[A-Za-z0-9+/_\-]{6,}={0,2}")
_WRAPPED = re.compile(r"(?:[A-Za-z0-9+/_\-]{24,}(?:\s|\\n|\\r|=\n)+)+[A-Za-z0-9+/_\-]{2,}={0,2}")
_PAIRS = re.compile(
    r"(?<![0-9A-Fa-f])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[:\- ,]{1,2}){3,}(?:0x|\\x)?[0-9A-Fa-f]{2}(?![0-9A-Fa-f])"
)
_WORD = re.compile(r"[^\s\"'<>]{4,}")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}|\\[ux0-7]|&#?\w+;|=[0-9A-F]{2}")
_QUOTED = re.compile(r"\"(?:[^\"\\\n]|\\.)*\\(?:[^\"\\\n]|\\.)*\"")

_TOKENS = (_WRAPPED, _QUOTED, _WORD, _PAIRS, _RUN)
"""What may be a secret in an encoding, the longest first."""

_NAME = (
    r"(?<![A-Za-z0-9_.\-])[A-Za-z0-9_.\-]{0,48}"
    r"(?:pass|pwd|psk|secret|token|credential|key|signature|authorization|cookie|code)[A-Za-z0-9_.\-]{0,16}"
)
"""What may be a name of `agent.support.secrets.KEY`: what else stands before a colon would hide one behind it."""
_ASSIGNED = re.compile(
    rf"""(?P<head>(?P<quote>\\?["']?)(?P<name>{_NAME})(?P=quote)\s*(?:=>|[=:])\s*)"""
    rf"""(?P<value>\\?"(?:[^"\\\n]|\\[^\n])*?\\?"|'[^'\n]*'|(?:Bearer|Basic|Digest)\s+[^\s,;"'<>&]+|[^\s,;"'<>&}}\]]+)""",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?P<head>--(?P<name>[A-Za-z0-9\-]{2,64})[= ]+)(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"']+)")

_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END[A-Z -]+-----|\Z)", re.DOTALL)),
    ("signed token", re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*)?")),
    ("login header", re.compile(r"\b(?:Bearer|Basic)\s+(?=[A-Za-z0-9+/_.~\-]*[0-9A-Z])[A-Za-z0-9+/_.~\-]{8,}=*")),
    ("login header", re.compile(r"(?<=authorization:)[^\n]+|(?<=cookie:)[^\n]+", re.IGNORECASE)),
    ("cloud key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}"
                             r"|\bxox[abpr]-[A-Za-z0-9\-]{10,}|\bsk-[A-Za-z0-9\-]{16,}|\bAIza[A-Za-z0-9_\-]{30,}")),
    ("enrolment code", re.compile(r"(?<=code[ :=])\s*[A-Z0-9]{4}-[A-Z0-9]{4}(?:-[A-Z0-9]{4})*\b", re.IGNORECASE)),
)  # fmt: skip
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?:\\?/){2}[^\s\"'<>\\]+")

_LOGIN = re.compile(r"\b[\w.\-]+:[^\s:@/\"'<>]{3,}@(?=[\w\[])")
"""A login before a host, without a scheme."""

_MAC = re.compile(r"\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b")
_IP = re.compile(r"\b(?!127\.)(?:\d{1,3}\.){3}\d{1,3}\b")


class Redactor:
    """Takes the secrets it knows, and what looks like one, out of texts. `counts` tells how many places, by the way."""

    def __init__(self, secrets: Secrets, *, hide_addresses: bool = False) -> None:
        self._secrets = secrets
        self._hide_addresses = hide_addresses
        self._addresses: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self._prepare()

    def _prepare(self) -> None:
        self._values = self._secrets.values()
        self._literals = _literals(self._values)
        self._reveals = lru_cache(maxsize=200_000)(self._reveals_secret)

    def learn(self, text: str) -> None:
        """Look for secrets by name and shape, so that `clean` finds them by value in every text."""
        before = len(self._secrets)
        for found in (*_ASSIGNED.finditer(text), *_OPTION.finditer(text)):
            value = _bare(found["value"])
            if _names_secret(found) and _is_worth_learning(value):
                self._secrets.add(value)
        for what, shape in _SHAPES:
            for match in shape.finditer(text):
                value = match[0].split()[-1] if what == "login header" else match[0]
                self._secrets.add(value.replace("\\n", "\n"))
        for match in re.finditer(r"://[^\s/:@\"'<>]*:([^\s\"'<>@]{4,})@", text):
            self._secrets.add(match[1])
        if len(self._secrets) > before:
            self._prepare()

    def clean(self, text: str) -> str:
        """Give the text without secrets."""
        text = self._by_value(text)
        text = self._by_name(text)
        text = self._by_shape(text)
        return self._by_value(self._addresses_hidden(text) if self._hide_addresses else text)

    def survives(self, text: str) -> bool:
        """Tell whether a secret is still in the text, in any encoding that is undone here."""
        raw = text.encode("utf-8", "surrogateescape")
        return any(value in raw for value in self._values) or any(self._reveals(token) for token in _tokens(text))

    # -- by value --------------------------------------------------------------------------------------------

    def _by_value(self, text: str) -> str:
        for literal in self._literals:
            if literal in text:
                self.counts["by value"] += text.count(literal)
                text = text.replace(literal, MARK)
        if not self._values:
            return text
        for pattern in _TOKENS:
            text = pattern.sub(self._token, text)
        return text

    def _token(self, match: "re.Match[str]") -> str:
        token = match[0]
        if (match.re is _WORD and not _ESCAPE.search(token)) or not self._reveals(token):
            return token
        self.counts["by value"] += 1
        return f'"{MARK}"' if token.startswith('"') else MARK

    def _reveals_secret(self, token: str, depth: int = DEPTH) -> bool:
        for raw in _undone(token):
            if any(value in raw for value in self._values):
                return True
            if depth > 1:
                inner = raw.decode("utf-8", "replace")
                if inner != token and any(self._reveals_secret(t, depth - 1) for t in (inner, *_tokens(inner))):
                    return True
        return False

    # -- by name ---------------------------------------------------------------------------------------------

    def _by_name(self, text: str) -> str:
        return _OPTION.sub(self._named, _ASSIGNED.sub(self._named, text))

    def _named(self, match: "re.Match[str]") -> str:
        value = match["value"]
        if not _names_secret(match) or MARK in value or not _bare(value) or _is_plain(_bare(value)):
            return match[0]
        self.counts["by name"] += 1
        mark = re.match(r"\\?[\"']", value)
        quotes = mark[0] if mark else ""
        return f"{match['head']}{quotes}{MARK}{quotes}"

    # -- by shape --------------------------------------------------------------------------------------------

    def _by_shape(self, text: str) -> str:
        for what, shape in _SHAPES:
            text, n = shape.subn(f"[REDACTED {what}]", text)
            self.counts["by shape"] += n
        text, n = _LOGIN.subn("***@", _ADDRESS.sub(self._address, text))
        self.counts["by shape"] += n
        return text

    def _address(self, match: "re.Match[str]") -> str:
        url = match[0].replace("\\/", "/")
        shown = redact_address(url) if "@" in url or "=" in url else match[0]
        if shown != match[0] and "***" in shown:
            self.counts["by shape"] += 1
        return shown

    def _addresses_hidden(self, text: str) -> str:
        for what, shape in (("mac", _MAC), ("ip", _IP)):
            text = shape.sub(lambda match, what=what: self._alias(what, match[0].lower()), text)  # type: ignore[misc]
        return text

    def _alias(self, what: str, value: str) -> str:
        """Give the same name for the same address all through the bundle, so that it can still be followed."""
        self.counts["addresses"] += 1
        return self._addresses.setdefault(value, f"{what}-{len(self._addresses) + 1}")


def _names_secret(match: "re.Match[str]") -> bool:
    """An option ``--code`` is that of `enroll`; a key of this name is an error's."""
    return is_secret_name(match["name"]) or (match.re is _OPTION and match["name"] == "code")


def _bare(value: str) -> str:
    return re.sub(r"^\\?[\"']|\\?[\"']$", "", value)


def _is_plain(value: str) -> bool:
    """Words that stand where a secret may be set and that are none."""
    return value.lower() in ("null", "none", "true", "false", "***", "{", "[", "", "unset", "-", "...")


def _is_worth_learning(value: str) -> bool:
    """A common word behind a name that sounds secret must not blacken every text."""
    mixed = bool(re.search(r"\d", value)) + bool(re.search(r"[a-z]", value)) + bool(re.search(r"[A-Z]", value))
    return len(value) >= LEARN_CHARS and not value.startswith(("/", "[", "{")) and (mixed >= 2 or len(value) >= 16)


def _literals(values: list[bytes]) -> list[str]:
    """Write every secret as texts have it, the longest first."""
    found: set[str] = set()
    for value in values:
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            continue
        found |= {
            text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1],
            json.dumps(json.dumps(text))[3:-3], quote(text, safe=""), quote(text), quote_plus(text), html.escape(text),
        }  # fmt: skip
    return sorted((text for text in found if text), key=lambda text: (-len(text), text))


def _tokens(text: str) -> Iterator[str]:
    for pattern in _TOKENS:
        for match in pattern.finditer(text):
            if pattern is not _WORD or _ESCAPE.search(match[0]):
                yield match[0]


def _undone(token: str) -> Iterator[bytes]:
    """Give what a token may stand for: each encoding undone once."""
    if "%" in token:
        raw = unquote_to_bytes(token)
        yield raw
        yield raw.replace(b"+", b" ")
    if "\\" in token:
        yield _unescaped(token)
    if "&" in token:
        yield html.unescape(token).encode("utf-8", "replace")
    if re.search(r"=[0-9A-F]{2}", token):
        yield unquote_to_bytes(re.sub(r"=([0-9A-F]{2})", r"%\1", token.replace("=\n", "")))
    yield from _of_hex(re.sub(r"0x|\\x|[:\-\s,]|\\n", "", token))
    yield from _of_base64(re.sub(r"\s|\\n|\\r|=\n", "", token))


def _unescaped(token: str) -> bytes:
    """Undo the escapes of JSON, TOML, Python and C in one pass."""
    short = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", '"': '"', "'": "'", "\\": "\\"}

    def one(match: "re.Match[str]") -> str:
        code = match[1] or match[2] or match[3]
        return chr(int(code, 16)) if code else chr(int(match[4], 8)) if match[4] else short.get(match[5], match[0])

    undone = re.sub(r"\\(?:u([0-9A-Fa-f]{4})|U0{0,2}([0-9A-Fa-f]{6})|x([0-9A-Fa-f]{2})|([0-7]{3})|(.))", one, token)
    return undone.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8", "replace")


def _of_hex(token: str) -> Iterator[bytes]:
    if len(token) >= 8 and re.fullmatch(r"[0-9A-Fa-f]+", token):
        for start in (0, 1):
            part = token[start:]
            yield _wide(bytes.fromhex(part[: len(part) & ~1]))


def _of_base64(token: str) -> Iterator[bytes]:
    """Decode at each of the four places where a group of four may begin: the text around it may be encoded with it."""
    plain = token.rstrip("=").replace("-", "+").replace("_", "/")
    if len(plain) < 6 or not re.fullmatch(r"[A-Za-z0-9+/]+", plain):
        return
    for start in range(4):
        part = plain[start:]
        part = part[:-1] if len(part) % 4 == 1 else part
        try:
            yield _wide(base64.b64decode(part + "=" * (-len(part) % 4)))
        except (binascii.Error, ValueError):
            continue


def _wide(raw: bytes) -> bytes:
    """Text of two bytes per letter (UTF-16) is read as well as any other."""
    return raw.replace(b"\0", b"") if raw.count(b"\0") * 3 > len(raw) else raw
