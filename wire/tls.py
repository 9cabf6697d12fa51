"""Why a TLS connection failed, in words that name the cure: what the library says is read here for all callers."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ENROL = (
    "ask the operator for a new code (shelfwire-cloud fleet device add NAME --replace), then: shelfwire-agent enroll"
)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, and the cure. `code` is empty where the caller's own code for TLS says enough."""

    code: str
    text: str
    hint: str


_SAID: tuple[tuple[str, Reason], ...] = (
    ("certificate is not yet valid", Reason(
        "clock-wrong", "by this device's clock the server's certificate is not valid yet: the clock is behind",
        "set the clock: timedatectl set-ntp true, or timedatectl set-time; then it connects by itself")),
    ("certificate has expired", Reason(
        "", "by this device's clock the server's certificate has ended",
        "see that this device's clock is right; if it is, the operator renews the server's certificate")),
    ("ostname mismatch", Reason(
        "", "the server's certificate is for another name",
        "use the name that the certificate has, or the operator makes one for this name (--host, --device-host)")),
    ("IP address mismatch", Reason(
        "", "the server's certificate is for another address",
        "use the address that the certificate has, or the operator makes one for this one (--host, --device-host)")),
    ("self-signed certificate", Reason(
        "", "the server's certificate is signed by nobody that this device trusts",
        "is another server in its place, or a proxy that looks into TLS? else enrol the device anew")),
    ("self signed certificate", Reason(
        "", "the server's certificate is signed by nobody that this device trusts",
        "is another server in its place, or a proxy that looks into TLS? else enrol the device anew")),
    ("unable to get local issuer", Reason(
        "", "the server's certificate is signed by nobody that this device trusts",
        "is another server in its place, or a proxy that looks into TLS? else enrol the device anew")),
    ("certificate verify failed", Reason(
        "", "the server's certificate is not one that this device trusts",
        "is another server in its place, or a proxy that looks into TLS? else enrol the device anew")),
    ("ALERT_CERTIFICATE_EXPIRED", Reason(
        "certificate-expired", "the server says that this device's certificate has ended", ENROL)),
    ("ALERT_CERTIFICATE_REVOKED", Reason(
        "certificate-revoked", "this device was shut out: its certificate is revoked", ENROL)),
    ("ALERT_CERTIFICATE_REQUIRED", Reason(
        "certificate-missing", "the server lets nobody in without a certificate", ENROL)),
    ("ALERT_HANDSHAKE_FAILURE", Reason(
        "certificate-missing", "the server lets nobody in without a certificate", ENROL)),
    ("ALERT_UNKNOWN_CA", Reason(
        "certificate-refused", "the server does not know who made this device's certificate", ENROL)),
    ("ALERT_BAD_CERTIFICATE", Reason(
        "certificate-refused", "the server does not take this device's certificate", ENROL)),
    ("WRONG_VERSION_NUMBER", Reason(
        "", "what answers there does not speak TLS", "is this the right port? the broker's is usually 8883")),
)  # fmt: skip


def explain(said: str, cert_file: Path | None = None) -> Reason | None:
    """Read what the library said of a failed connection, beside this device's own certificate; None: nothing known."""
    found = next((reason for part, reason in _SAID if part in said), None)
    if found is not None and found.code in ("clock-wrong", "certificate-revoked"):
        return found
    own = trouble_with(cert_file, datetime.now(UTC)) if cert_file is not None else None
    return own or found


def trouble_with(cert_file: Path, now: datetime) -> Reason | None:
    """Say what is wrong with a certificate of this device's own, by its dates; None when nothing is, or unreadable."""
    from cryptography import x509  # some megabytes, for those who need it

    try:
        own = x509.load_pem_x509_certificate(cert_file.read_bytes())
    except (OSError, ValueError):
        return None
    if now > own.not_valid_after_utc:
        ended = f"{own.not_valid_after_utc:%Y-%m-%d}"
        return Reason(
            "certificate-expired", f"this device's certificate ended on {ended}; its clock says {now:%Y-%m-%d}",
            f"if the clock is wrong, set it: timedatectl set-ntp true; else {ENROL}",
        )  # fmt: skip
    if now < own.not_valid_before_utc:
        return Reason(
            "clock-wrong", f"this device's clock says {now:%Y-%m-%d}, before its own certificate was made",
            "set the clock: timedatectl set-ntp true, or timedatectl set-time; then it connects by itself",
        )  # fmt: skip
    return None
