"""What mosquitto reads: its configuration, accounts, access lists and, for devices with certificates, TLS.

Two listeners. Devices come in by one, where everybody's client id is its user name, so that no device can take the
place of another; with TLS the user name is the CN of the certificate. The cloud's own programs come in by the other, on
this machine alone, where several may share one account. An account of one side is unknown at the other.
"""

import base64
import contextlib
import hashlib
import os
import pwd
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wire import topics

CLOUD = "cloud"
"""User name of the cloud's own programs."""

HOST = "127.0.0.1"

PBKDF2_ROUNDS = 101
"""What mosquitto_passwd itself uses: the passwords are 24 random bytes, not words of people."""

CONFIGURATION, LOG, PID, REVOKED = "broker.conf", "broker.log", "broker.pid", "revoked.pem"

_WRITE = ("status", "results", "alerts", "pictures", "reported", "receipts/up", "echo")
_READ = ("receipts/down", "verdicts", "desired", "commands/#", "echo")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of the devices' listener, all PEM: who makes their certificates, who is revoked, and the broker's own."""

    root: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    revoked: bytes


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where the broker listens: for devices, with or without TLS, and on this machine for the cloud."""

    port: int
    cloud_port: int
    host: str = HOST
    tls: bool = False


def password_file(folder: Path, user: str) -> Path:
    """Where the password of `user` (a device, or `CLOUD`) lies: one line."""
    return folder / "passwords" / user


def write_accounts(folder: Path, devices: Sequence[str]) -> None:
    """Write accounts and access lists into `folder`; passwords are made once. `devices` are those with passwords."""
    (folder / "passwords").mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "data").mkdir(exist_ok=True, mode=0o700)
    for user in (CLOUD, *devices):
        if not password_file(folder, user).exists():
            write_private(password_file(folder, user), secrets.token_urlsafe(24) + "\n")
    write_private(folder / "cloud.users", _user_line(folder, CLOUD))
    write_private(folder / "cloud.access", f"user {CLOUD}\ntopic readwrite {topics.PREFIX}/#\n")
    write_private(folder / "device.users", "".join(_user_line(folder, device) for device in devices))
    lines = [f"pattern write {topics.PREFIX}/%u/{rest}" for rest in _WRITE]
    lines += [f"pattern read {topics.PREFIX}/%u/{rest}" for rest in _READ]
    write_private(folder / "device.access", "\n".join(lines) + "\n")


def write_tls(folder: Path, tls: Tls) -> None:
    """Write certificates and key. A list of revoked ones that is there already is newer, and stays."""
    write_private(folder / "ca.crt", tls.root.decode("ascii"))
    write_private(folder / "server.crt", tls.certificate.decode("ascii"))
    write_private(folder / "server.key", tls.key.decode("ascii"))
    if not (folder / REVOKED).exists():
        write_private(folder / REVOKED, tls.revoked.decode("ascii"))


def configuration(folder: Path, at: Listeners, user: str | None, *, pid_file: bool = False) -> str:
    """Write mosquitto's configuration; `user` is whom it becomes when root starts it."""
    lines = [
        "per_listener_settings true",
        "persistence true",
        f"persistence_location {folder / 'data'}/",
        "autosave_interval 60",
        "persistent_client_expiration 14d",
        "max_packet_size 1048576",
        "max_inflight_messages 20",
        "max_queued_messages 10000",
        "max_queued_bytes 268435456",
        "set_tcp_nodelay true",
        f"log_dest file {folder / LOG}",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages true",
    ]
    if user is not None:
        lines.append(f"user {user}")
    if pid_file:
        lines.append(f"pid_file {folder / PID}")
    lines += ["", f"listener {at.cloud_port} {HOST}", "allow_anonymous false"]
    lines += [f"password_file {folder / 'cloud.users'}", f"acl_file {folder / 'cloud.access'}"]
    lines += ["", f"listener {at.port} {at.host}", "allow_anonymous false", f"acl_file {folder / 'device.access'}"]
    lines += _tls(folder) if at.tls else [f"password_file {folder / 'device.users'}"]
    lines.append("use_username_as_clientid true")
    return "\n".join(lines) + "\n"


def _tls(folder: Path) -> list[str]:
    return [
        f"cafile {folder / 'ca.crt'}",
        f"certfile {folder / 'server.crt'}",
        f"keyfile {folder / 'server.key'}",
        f"crlfile {folder / REVOKED}",
        "tls_version tlsv1.2",  # and newer
        "require_certificate true",
        "use_identity_as_username true",
    ]


def _user_line(folder: Path, user: str) -> str:
    """Write a line of mosquitto's password file: PBKDF2 with SHA-512, as `mosquitto_passwd -H sha512-pbkdf2`."""
    password = password_file(folder, user).read_text("utf-8").strip()
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    return f"{user}:$7${PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def give_to_broker(folder: Path) -> str | None:
    """Choose the system user that mosquitto becomes, and give it the files. None: it stays who we are.

    Started by root, mosquitto gives its rights up, but then it needs a way to its folder; where a private folder lies
    above, it has to stay root. The passwords are not for it: it has their digests.
    """
    if os.geteuid() != 0:
        return None
    user = next((name for name in ("mosquitto", "nobody") if _known_user(name)), "root")
    if not all(stat.S_IMODE(parent.stat().st_mode) & stat.S_IXOTH for parent in folder.parents):
        user = "root"
    account = pwd.getpwnam(user)
    shared = [folder, folder / "data", *(folder / "data").iterdir()]
    shared += [path for path in folder.iterdir() if path.is_file()]
    for path in shared:
        os.chown(path, account.pw_uid, account.pw_gid)
    return user


def _known_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
