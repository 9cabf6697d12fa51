"""The repository's folder: signed metadata read and written so that a reader at any moment sees a whole one.

`wire.repository` says how it is laid out. New versions are written beside the old ones; the timestamp, which says
which of them count, is replaced last.
"""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from cloud.errors import Broken, Rejected
from wire.repository import BLOBS, METADATA, SIGNED_AT, TARGETS

LIVES: Final[Mapping[str, timedelta]] = {
    Root.type: timedelta(days=3 * 365),
    Targets.type: timedelta(days=365),
    Snapshot.type: timedelta(days=30),
    Timestamp.type: timedelta(days=7),
}
"""How long a signature counts. What lasts long is signed offline; what is online must be signed anew often."""

ALARMS: Final[Mapping[str, timedelta]] = {
    Root.type: timedelta(days=60),
    Targets.type: timedelta(days=30),
    Snapshot.type: timedelta(days=3),
    Timestamp.type: timedelta(days=3),
}
"""How long before its end somebody must be told: a role that has run out stops every device's updates."""

SIGN_EVERY: Final = timedelta(days=1)
KEEP_VERSIONS: Final = 20
"""Snapshots and targets of late readers that are not deleted yet."""
MOST_WAIT_S = 30.0
LOOK_EVERY_S: Final = 0.05

COMPACT = JSONSerializer(compact=True)


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle that devices may be ordered to take. `digest` is the SHA-256 of its manifest."""

    name: str
    release: int
    version: str
    digest: str
    size_bytes: int
    published_at: str


@dataclass(frozen=True, slots=True)
class RoleState:
    """One role of the metadata. `alarm`: it must be signed anew very soon, has run out, or lacks a signature."""

    role: str
    version: int
    expires_at: datetime
    left_s: float
    alarm: bool


@dataclass(slots=True)
class Current:
    """The newest metadata of every role. While keys are exchanged, `old` is the root that devices still have: what is
    signed then counts by both."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    old: Root | None = None

    def sign(self, metadata: Metadata[Any], signers: Mapping[str, Signer]) -> None:
        """Sign one of them. Raises `Rejected` (``keys-missing``)."""
        sign(metadata, self.root.signed, signers)
        for keyid in self.old.roles[metadata.signed.type].keyids if self.old is not None else ():
            if keyid in signers and keyid not in metadata.signatures:
                metadata.sign(signers[keyid], append=True)

    def is_signed(self, metadata: Metadata[Any]) -> bool:
        """Whether one of them is signed as the newest root asks; after a power cut amid a ceremony it may not be."""
        try:
            root = self.root.signed
            root.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
        except RepositoryError:
            return False
        return True


class RepositoryFolder:
    """The repository in `folder`, with the online keys in `online`. `now` gives the time of day, aware."""

    def __init__(self, folder: Path, online: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.folder = folder
        self.online = online
        self.now = now

    @classmethod
    def of_cloud(cls, data: Path) -> "RepositoryFolder":
        """The one in the cloud's folder: ``repository/``, which is served, and ``repository-keys/``, which is not."""
        data = data.expanduser()
        return cls(data / "repository", data / "repository-keys")

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return (self.folder / METADATA / "timestamp.json").is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only writer, of all threads and processes. Raises `Broken` (``repository-busy``)."""
        self.online.mkdir(mode=0o700, parents=True, exist_ok=True)
        until_s = time.monotonic() + MOST_WAIT_S
        with (self.online / "lock").open("wb") as file:
            while not _lock(file):
                if time.monotonic() > until_s:
                    raise Broken(
                        "repository-busy", "another command writes to the repository", "wait for it, or end it"
                    )
                time.sleep(LOOK_EVERY_S)
            yield

    def read(self) -> Current:
        """Read the newest metadata. Raises `Rejected` (``repository-missing``) and `Broken` (``repository-bad``)."""
        if not self.exists:
            raise Rejected(
                "repository-missing", f"there is no repository in {self.folder}",
                "make one: shelfwire-cloud fleet keys init FOLDER",
            )  # fmt: skip
        timestamp: Metadata[Timestamp] = self._load("timestamp.json")
        snapshot: Metadata[Snapshot] = self._load(f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
        targets: Metadata[Targets] = self._load(f"{snapshot.signed.meta['targets.json'].version}.targets.json")
        return Current(self._load(f"{self._newest_root()}.root.json"), timestamp, snapshot, targets)

    def root_of_trust(self) -> str:
        """The newest root, for a device that is enrolled; empty when there is no repository or no use in telling it."""
        path = self.folder / METADATA / f"{self._newest_root()}.root.json"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return path.read_text("utf-8")
        return ""

    def _newest_root(self) -> int:
        found = [path.name.partition(".")[0] for path in (self.folder / METADATA).glob("*.root.json")]
        return max((int(number) for number in found if number.isdigit()), default=0)

    def _load(self, name: str) -> Metadata[Any]:
        try:
            return Metadata.from_bytes((self.folder / METADATA / name).read_bytes())
        except (OSError, RepositoryError) as error:
            raise Broken(
                "repository-bad", f"{self.folder / METADATA / name} cannot be read: {error}",
                "bring the folder back from a copy; never from an older one than devices have seen",
            ) from None  # fmt: skip

    def published(self) -> list[Published]:
        """What devices may be ordered to take, by name and release."""
        found = [_published(path, file) for path, file in self.read().targets.signed.targets.items()]
        return sorted((one for one in found if one is not None), key=lambda one: (one.name, one.release))

    def states(self) -> list[RoleState]:
        """Every role, with what is left of its life."""
        current, now = self.read(), self.now()
        states = []
        for role in (current.root, current.targets, current.snapshot, current.timestamp):
            left = role.signed.expires - now
            states.append(
                RoleState(
                    role.signed.type, role.signed.version, role.signed.expires, left.total_seconds(),
                    left <= ALARMS[role.signed.type] or not current.is_signed(role),
                )
            )  # fmt: skip
        return states

    def write_root(self, root: Metadata[Root]) -> None:
        """Write a new root, fully signed. Raises `Broken` (``repository-folder``)."""
        self.write(f"{METADATA}/{root.signed.version}.root.json", root.to_bytes(COMPACT))

    def write_targets(self, current: Current, signers: Mapping[str, Signer], online: Mapping[str, Signer]) -> None:
        """Sign changed targets as their next version, and all that hangs on them.

        Raises `Rejected` (``keys-missing``) and `Broken` (``repository-folder``).
        """
        targets = current.targets
        targets.signed.version += 1
        targets.signed.expires = self._expiry(Targets.type)
        current.sign(targets, signers)
        content = targets.to_bytes(COMPACT)
        self.write(f"{METADATA}/{targets.signed.version}.targets.json", content)
        current.snapshot.signed.meta["targets.json"] = _meta(targets.signed.version, content)
        self.write_snapshot(current, online)

    def write_snapshot(self, current: Current, online: Mapping[str, Signer]) -> None:
        """Sign the snapshot as its next version, and the timestamp. Raises as `write_targets` does."""
        snapshot = current.snapshot
        snapshot.signed.version += 1
        snapshot.signed.expires = self._expiry(Snapshot.type)
        current.sign(snapshot, online)
        content = snapshot.to_bytes(COMPACT)
        self.write(f"{METADATA}/{snapshot.signed.version}.snapshot.json", content)
        current.timestamp.signed.snapshot_meta = _meta(snapshot.signed.version, content)
        self.write_timestamp(current, online)
        self._forget("snapshot", snapshot.signed.version)
        self._forget("targets", current.targets.signed.version)

    def write_timestamp(self, current: Current, online: Mapping[str, Signer]) -> None:
        """Sign the timestamp as its next version: from here on readers see the new state. Raises as above."""
        timestamp = current.timestamp
        timestamp.signed.version += 1
        timestamp.signed.expires = self._expiry(Timestamp.type)
        timestamp.signed.unrecognized_fields[SIGNED_AT] = _rfc3339(self.now())
        current.sign(timestamp, online)
        self.write(f"{METADATA}/timestamp.json", timestamp.to_bytes(COMPACT))

    def write(self, name: str, content: bytes) -> None:
        """Replace a file of the repository, durably. Raises `Broken` (``repository-folder``)."""
        path = self.folder / name
        half = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with half.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            half.chmod(0o644)
            half.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise unwritable(path, error) from None

    def _expiry(self, role: str) -> datetime:
        return (self.now() + LIVES[role]).replace(microsecond=0)

    def _forget(self, role: str, newest: int) -> None:
        """Delete old versions; late readers of the last few still find theirs."""
        for path in (self.folder / METADATA).glob(f"*.{role}.json"):
            number = path.name.partition(".")[0]
            if number.isdigit() and int(number) <= newest - KEEP_VERSIONS:
                path.unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> bool:
    """Take the lock that ends with the file's closing; False while somebody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sign(metadata: Metadata[Any], root: Root, signers: Mapping[str, Signer]) -> None:
    """Sign metadata by all keys of its role that are at hand. Raises `Rejected` (``keys-missing``)."""
    having = enough(metadata.signed.type, root, signers)
    metadata.signatures.clear()
    for signer in having:
        metadata.sign(signer, append=True)


def enough(role: str, root: Root, signers: Mapping[str, Signer]) -> list[Signer]:
    """The keys of a role that are at hand. Raises `Rejected` (``keys-missing``) when they are fewer than it takes."""
    keys = root.roles[role]
    having = [signers[keyid] for keyid in keys.keyids if keyid in signers]
    if len(having) < keys.threshold:
        raise Rejected(
            "keys-missing",
            f"to sign {role} takes {keys.threshold} of its {len(keys.keyids)} keys, and {len(having)} "
            f"{'is' if len(having) == 1 else 'are'} here",
            "name the folders that hold them, each with --keys; shelfwire-cloud fleet keys show lists them",
        )
    return having


def _meta(version: int, content: bytes) -> MetaFile:
    return MetaFile.from_data(version, content, ["sha256"])


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _published(path: str, file: Any) -> Published | None:
    match = re.fullmatch(r"models/([a-z0-9][a-z0-9._-]{0,63})/(\d{1,10})/bundle\.json", path)
    if match is None:
        return None
    told = file.custom or {}
    return Published(
        match[1], int(match[2]), told.get("version", ""), file.hashes["sha256"], told.get("size_bytes", 0),
        told.get("published_at", ""),
    )  # fmt: skip


def unwritable(path: Path, error: OSError) -> Broken:
    """The error of a disk that does not take what is written."""
    return Broken(
        "repository-folder", f"{path} cannot be written: {error.strerror or error}",
        "look at the disk and at who may write there; run this as the user that serves",
    )  # fmt: skip


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that names in it survive a power cut."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


PLACES: Final = (METADATA, TARGETS, BLOBS)
