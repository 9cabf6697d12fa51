"""The files of a mosquitto of the operator's own: TLS for devices, a password on loopback for the cloud."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cloud import broker_files as files
from cloud.errors import Broken
from cloud.fleet.authority import SERVER_LIFE, Authority


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the folder, the configuration, the cloud's password, and until when the certificate counts."""

    folder: Path
    configuration: Path
    password: Path
    until: datetime


def tls_of(authority: Authority, hosts: Sequence[str], serials: Sequence[str], now: datetime) -> files.Tls:
    """Make what a broker needs for TLS under these names. Raises `Rejected` (``bad-host``)."""
    certificate, key = authority.server(hosts, now)
    return files.Tls(
        authority.root_file.read_bytes(), certificate.encode("ascii"), key, authority.revocations(serials, now)
    )


def write_broker_folder(
    folder: Path,
    authority: Authority,
    hosts: Sequence[str],
    listen: str,
    ports: tuple[int, int],
    serials: Sequence[str],
    now: datetime,
) -> Written:
    """Write everything into `folder`, with a fresh certificate and list of revoked ones; passwords stay.

    `ports` are the devices' and the cloud's. Raises `Broken` (``broker-folder``) and `Rejected` (``bad-host``).
    """
    folder = folder.expanduser().resolve()
    tls = tls_of(authority, hosts, serials, now)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write_accounts(folder, ())
        (folder / files.REVOKED).unlink(missing_ok=True)
        files.write_tls(folder, tls)
        at = files.Listeners(*ports, host=listen, tls=True)
        path = folder / files.CONFIGURATION
        files.write_private(path, "")
        user = files.give_to_broker(folder)
        files.write_private(path, files.configuration(folder, at, user, pid_file=True))
    except OSError as error:
        raise Broken(
            "broker-folder", f"{folder} cannot be written: {error.strerror or error}", "choose another, or use sudo"
        ) from error
    return Written(folder, path, files.password_file(folder, files.CLOUD), now + SERVER_LIFE)
