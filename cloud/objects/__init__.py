"""Objects: large files under keys, in a folder by default, in anything that speaks S3 when that is outgrown."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from cloud.errors import Rejected
from cloud.objects.keys import SignedPut, check_key

__all__ = ["NoSuchObject", "Objects", "SignedPut", "check_key", "fetch", "open_objects"]

S3 = "s3://"


class NoSuchObject(Rejected):
    """There is nothing under this key (``objects-missing``)."""

    def __init__(self, key: str) -> None:
        super().__init__(
            "objects-missing", f"there is no object {key}", "look whether --objects names the right place, or send it"
        )


class Objects(Protocol):
    """A place for objects. Whatever is put is whole or not there, and durable once `put` is back.

    Every method raises `Retryable` (``objects-away``), `Rejected` (``objects-auth``, ``objects-bucket``, ``bad-key``)
    and `Broken` (``objects-folder``, ``objects-full``).
    """

    @property
    def address(self) -> str:
        """What `open_objects` opens the same place with, in any process that may reach it."""

    def put(self, key: str, content: bytes | Path, *, if_absent: bool = False) -> bool:
        """Put an object, given as bytes or as a file; False when `if_absent` and there was one, which then stays.

        Some services that speak S3 know no `if_absent` and overwrite: use it only where two writers of one key would
        write the same.
        """

    def get(self, key: str) -> Iterator[bytes]:
        """Read an object in pieces of a few MiB at most. Raises `NoSuchObject`."""

    def size(self, key: str) -> int | None:
        """Its size in bytes; None when there is none."""

    def list(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, which ends at a ``/``, in no order."""

    def delete(self, key: str) -> None:
        """Delete an object; nothing happens when there is none."""

    def move(self, key: str, to: str) -> None:
        """Give an object another key, over whatever was there. Raises `NoSuchObject`."""

    def sign_put(self, key: str, *, size: int, sha256: str, expires_s: int) -> SignedPut:
        """Let whoever is given the answer put this one object within `expires_s` seconds, without other rights.

        `size` in bytes and `sha256` bind the signature where the place can check them; whoever signs looks at the
        object once more when it is there.
        """


def open_objects(address: str | Path, environment: Mapping[str, str] = os.environ) -> Objects:
    """Open a folder, or ``s3://bucket/prefix`` with what the usual AWS_* variables say.

    Raises `Rejected` (``objects-address``, ``objects-auth``) and `Broken` (``objects-folder``).
    """
    if str(address).startswith(S3):
        from cloud.objects.s3 import S3Objects

        return S3Objects(str(address), environment)
    if "://" in str(address):
        raise Rejected(
            "objects-address",
            f"{str(address)[:80]!r} is neither a folder nor s3://bucket/prefix",
            "name a folder, or a bucket as s3://bucket or s3://bucket/prefix",
        )
    from cloud.objects.folder import FolderObjects

    return FolderObjects(Path(address))


def fetch(objects: Objects, key: str, into: Path) -> str:
    """Copy an object into the file `into`; gives the SHA-256 of what came. Raises `NoSuchObject`."""
    digest = hashlib.sha256()
    with into.open("wb") as file:
        for piece in objects.get(key):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
