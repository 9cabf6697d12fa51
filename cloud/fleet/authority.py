"""The fleet's own certificate authority: one root in a folder, certificates for the servers and for each device.

Elliptic curve P-256 throughout. The clocks of devices may be slow, so everything is valid from some days before it was
made. The root's key never leaves its folder; whoever has it can make devices, so the folder is for its owner alone.
"""

import contextlib
import fcntl
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.errors import Broken, Rejected

BACKDATE = timedelta(days=7)
"""Valid from so long before: a device whose clock is slow by less is taken all the same."""
ROOT_LIFE = timedelta(days=20 * 365)
SERVER_LIFE = timedelta(days=2 * 365)
DEVICE_LIFE = timedelta(days=90)
CRL_LIFE = timedelta(days=10 * 365)
"""A list that has run out shuts everybody out, and it lies beside who reads it: its age is no news to an attacker."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate for a device: PEM, serial number in hexadecimal, SHA-256 of its public key, and its span."""

    pem: str
    serial: str
    key_sha256: bytes
    not_before: datetime
    not_after: datetime


class Authority:
    """A root in `folder`, made at the first use.

    Raises `Broken` (``authority-folder``, ``authority-damaged``) when it cannot be made or read.
    """

    def __init__(self, folder: Path, *, now: datetime | None = None) -> None:
        self.folder = folder.expanduser()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # two that begin at once must not make two
                if not (self.folder / "ca.key").exists():
                    self._make(now or datetime.now(UTC))
            self._key = _read_key(self.folder / "ca.key")
            self._root = x509.load_pem_x509_certificate((self.folder / "ca.crt").read_bytes())
        except OSError as error:
            raise Broken(
                "authority-folder",
                f"the certificate authority in {self.folder} cannot be used: {error.strerror or error}",
                "give the folder to the user that runs the cloud; restore it from your backup if it is gone",
            ) from error
        except ValueError as error:
            raise Broken(
                "authority-damaged",
                f"the certificate authority in {self.folder} is damaged: {error}",
                "restore the folder from your backup; without it every device has to be enrolled again",
            ) from error

    @classmethod
    def in_data(cls, data: Path) -> "Authority":
        """Open the one in the cloud's data folder. Raises as the class does."""
        return cls(data / "fleet")

    @property
    def trust(self) -> str:
        """Whom devices trust, as PEM: the root, and what an operator has put into `trust.pem` beside it."""
        root = self._root.public_bytes(Encoding.PEM).decode("ascii")
        more = self.folder / "trust.pem"
        return root + more.read_text("ascii") if more.is_file() else root

    @property
    def root_file(self) -> Path:
        """The root's certificate: whom servers trust to have made a device's certificate."""
        return self.folder / "ca.crt"

    def _make(self, now: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        number = x509.random_serial_number()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Shelfwire fleet {number:x}"[:40])])
        ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        root = (
            _builder(name, name, key.public_key(), number, now - BACKDATE, now + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(ski, critical=False)
            .sign(key, hashes.SHA256())
        )
        # The key last: a folder without it is begun anew.
        write_file(self.folder / "ca.crt", root.public_bytes(Encoding.PEM), 0o644)
        write_file(self.folder / "ca.key", key_pem(key), 0o600)

    def server(self, hosts: Sequence[str], now: datetime) -> tuple[str, bytes]:
        """Make a certificate with its chain and a key, both PEM, for a server under these names and addresses.

        Raises `Rejected` (``bad-host``).
        """
        names = [_general_name(host) for host in hosts]
        if not names:
            raise Rejected("bad-host", "a server needs a name or an address", "name one with --host")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        made = (
            self._leaf(subject, key.public_key(), now, SERVER_LIFE)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(Encoding.PEM).decode("ascii"), key_pem(key)

    def device(self, csr: str, device: str, now: datetime, life: timedelta = DEVICE_LIFE) -> Issued:
        """Certify the public key of a request for `device`, whatever the request says else.

        Raises `Rejected` (``bad-csr``).
        """
        public = _requested(csr)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        made = (
            self._leaf(subject, public, now, life)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            made.public_bytes(Encoding.PEM).decode("ascii"), f"{made.serial_number:x}", key_sha256(public),
            made.not_valid_before_utc, made.not_valid_after_utc,
        )  # fmt: skip

    def _leaf(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
    ) -> x509.CertificateBuilder:
        root_key = self._key.public_key()
        return (
            _builder(subject, self._root.subject, public, x509.random_serial_number(), now - BACKDATE, now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key), critical=False)
        )

    def revocations(self, serials: Sequence[str], now: datetime) -> bytes:
        """List revoked certificates as a CRL (PEM)."""
        # A reader whose clock is a little slow must take it; of two lists the later one counts.
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._root.subject)
            .last_update(now - timedelta(days=1))
            .next_update(now + CRL_LIFE)
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for serial in serials:
            one = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(now).build()
            builder = builder.add_revoked_certificate(one)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    number: int,
    first: datetime,
    last: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(number)
        .not_valid_before(first)
        .not_valid_after(last)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=sign_certificates, crl_sign=sign_certificates,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    text = host.strip().strip("[]")
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    try:
        return x509.DNSName(text.encode("idna").decode("ascii"))
    except (UnicodeError, ValueError):
        raise Rejected(
            "bad-host", f"{host[:80]!r} is neither a name nor an address", "for example cloud.example or 192.0.2.7"
        ) from None


def _requested(csr: str) -> ec.EllipticCurvePublicKey:
    """Read the key of a request, which must be signed by it."""
    try:
        request = x509.load_pem_x509_csr(csr.encode("ascii"))
        public = request.public_key()
        whole = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Rejected(
            "bad-csr", f"the certificate request cannot be read: {error}"[:300], "update the agent"
        ) from None
    if not whole or not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
        raise Rejected("bad-csr", "the certificate request is not signed by a P-256 key", "update the agent")
    return public


def key_sha256(public: ec.EllipticCurvePublicKey) -> bytes:
    """Digest a public key: SHA-256 of its DER form."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize()


def key_of_request(csr: str) -> bytes:
    """Digest the public key that a request asks for. Raises `Rejected` (``bad-csr``)."""
    return key_sha256(_requested(csr))


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a private key as PEM (PKCS 8, without a password: its file is for its owner alone)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds a key of another kind")  # noqa: TRY004 - what the file holds, not our caller
    return key


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, with these rights from its first moment on."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
