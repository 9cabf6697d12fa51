"""Objects in a folder, with signed addresses that our own server takes.

Reading goes through obstore; writing is ours, because an object that is spoken of in the database must survive a power
cut: file and folder are flushed before `put` is back, which obstore's local store does not do.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import obstore
from obstore.store import LocalStore

from cloud.errors import Broken, CloudError, Rejected
from cloud.objects import NoSuchObject
from cloud.objects.keys import Grant, SignedPut, address, check_grant, check_key, check_prefix

PIECE_BYTES: Final = 1024 * 1024
SECRET_BYTES: Final = 32
OLD_UPLOAD_S: Final = 24 * 3600
"""An upload that was cut and not touched for so long is swept when the place is opened."""

_OWN = ".shelfwire"  # no key begins with a dot


class FolderObjects:
    """Objects below `folder`. Any number of processes of one machine may use it at once."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = folder.expanduser().resolve()
        self._now = now
        with self.explained():
            self._incoming = self._folder / _OWN / "incoming"
            self._incoming.mkdir(parents=True, exist_ok=True)
            (self._folder / _OWN).chmod(0o700)
            self._sweep()
            self._secret = _secret(self._folder / _OWN / "signing-key")
        self._store = LocalStore(self._folder)

    @property
    def address(self) -> str:
        """See Objects."""
        return str(self._folder)

    def put(self, key: str, content: bytes | Path, *, if_absent: bool = False) -> bool:
        """See Objects."""
        check_key(key)
        with self.explained(), self.incoming_file() as (file, path):
            if isinstance(content, bytes):
                file.write(content)
            else:
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file, PIECE_BYTES)
            return self.keep(file, path, key, if_absent=if_absent)

    def get(self, key: str) -> Iterator[bytes]:
        """See Objects."""
        check_key(key)
        with self.explained(key):
            for piece in obstore.get(self._store, key).stream(PIECE_BYTES):
                yield bytes(piece)

    def size(self, key: str) -> int | None:
        """See Objects."""
        with self.explained(), contextlib.suppress(FileNotFoundError):
            return int(obstore.head(self._store, check_key(key))["size"])
        return None

    def list(self, prefix: str) -> Iterator[str]:
        """See Objects."""
        with self.explained():
            for page in obstore.list(self._store, check_prefix(prefix)):
                yield from (found["path"] for found in page)

    def delete(self, key: str) -> None:
        """See Objects."""
        with self.explained():
            (self._folder / check_key(key)).unlink(missing_ok=True)

    def move(self, key: str, to: str) -> None:
        """See Objects."""
        source, target = self._folder / check_key(key), self._folder / check_key(to)
        with self.explained(key):
            self._make_folders(target)
            source.replace(target)
            _flush_folder(target.parent)
            _flush_folder(source.parent)

    def sign_put(self, key: str, *, size: int, sha256: str, expires_s: int) -> SignedPut:
        """See Objects."""
        grant = Grant(key, size, sha256, int(self._now()) + expires_s)
        return SignedPut(address(self._secret, grant), {"Content-Type": "application/octet-stream"}, expires_s)

    def receive(self, grant: Grant, signature: str) -> "Upload":
        """Begin to take what was signed. Raises `Rejected` (``signature-bad``, ``signature-expired``)."""
        check_grant(self._secret, grant, signature, self._now())
        return Upload(self, grant)

    @contextmanager
    def incoming_file(self) -> Iterator[tuple[IO[bytes], Path]]:
        """A new file beside the objects, on their own file system; removed unless it became one."""
        number, name = tempfile.mkstemp(dir=self._incoming)
        path = Path(name)
        try:
            with os.fdopen(number, "wb") as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, file: IO[bytes], path: Path, key: str, *, if_absent: bool) -> bool:
        """Make the whole file at `path` the object `key`."""
        file.flush()
        os.fsync(file.fileno())
        target = self._folder / key
        self._make_folders(target)
        if if_absent:
            try:
                target.hardlink_to(path)  # unlike a rename, a link never replaces
            except FileExistsError:
                return False
        else:
            path.replace(target)
        _flush_folder(target.parent)
        return True

    def _make_folders(self, target: Path) -> None:
        missing = [
            folder for folder in target.relative_to(self._folder).parents if not (self._folder / folder).is_dir()
        ]
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _flush_folder((self._folder / folder).parent)

    def _sweep(self) -> None:
        for path in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if self._now() - path.stat().st_mtime > OLD_UPLOAD_S:
                    path.unlink()

    @contextmanager
    def explained(self, key: str = "") -> Iterator[None]:
        """Turn the system's errors into ours."""
        try:
            yield
        except CloudError:
            raise
        except FileNotFoundError as error:
            if not key:
                raise
            raise NoSuchObject(key) from error
        except (OSError, obstore.exceptions.BaseError) as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> Broken:
        said = " ".join(str(error).split())[:300]
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in said:
            return Broken(
                "objects-full", f"no space for objects in {self._folder}",
                "free some space, or choose another place with --objects",
            )  # fmt: skip
        return Broken(
            "objects-folder", f"the objects' folder {self._folder} cannot be used: {said}",
            "give this user the folder, or choose another place with --objects",
        )  # fmt: skip


class Upload:
    """One signed object on its way in. Use it as a context; what was not finished leaves no trace."""

    def __init__(self, objects: FolderObjects, grant: Grant) -> None:
        self._objects = objects
        self._grant = grant
        self._came = 0
        self._digest = hashlib.sha256()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Upload":
        with self._objects.explained():
            self._file, self._path = self._stack.enter_context(self._objects.incoming_file())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(self, piece: bytes) -> None:
        """Take the next piece. Raises `Rejected` (``object-too-large``) as soon as there is more than was signed."""
        self._came += len(piece)
        if self._came > self._grant.size:
            raise Rejected(
                "object-too-large", f"more than the {self._grant.size} bytes came that were signed",
                "send the file as it was announced, or announce it anew: POST /v1/shards",
            )  # fmt: skip
        self._digest.update(piece)
        with self._objects.explained():
            self._file.write(piece)

    def finish(self) -> None:
        """Make it an object when it is exactly what was signed. Raises `Rejected` (``object-differs``)."""
        if self._came != self._grant.size or self._digest.hexdigest() != self._grant.sha256:
            raise Rejected(
                "object-differs",
                f"{self._came} of {self._grant.size} bytes came, or others than those that were announced",
                "send the whole file again; if that stays, it was changed after it was announced",
            )
        with self._objects.explained():
            self._objects.keep(self._file, self._path, self._grant.key, if_absent=False)


def _secret(path: Path) -> bytes:
    """Read the secret that signs addresses; made when there is none, by whoever is first."""
    if not path.exists():
        number, name = tempfile.mkstemp(dir=path.parent)  # readable by its owner only
        with os.fdopen(number, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(name)
        Path(name).unlink()
    return path.read_bytes()


def _flush_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
