"""Private keys as files: one Ed25519 key each, in PEM, for its owner alone. Whoever holds such a file is its role,
unless it is locked by a passphrase."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from cloud.errors import Broken, Rejected

SUFFIX: Final = ".key"
KEY_NAME: Final = "x-shelfwire-name"
"""A field of a public key in the root: the name of the file that its private key came in."""
MOST_KEY_BYTES: Final = 64 * 1024


Unlock = Callable[[Path], Iterable[bytes]]
"""Gives the passphrases to try on a locked key's file."""


def no_passphrase(_: Path) -> Iterable[bytes]:
    """Know none."""
    return ()


def make_key(folder: Path, name: str, passphrase: bytes | None = None) -> CryptoSigner:
    """Make a key and write it to ``name.key`` in `folder`, locked if there is a passphrase; never over another one.

    Raises `Rejected` (``keys-there``) and `Broken` (``keys-folder``).
    """
    key = Ed25519PrivateKey.generate()
    lock = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    signer = CryptoSigner(key)
    signer.public_key.unrecognized_fields[KEY_NAME] = name
    path = folder / f"{name}{SUFFIX}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise Rejected("keys-there", f"there is a key {path} already", "name another folder") from None
    except OSError as error:
        raise Broken("keys-folder", f"{path} cannot be written: {error.strerror}", "name a folder of yours") from None
    return signer


def next_name(folder: Path, role: str, taken: Iterable[str]) -> str:
    """A name for a new key of a role that neither a key of the root nor a file in `folder` has: ``root-4``."""
    used = {*taken, *(path.stem for path in folder.glob(f"*{SUFFIX}"))}
    number = 1
    while f"{role}-{number}" in used:
        number += 1
    return f"{role}-{number}"


def signers_in(folders: Iterable[Path], unlock: Unlock = no_passphrase) -> Mapping[str, CryptoSigner]:
    """Read all keys in some folders, by key id. Raises `Rejected` (``keys-missing``, ``keys-bad``, ``keys-locked``)."""
    found: dict[str, CryptoSigner] = {}
    for folder in folders:
        if not folder.is_dir():
            raise Rejected("keys-missing", f"there is no folder {folder}", "plug the stick in, or correct --keys")
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            signer = read_key(path, unlock)
            found[signer.public_key.keyid] = signer
    return found


def read_key(path: Path, unlock: Unlock = no_passphrase) -> CryptoSigner:
    """Read one key. Raises `Rejected` (``keys-bad``, ``keys-locked``)."""
    hint = "take the file that `fleet keys init` wrote"
    try:
        raw = path.read_bytes() if path.stat().st_size <= MOST_KEY_BYTES else b""
        key = load_pem_private_key(raw, None)
    except TypeError:  # it is locked
        key = _unlocked(path, raw, unlock)
    except (OSError, ValueError) as error:
        raise Rejected("keys-bad", f"{path} is no private key: {error}", hint) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Rejected("keys-bad", f"{path} is a key of another kind", hint)
    return CryptoSigner(key)


def _unlocked(path: Path, raw: bytes, unlock: Unlock) -> PrivateKeyTypes:
    for passphrase in unlock(path):
        with contextlib.suppress(ValueError):
            return load_pem_private_key(raw, passphrase)
    raise Rejected(
        "keys-locked", f"{path} is locked, and no passphrase given opens it",
        "--passphrase-file FILE (give all of them), or run this in a terminal and type it",
    )  # fmt: skip
