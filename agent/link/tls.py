"""The hop ``tls``: an encrypted connection that can be trusted, or why not: intercepted, expired, another name."""

import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agent.link.certificate import Certificate, read
from agent.link.hops import Hop, Way, failed, untried

# openssl/x509_vfy.h: X509_V_ERR_...
NOT_YET_VALID, EXPIRED = 9, 10
HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH = 62, 64
UNTRUSTED = (2, 18, 19, 20, 21, 27)

REFUSED_BY_SERVER = (
    "CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN", "ACCESS_DENIED", "UNSUPPORTED_CERTIFICATE",
)  # fmt: skip
"""Alerts by which a server refuses our own certificate (RFC 8446, section 6.2)."""

ALERT_WAIT_S = 0.2
"""In TLS 1.3 the server judges our certificate after the handshake: its alert comes a moment later, or never."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a connection is made with. Without `ca_file` the system's authorities count."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Make a context. Raises `OSError` (`ssl.SSLError` is one) when a file cannot be used."""
        made = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if self.cert_file is not None:
            made.load_cert_chain(str(self.cert_file), str(self.key_file) if self.key_file else None)
        return made


def encrypt(way: Way, raw: socket.socket, host: str, trust: Trust, timeout_s: float) -> ssl.SSLSocket | None:
    """Walk the hop ``tls`` on a connection; None when it failed, and the connection is closed then."""
    began_s = time.monotonic()
    target = raw.getpeername()[:2]
    family = raw.family
    try:
        context = trust.context()
    except PermissionError:
        raw.close()
        way.take(untried("tls", "this user may not read the device's key: run as root"))
        return None
    except OSError as error:
        raw.close()
        way.take(failed("tls", "CRT-1", began_s, f"our certificate or authority cannot be used: {error}"))
        return None
    raw.settimeout(max(0.05, timeout_s))
    try:
        secure = context.wrap_socket(raw, server_hostname=host)
        took_s = time.monotonic() - began_s
        _hear_alert(secure)
    except OSError as error:
        raw.close()
        left_s = max(0.1, timeout_s - (time.monotonic() - began_s))
        peer = _shown(family, target, host, left_s) if isinstance(error, ssl.SSLCertVerificationError) else None
        way.take(_why(error, host, began_s, peer))
        return None
    peer = _own(secure)
    way.days_left = peer.days_left(time.time()) if peer else None
    left = f", {way.days_left:.0f} days left" if way.days_left is not None else ""
    said = f"{secure.version()}, certificate of {peer.subject if peer else host}{left}"
    way.take(Hop("tls", True, took_s * 1000, said))
    return secure


def _hear_alert(secure: ssl.SSLSocket) -> None:
    """Wait a moment for an alert; what else the server would say first is nothing, in MQTT as in HTTP."""
    timeout_s = secure.gettimeout()
    secure.settimeout(ALERT_WAIT_S)
    try:
        if secure.recv(1) == b"":
            raise ConnectionResetError
    except TimeoutError:
        pass
    secure.settimeout(timeout_s)


def _own(secure: ssl.SSLSocket) -> Certificate | None:
    der = secure.getpeercert(binary_form=True)
    try:
        return read(der) if der else None
    except ValueError:
        return None


def _shown(family: int, target: tuple[str, int], host: str, timeout_s: float) -> Certificate | None:
    """Connect again without trust, only to read what certificate is shown."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    raw = socket.socket(family, socket.SOCK_STREAM)
    raw.settimeout(timeout_s)
    try:
        raw.connect(target)
        with blind.wrap_socket(raw, server_hostname=host) as secure:
            return _own(secure)
    except OSError:
        raw.close()
        return None


def _why(error: OSError, host: str, began_s: float, peer: Certificate | None) -> Hop:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, host, began_s, peer)
    reason = (getattr(error, "reason", None) or "").upper()
    if any(word in reason for word in REFUSED_BY_SERVER):
        return failed("tls", "NET-13", began_s, f"{host} refuses this device's certificate ({reason.lower()})")
    if isinstance(error, TimeoutError):
        return failed("tls", "NET-6", began_s, f"{host} takes the connection, but TLS gets no answer")
    return failed("tls", "NET-12", began_s, f"{host} does not speak TLS there ({reason.lower() or 'it hung up'})")


def _untrusted(error: ssl.SSLCertVerificationError, host: str, began_s: float, peer: Certificate | None) -> Hop:
    code, of = error.verify_code, f"certificate of {peer.subject}" if peer else "certificate"
    now = datetime.now(UTC)
    if code == NOT_YET_VALID or (peer is not None and now < peer.begins):
        begins = f"{peer.begins:%Y-%m-%d %H:%M}" if peer else "later"
        return failed(
            "tls", "TIME-1", began_s, f"the server's {of} begins {begins}, and here it is {now:%Y-%m-%d %H:%M}"
        )
    if code == EXPIRED:
        ended = f"{peer.ends:%Y-%m-%d}" if peer else "some time ago"
        return failed("tls", "NET-10", began_s, f"the {of} ended {ended}; here it is {now:%Y-%m-%d %H:%M}")
    if code in (HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH):
        return failed("tls", "NET-11", began_s, f"the {of} is not for {host}")
    if code in UNTRUSTED:
        by = f", issued by {peer.issuer}" if peer else ""
        return failed("tls", "NET-9", began_s, f"the {of}{by}, is not from an authority that we trust")
    return failed("tls", "NET-9", began_s, f"the {of} cannot be trusted: {error.verify_message}")
