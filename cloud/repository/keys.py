"""Private keys as files: one Ed25519 key each, in PEM, for its owner alone. Whoever holds such a file is its role."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from cloud.errors import Broken, Rejected

SUFFIX: Final = ".key"
KEY_NAME: Final = "x-shelfwire-name"
"""A field of a public key in the root: the name of the file that its private key came in."""
MOST_KEY_BYTES: Final = 64 * 1024


def make_key(folder: Path, name: str) -> CryptoSigner:
    """Make a key and write it to ``name.key`` in `folder`; never over another one.

    Raises `Rejected` (``keys-there``) and `Broken` (``keys-folder``).
    """
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.unrecognized_fields[KEY_NAME] = name
    path = folder / f"{name}{SUFFIX}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(signer.private_bytes)
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


def signers_in(folders: Iterable[Path]) -> Mapping[str, CryptoSigner]:
    """Read all keys in some folders, by key id. Raises `Rejected` (``keys-missing``, ``keys-bad``)."""
    found: dict[str, CryptoSigner] = {}
    for folder in folders:
        if not folder.is_dir():
            raise Rejected("keys-missing", f"there is no folder {folder}", "plug the stick in, or correct --keys")
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            signer = _read(path)
            found[signer.public_key.keyid] = signer
    return found


def _read(path: Path) -> CryptoSigner:
    try:
        raw = path.read_bytes() if path.stat().st_size <= MOST_KEY_BYTES else b""
        key = load_pem_private_key(raw, None)
    except (OSError, ValueError, TypeError) as error:
        raise Rejected(
            "keys-bad", f"{path} is no private key: {error}", "take the file that `fleet keys init` wrote"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Rejected("keys-bad", f"{path} is a key of another kind", "take the file that `fleet keys init` wrote")
    return CryptoSigner(key)
