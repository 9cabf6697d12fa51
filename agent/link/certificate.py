"""Who a certificate is of, who issued it, and how long it holds: the few fields of X.509 that a person is told.

Nothing is verified here: that is OpenSSL's. It does not let one read a certificate that it refuses, and that is the
one that must be explained. (RFC 5280, section 4.1; DER as in ITU-T X.690.)
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_COMMON_NAME, _ORGANISATION = b"\x55\x04\x03", b"\x55\x04\x0a"
_SEQUENCE, _SET, _OBJECT_ID, _VERSION = 0x30, 0x31, 0x06, 0xA0
_UTC_TIME = 0x17


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. `subject` and `issuer` are the common name, or the organisation where there is none."""

    subject: str
    issuer: str
    begins: datetime
    ends: datetime

    def days_left(self, now_s: float) -> float:
        """Give the days until it ends; negative when it has."""
        return (self.ends.timestamp() - now_s) / 86_400


def read_file(path: Path) -> Certificate:
    """Read the first certificate of a PEM file. Raises `OSError`, `ValueError`."""
    text = path.read_text(encoding="ascii")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if begin not in text or end not in text:
        raise ValueError("there is no certificate in it")
    start = text.index(begin)
    return read(ssl.PEM_cert_to_DER_cert(text[start : text.index(end, start) + len(end)]))


def read(der: bytes) -> Certificate:
    """Read a certificate. Raises `ValueError` when it is none."""
    try:
        whole = _inside(der, _SEQUENCE)
        parts = _parts(_inside(whole, _SEQUENCE))
        if parts[0][0] == _VERSION:
            parts = parts[1:]
        _, _, issuer, validity, subject, *_ = parts
        begins, ends, *_ = _parts(validity[1])
        return Certificate(_name(subject[1]), _name(issuer[1]), _time(*begins), _time(*ends))
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("this is no certificate") from error


def _parts(content: bytes) -> list[tuple[int, bytes]]:
    """Split what stands one after the other into tags and contents."""
    found = []
    at = 0
    while at < len(content):
        tag, length, at = content[at], content[at + 1], at + 2
        if length >= 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(content[at : at + size], "big"), at + size
        if at + length > len(content):
            raise ValueError("this is no certificate: it is cut off")
        found.append((tag, content[at : at + length]))
        at += length
    return found


def _inside(content: bytes, tag: int) -> bytes:
    first_tag, inside = _parts(content)[0]
    if first_tag != tag:
        raise ValueError("this is no certificate")
    return inside


def _name(content: bytes) -> str:
    found = {}
    for _, relative in _parts(content):
        for _, pair in _parts(relative):
            (_, kind), (_, value), *_ = _parts(pair)
            found[kind] = value.decode("utf-8", "replace")
    return found.get(_COMMON_NAME) or found.get(_ORGANISATION) or "?"


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
