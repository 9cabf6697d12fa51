"""Can this device show who it is? Its certificate: valid, its own, renewed; its key: fitting, kept secret."""

import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from agent.checks.context import Context, run_as
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.config import Cloud
from agent.link.certificate import Certificate, read_file

RENEWED_SHARE = 0.25
"""Renewal begins well before this part of a certificate's life is left; one that gets here was not renewed."""


def check(context: Context) -> Iterator[Finding]:
    """Look at the device's certificate and key, and at the authority that it trusts."""
    cloud = context.config.cloud if context.config else None
    if cloud is None or (cloud.cert_file is None and cloud.ca_file is None):
        why = "there is no configuration" if cloud is None else "this device logs in without one"
        yield skipped("certificates", "device certificate", why)
        return
    try:
        yield from _look(context, cloud)
    except PermissionError:
        yield skipped("certificates", "device certificate", run_as(context))


def _look(context: Context, cloud: Cloud) -> Iterator[Finding]:
    now_s = context.clock.now().wall_ns / 1e9
    if cloud.ca_file is not None:
        authority = _read(cloud.ca_file)
        if isinstance(authority, Finding):
            yield authority
        elif authority.days_left(now_s) < 0:
            ended = f"the authority {authority.subject} ended {authority.ends:%Y-%m-%d}"
            yield wrong("certificates", "CRT-2", ended, title="the authority that this device trusts has expired")
    if cloud.cert_file is None or cloud.key_file is None:
        return
    found = _read(cloud.cert_file)
    if isinstance(found, Finding):
        yield found
        return
    device = context.config.device.id if context.config else ""
    yield from judge(found, device, now_s)
    renewal = str(context.sync().link.get("renewal") or "")
    if renewal:
        yield wrong("certificates", "CRT-8", renewal)
    yield from _key(cloud.cert_file, cloud.key_file)


def _read(path: Path) -> Certificate | Finding:
    """Read a certificate. Raises `PermissionError`."""
    try:
        return read_file(path)
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        return wrong("certificates", "CRT-1", f"{path}: {error}")


def judge(found: Certificate, device: str, now_s: float) -> Iterator[Finding]:
    """Judge a device's certificate by its name and its dates."""
    now = datetime.fromtimestamp(now_s, UTC)
    life_days = (found.ends - found.begins).total_seconds() / 86_400
    left_days = found.days_left(now_s)
    if device and found.subject != device:
        yield wrong("certificates", "CRT-6", f"it is of {found.subject}, this is {device}")
    if now < found.begins:
        yield wrong(
            "certificates", "CRT-3", f"it begins {found.begins:%Y-%m-%d %H:%M}, here it is {now:%Y-%m-%d %H:%M}"
        )
    elif left_days < 0:
        yield wrong("certificates", "CRT-2", f"it ended {found.ends:%Y-%m-%d}, {-left_days:.0f} days ago")
    elif left_days < RENEWED_SHARE * life_days:
        yield wrong("certificates", "CRT-4", f"it ends {found.ends:%Y-%m-%d}, in {left_days:.0f} days")
    else:
        yield fine("certificates", f"the certificate of {found.subject} holds for {left_days:.0f} days more")


def _key(cert_file: Path, key_file: Path) -> Iterator[Finding]:
    if not key_file.exists():
        yield wrong("certificates", "CRT-1", f"there is no {key_file}")
        return
    with key_file.open("rb"):
        pass  # raises where this user may not read it; what OpenSSL says then is no help
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert_file, key_file, password=lambda: b"")
    except ssl.SSLError as error:
        fits = "MISMATCH" not in (error.reason or "")
        detail = f"{key_file}: {(error.reason or 'it cannot be read').lower().replace('_', ' ')}"
        yield wrong("certificates", "CRT-1" if fits else "CRT-5", detail)
    if key_file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        yield wrong("certificates", "CRT-7", str(key_file))


CHECK = Check("certificates", "certificates", "certificate and key: valid, days left, fitting", check)
