"""What this device trusts of a repository: TUF metadata in a folder, checked by python-tuf.

The rules are those of the specification (https://theupdateframework.github.io/specification/latest/), section 5.
What is added here: metadata is safe on the disk before it counts, and a clock that stands in the past is not believed.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from agent.core import floor
from agent.durable import write_file
from agent.errors import Broken, Rejected, Retryable, ShelfwireError
from agent.link.mirror import Mirror, Missing, TooLarge
from agent.ports import Clock
from wire.envelope import utc
from wire.repository import METADATA, SIGNED_AT

log = logging.getLogger(__name__)

LIMITS: Final = UpdaterConfig(
    max_root_rotations=128,  # of one refresh: more than a key ceremony every week for two years
    max_delegations=16,
    root_max_length=128 * 1024,  # bytes, as all below
    timestamp_max_length=16 * 1024,
    snapshot_max_length=512 * 1024,
    targets_max_length=4 * 1024 * 1024,
)
FLOOR: Final = "floor"
"""File beside the metadata: when the newest accepted timestamp was signed, and by which keys."""
BEGAN: Final = "began"
"""File beside the metadata: the SHA-256 of the given root that all of it follows from."""
CLOCK_OFF: Final = timedelta(days=1)
"""A mirror's clock that differs by more points at this device's clock, once metadata seems to have run out."""

_BASE = "repository:/"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was accepted last. `clock_behind_s`: by how much this machine's clock is wrong at least, 0 if it may be
    right."""

    root: int
    timestamp: int
    snapshot: int
    targets: int
    expires_at: datetime
    signed_at: datetime | None
    clock_behind_s: float


@dataclass(frozen=True, slots=True)
class Found:
    """A file that the repository offers: what it must be, and the path under which mirrors have it."""

    file: TargetFile
    place: str


class Trust:
    """Trusted metadata in `folder`, begun with `root_file` (the root of trust) or with what `folder` has.

    `prefix` is where a mirror keeps its metadata; no clock is believed that is before `oldest`. For one thread, and
    one process at a time.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        root_file: Path | None = None,
        prefix: str = f"{METADATA}/",
        oldest: datetime = floor.BUILT,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._root_file = root_file
        self._prefix = prefix
        self._oldest = oldest
        self._updater: _Updater | None = None
        self.accepted: Accepted | None = None

    def refresh(self, mirror: Mirror) -> None:
        """Bring the metadata up to date from a mirror; what is valid of it is kept even when the rest is not.

        Raises `Rejected`: ``update-root``, ``update-signature``, ``update-expired``, ``update-clock``,
        ``update-rollback``, ``update-digest``, ``update-size``, ``update-path``; `Retryable`: ``update-net``,
        ``update-missing``, ``update-metadata``; `Broken`: ``update-folder``.
        """
        with self._explained(mirror):
            self._folder.mkdir(parents=True, exist_ok=True)
            updater = _Updater(str(self._folder), self._root(), _Fetcher(mirror, self._prefix), self._time)
            updater.refresh()
            self._updater = updater
            self._accept(updater)

    def find(self, path: str, mirror: Mirror) -> Found | None:
        """Look for a file in the metadata of the last refresh, or of one made now; None when it is not offered.

        Raises what `refresh` raises.
        """
        if self._updater is None:
            self.refresh(mirror)
        assert self._updater is not None
        with self._explained(mirror):
            file = self._updater.get_targetinfo(path)
        if file is None:
            return None
        prefixed = file.get_prefixed_paths()[0] if self._updater.root.consistent_snapshot else file.path
        return Found(file, prefixed)

    def _root(self) -> bytes:
        """The root to begin with: the newest that this device has come to from the one that it was given.

        Not always the given one: its way to the newest may be longer than one refresh may go. Another file given in
        its place begins anew, which is how an operator who has lost the root keys helps a device by hand.
        """
        given = _bytes_of(self._root_file)
        kept = next((raw for raw in map(_bytes_of, self._kept_roots()) if raw is not None and _is_root(raw)), None)
        began, mark = self._folder / BEGAN, hashlib.sha256(given or b"").hexdigest().encode()
        if kept is not None and (given is None or _bytes_of(began) == mark):
            return kept
        if given is not None:
            write_file(began, mark)
            return given
        unchecked = _bytes_of(self._folder / "root.json")  # python-tuf says what is wrong with it
        if unchecked is not None:
            return unchecked
        raise Rejected(
            "update-root", "this device has no root of trust, so it cannot tell good updates from bad ones",
            "copy the operator's root.json to this device and name it as [update] root_file",
        )  # fmt: skip

    def _kept_roots(self) -> list[Path]:
        """The newest first. The link `root.json` is replaced in two steps, so it may be missing after a power cut."""
        kept = [p for p in self._folder.glob("root_history/*.root.json") if p.name.partition(".")[0].isdigit()]
        newest_first = sorted(kept, key=lambda path: int(path.name.partition(".")[0]), reverse=True)
        return [self._folder / "root.json", *newest_first]

    def _time(self, root: Root) -> datetime:
        """The time to judge by, once the newest root is known: its keys decide whether the kept floor still counts."""
        return self._reading(root).now

    def _reading(self, root: Root) -> floor.Reading:
        return floor.reading(utc(self._clock.now().wall_ns), self._floor(root), self._oldest)

    def _floor(self, root: Root) -> datetime | None:
        """When the newest accepted timestamp was signed. Of keys that were taken away nothing is believed any more."""
        try:
            kept = json.loads((self._folder / FLOOR).read_bytes())
            if sorted(kept["keys"]) != sorted(root.roles[Timestamp.type].keyids):
                return None
            return datetime.fromisoformat(kept["signed_at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _accept(self, updater: "_Updater") -> None:
        root, timestamp = updater.root, updater.timestamp
        reading = self._reading(root)
        if reading.behind_s > 0:
            log.warning(
                "this device's clock is at least %.0f s behind: the newest update metadata is from %s; set the clock",
                reading.behind_s, reading.now.isoformat(timespec="minutes"),
            )  # fmt: skip
        signed_at = _signed_at(timestamp)
        known = self._floor(root)
        if signed_at is not None and (known is None or signed_at > known):
            keys = sorted(root.roles[Timestamp.type].keyids)
            kept = {"signed_at": signed_at.isoformat(), "keys": keys}
            write_file(self._folder / FLOOR, json.dumps(kept).encode())
        self.accepted = Accepted(
            root.version, timestamp.version, timestamp.snapshot_meta.version, updater.targets_version,
            timestamp.expires, signed_at, reading.behind_s,
        )  # fmt: skip

    @contextlib.contextmanager
    def _explained(self, mirror: Mirror) -> Any:
        """Turn what python-tuf raises into our errors. Unchecked metadata may break it in any of the ways named."""
        try:
            yield
        except exceptions.ExpiredMetadataError as error:
            raise self._expired(str(error), mirror) from None
        except (exceptions.RepositoryError, exceptions.DownloadError) as error:
            raise explain(error, mirror.where) from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _no_metadata(mirror.where) from error
        except OSError as error:
            raise Broken(
                "update-folder", f"{self._folder} cannot be used: {error.strerror or error}",
                "look at this device's disk and at who may write there",
            ) from None  # fmt: skip

    def _expired(self, what: str, mirror: Mirror) -> ShelfwireError:
        name = what.partition(".json")[0].removeprefix("Final ")
        now, told = utc(self._clock.now().wall_ns), mirror.told_at
        day = f"{now:%Y-%m-%d}"
        if told is not None and now - told > CLOCK_OFF:
            return Rejected(
                "update-clock",
                f"by this device's clock ({day}) the {name} metadata has run out, but the mirror says it is "
                f"{told:%Y-%m-%d}",
                "set this device's clock, then it goes on",
            )
        if told is None and self._clock.trust() != "synced" and now > self._oldest:
            return Rejected(
                "update-clock",
                f"by this device's clock ({day}), which no time server keeps, the {name} metadata has run out",
                "look whether the date is right; if it is, copy the repository anew",
            )
        return Rejected(
            "update-expired", f"the {name} metadata of {mirror.where} has run out: it may be held back on purpose",
            "the operator signs it anew: shelfwire-cloud fleet refresh; for a stick, copy the repository again",
        )  # fmt: skip


class _Updater(Updater):
    """python-tuf's client, with durable writes and the time passed in. These four names are its inner ones, which is
    why the major version is pinned; `tests/contract/test_repository.py` fails when one of them goes."""

    def __init__(
        self, folder: str, root: bytes, fetcher: FetcherInterface, time_by: Callable[[Root], datetime]
    ) -> None:
        self._time_by = time_by
        super().__init__(folder, _BASE, fetcher=fetcher, config=LIMITS, bootstrap=root)

    @property
    def root(self) -> Root:
        return self._trusted_set.root

    @property
    def timestamp(self) -> Timestamp:
        return self._trusted_set.timestamp

    @property
    def targets_version(self) -> int:
        return self._trusted_set.targets.version

    def _load_root(self) -> None:
        super()._load_root()
        self._trusted_set.reference_time = self._time_by(self._trusted_set.root)

    def _persist_file(self, filename: str, data: bytes) -> None:
        write_file(Path(filename), data)


class _Fetcher(FetcherInterface):
    """Metadata from a mirror, bounded as it is read."""

    def __init__(self, mirror: Mirror, prefix: str) -> None:
        self._mirror = mirror
        self._prefix = prefix

    def download_bytes(self, url: str, max_length: int) -> bytes:
        try:
            return self._mirror.read(self._prefix + url.removeprefix(_BASE), max_length)
        except Missing as error:
            raise exceptions.DownloadHTTPError(str(error), 404) from error
        except TooLarge as error:
            raise exceptions.DownloadLengthMismatchError(str(error)) from error

    def _fetch(self, url: str) -> Any:
        raise NotImplementedError("files are fetched by agent.link.download")


def explain(error: Exception, where: str) -> ShelfwireError:
    """Say in our words what python-tuf has found wrong."""
    text = str(error)
    if isinstance(error, exceptions.UnsignedMetadataError):
        return Rejected(
            "update-signature", f"metadata of {where} lacks the signatures that it needs: {text}",
            "nothing of it was taken; look who changed the repository, or renew this device's root.json",
        )  # fmt: skip
    if isinstance(error, exceptions.BadVersionNumberError):
        return Rejected(
            "update-rollback", f"{where} offers metadata that is older than, or not what, was promised: {text}",
            "nothing of it was taken; publish forward, never from an old copy of the repository",
        )  # fmt: skip
    if isinstance(error, exceptions.LengthOrHashMismatchError):
        return Rejected(
            "update-digest", f"metadata of {where} is not what was promised of it: {text}",
            "the mirror mixes versions, or somebody changed a file: copy the whole repository there again",
        )  # fmt: skip
    if isinstance(error, exceptions.DownloadLengthMismatchError):
        return Rejected("update-size", f"metadata of {where} is larger than it may be: {text}", "look at the mirror")
    if isinstance(error, exceptions.DownloadHTTPError):
        return Retryable(
            "update-missing", text, "the mirror may lag behind, or [update] repository names the wrong place"
        )
    if isinstance(error, exceptions.DownloadError):
        return Retryable("update-net", text, "it is tried again")
    if "missing info" in text:
        return Rejected(
            "update-rollback", f"{where} has dropped metadata that it promised before: {text}",
            "nothing of it was taken; publish forward, never from an old copy of the repository",
        )  # fmt: skip
    return _no_metadata(where)


def _no_metadata(where: str) -> Retryable:
    return Retryable(
        "update-metadata", f"what {where} answers is no metadata of a repository",
        "look whether a login page or another server answers; correct [update] repository",
    )  # fmt: skip


def _bytes_of(path: Path | None) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes() if path is not None else None
    return None


def _is_root(raw: bytes) -> bool:
    """Whether a kept root is whole: signed as it says itself."""
    try:
        root = Metadata[Root].from_bytes(raw)
        root.verify_delegate(Root.type, root)
    except (exceptions.RepositoryError, ValueError, TypeError, KeyError, AttributeError):
        return False
    return True


def _signed_at(timestamp: Timestamp) -> datetime | None:
    told = timestamp.unrecognized_fields.get(SIGNED_AT)
    with contextlib.suppress(ValueError, TypeError):
        signed_at = datetime.fromisoformat(str(told)).astimezone(UTC)
        return signed_at if floor.believable(signed_at, timestamp.expires) else None
    return None
