"""Who this device is: its key and certificate in `state_dir/identity`, replaced as a whole or not at all.

`identity` is a link to a folder below `identity.d`, so that key, certificate and addresses change in one step. A key
lies in `identity.pending` until the cloud has answered: asked again with the same code, the device uses it again.
"""

import contextlib
import json
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from agent.config import ENROLLED, IDENTITY
from agent.durable import sync_folder
from agent.errors import Broken, Rejected
from wire import enrolment

KEY, CERTIFICATE, CA = "device.key", "device.crt", "ca.crt"
MODELS, ROOT = "models", "root.json"
"""Where the root of trust for models lies; see `agent.config.Config.root_of_trust`."""
PENDING, FOLDERS = "identity.pending", "identity.d"
USER = "shelfwire"
"""The agent's user on an installed device, and its group: technicians may look, but for the key."""
GROUP_ENTERS, GROUP_READS = 0o750, 0o640


@dataclass(frozen=True, slots=True)
class Own:
    """This device's certificate as it lies there."""

    device: str
    serial: str
    not_before: datetime
    not_after: datetime

    def renew_at(self, jitter: float) -> datetime:
        """When to renew: after two thirds of its life, plus up to a twentieth by `jitter` (0 to 1)."""
        life = self.not_after - self.not_before
        return self.not_before + life * (2 / 3 + 0.05 * jitter)

    def left(self, now: datetime) -> timedelta:
        """How long it counts yet; negative once it has ended."""
        return self.not_after - now


def read(state_dir: Path) -> Own | None:
    """Read this device's certificate; None where it was never enrolled. Raises `Broken` (``identity-damaged``)."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    path = state_dir / IDENTITY / CERTIFICATE
    try:
        own = x509.load_pem_x509_certificate(path.read_bytes())
        name = own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    except FileNotFoundError:
        return None
    except (OSError, ValueError, IndexError) as error:
        raise Broken(
            "identity-damaged", f"{path} cannot be read: {error}", "run this as root, or enrol the device anew"
        ) from None
    return Own(str(name), f"{own.serial_number:x}", own.not_valid_before_utc, own.not_valid_after_utc)


@dataclass(frozen=True, slots=True)
class Request:
    """A key made on this device, which never leaves it, and the request to certify it (both PEM)."""

    key: bytes
    csr: str


def make_request(key: bytes | None = None) -> Request:
    """Make a request for `key`, or for a new one. The cloud decides on the name, so the request has none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    made = load_pem_private_key(key, None) if key is not None else ec.generate_private_key(ec.SECP256R1())
    if not isinstance(made, ec.EllipticCurvePrivateKey):
        raise ValueError("a key of another kind")  # noqa: TRY004 - it is about the content
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(made, hashes.SHA256())
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Request(pem, csr.public_bytes(Encoding.PEM).decode("ascii"))


def pending_request(state_dir: Path, code_id: str) -> Request:
    """Make a key for a code and keep it, or take the one that an earlier try with this code has made.

    Raises `Broken` (``identity-folder``).
    """
    folder = state_dir / PENDING
    with _writing(state_dir):
        if _text(folder / "code") == code_id:
            with contextlib.suppress(ValueError, OSError):
                return make_request((folder / KEY).read_bytes())
        make_folder(state_dir)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        request = make_request()
        _write(folder / KEY, request.key, 0o600)
        _write(folder / "code", code_id.encode("ascii"), 0o600)
    return request


def install(
    state_dir: Path, told: enrolment.Identity, key: bytes, prove: Callable[[Path], object] = lambda _: None
) -> Path:
    """Make what the cloud has answered this device's identity, in one step; gives its folder.

    Until that step the former identity is in force, and afterwards nothing of it is left. `prove` is shown the new
    files before; what it raises leaves the former one. Raises `Rejected` (``bad-certificate``) for an answer that does
    not fit the key or names nobody to trust, and `Broken` (``identity-folder``).
    """
    serial = _check(told, key)
    folder = state_dir / FOLDERS / serial
    with _writing(state_dir):
        make_folder(state_dir)
        (state_dir / FOLDERS).mkdir(mode=0o700, exist_ok=True)
        (state_dir / FOLDERS).chmod(GROUP_ENTERS)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _fill(folder, told, key, state_dir / IDENTITY)
            prove(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _swap(state_dir, folder)
    _tidy(state_dir, folder)
    return state_dir / IDENTITY


def _fill(folder: Path, told: enrolment.Identity, key: bytes, seen_as: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(GROUP_ENTERS)
    _write(folder / KEY, key, 0o600)
    _write(folder / CERTIFICATE, told.certificate.encode("ascii"), GROUP_READS)
    _write(folder / CA, told.trust.encode("ascii"), GROUP_READS)
    _write(folder / ENROLLED, _enrolled(told, seen_as).encode("utf-8"), GROUP_READS)
    sync_folder(folder)
    sync_folder(folder.parent)


def _swap(state_dir: Path, folder: Path) -> None:
    """Let the name point to the new folder: renaming a link is one step for everybody who looks."""
    name, link = state_dir / IDENTITY, state_dir / f"{IDENTITY}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.relative_to(state_dir))
    if name.is_dir() and not name.is_symlink():
        name.rename(state_dir / FOLDERS / "by-hand")  # somebody has put a folder there; it is kept
    link.replace(name)
    sync_folder(state_dir)


def _tidy(state_dir: Path, folder: Path) -> None:
    shutil.rmtree(state_dir / PENDING, ignore_errors=True)
    for old in (state_dir / FOLDERS).iterdir():
        if old != folder and old.name != "by-hand":
            shutil.rmtree(old, ignore_errors=True)


def _check(told: enrolment.Identity, key: bytes) -> str:
    """See that the answer is for this key and this name, and by whom it names; gives the serial number."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509.oid import NameOID

    try:
        own = x509.load_pem_x509_certificate(told.certificate.encode("ascii"))
        trusted = x509.load_pem_x509_certificates(told.trust.encode("ascii"))
        names = own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        right = [name.value for name in names] == [told.device]
        right &= own.public_key() == load_pem_private_key(key, None).public_key()
        maker = next(one for one in trusted if one.subject == own.issuer)
        own.verify_directly_issued_by(maker)
    except (ValueError, TypeError, StopIteration, InvalidSignature):
        right = False
    if not right:
        raise Rejected(
            "bad-certificate", "the cloud's answer is no certificate for this device's key",
            "update the cloud or this agent, then try again",
        )  # fmt: skip
    return f"{own.serial_number:x}"


def _enrolled(told: enrolment.Identity, folder: Path) -> str:
    """Write the configuration that comes with the identity."""
    sections = {
        "device": {"id": told.device, "store": told.store},
        "cloud": {
            "broker": told.broker, "api": told.api, "ca_file": str(folder / CA),
            "cert_file": str(folder / CERTIFICATE), "key_file": str(folder / KEY),
        },
    }  # fmt: skip
    lines = ["# Written by shelfwire-agent enroll, and again at each renewal. Your own configuration goes before it."]
    for name, keys in sections.items():
        lines += ["", f"[{name}]", *(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in keys.items())]
    return "\n".join(lines) + "\n"


def keep_root(state_dir: Path, root: str) -> Path | None:
    """Keep the root of trust for models that came with an enrolment, in place of an earlier one; None for none.

    Raises `Broken` (``identity-folder``).
    """
    if not root:
        return None
    folder, path = state_dir / MODELS, state_dir / MODELS / ROOT
    with _writing(state_dir):
        folder.mkdir(mode=GROUP_ENTERS, exist_ok=True)
        half = folder / f"{ROOT}.new"
        half.unlink(missing_ok=True)
        _write(half, root.encode("utf-8"), GROUP_READS)
        half.replace(path)
        sync_folder(folder)
    return path


def give_to_agent(state_dir: Path) -> None:
    """Give the files to the agent's user, where root has made them and there is such a user."""
    if os.geteuid() != 0:
        return
    try:
        account = pwd.getpwnam(USER)
    except KeyError:
        return
    with _writing(state_dir):
        roots = [state_dir / FOLDERS, state_dir / IDENTITY]
        inside = [path for root in roots[:1] for path in root.rglob("*")]
        models = [path for path in (state_dir / MODELS, state_dir / MODELS / ROOT) if path.exists()]
        for path in (*roots, *inside, *models):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        if state_dir.stat().st_uid == 0:
            os.chown(state_dir, account.pw_uid, account.pw_gid)


def make_folder(state_dir: Path) -> None:
    """Make the state folder, for its owner alone, where there is none yet."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def _writing(state_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Broken(
            "identity-folder",
            f"the identity cannot be written below {state_dir}: {error.strerror or error}; what was there is unchanged",
            "run this with sudo, and see that the disk has space and is sound",
        ) from error


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)  # whatever the umask of who enrols
        file.flush()
        os.fsync(file.fileno())


def _text(path: Path) -> str | None:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
