"""What a piece of text may stand for: the encodings in which a secret turns up in logs and files, undone."""

import base64
import binascii
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote_to_bytes

_RUN = re.compile(r"[A-Za-z0-9+/_\-]{6,}={0,2}")
# Each begins where a word does: begun at every letter, a long line without a match would take hours.
_WRAPPED = re.compile(r"(?<![A-Za-z0-9+/_\-])(?:[A-Za-z0-9+/_\-]{24,}(?:\s|\\n|\\r|=\n)+)+[A-Za-z0-9+/_\-]{2,}={0,2}")
_PAIRS = re.compile(
    r"(?<![0-9A-Fa-f])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[:\- ,]{1,2}){3,}(?:0x|\\x)?[0-9A-Fa-f]{2}(?![0-9A-Fa-f])"
)
_PART = re.compile(r"[^\s\"'<>]{4,}")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}|\\[ux0-7]|&#?\w+;|=[0-9A-F]{2}")
_QUOTED = re.compile(r"\"(?:[^\"\\\n]|\\.)*\\(?:[^\"\\\n]|\\.)*\"")


def words(text: str) -> set[str]:
    """Give every different word: a log says the same ones again and again."""
    return set(text.split())


def long_tokens(text: str) -> Iterator["re.Match[str]"]:
    """Give what may be an encoding that goes over spaces or lines."""
    for pattern in (_WRAPPED, _QUOTED, _PAIRS):
        yield from pattern.finditer(text)


def tokens(word: str) -> Iterator[str]:
    """Give what in a word may be an encoding: the word, its parts between quotes, its runs of letters and digits."""
    if _ESCAPE.search(word):
        for part in _PART.findall(word):
            if _ESCAPE.search(part):
                yield part
    yield from _RUN.findall(word)


def undone(token: str) -> Iterator[bytes]:
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


def literals(values: list[bytes]) -> list[str]:
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
