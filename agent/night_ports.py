"""What page 3 (`agent.nightly`) and the shipper need from the outside, in our words; beside `agent.ports`."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.core.reply import HttpReply
from agent.core.shards import Manifest, Owner
from agent.ports import ClockTrust, Spooled, Stamp


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A frame that waits for the night, as far as is needed to choose it. `size_bytes`: picture and record."""

    seq: int
    boot_id: str
    captured: Stamp
    clock: ClockTrust
    size_bytes: int


@dataclass(frozen=True, slots=True)
class NightFrame:
    """A frame that waits for the night, whole but for its picture, which lies in the spool."""

    seq: int
    run_id: str
    boot_id: str
    captured: Stamp
    clock: ClockTrust
    body: bytes
    picture: Spooled


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A finished file of the night in the folder `batch`; `name` is its name there."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A sealed file of the night that the cloud does not have for certain yet.

    `number` is this device's own; `owner` is who its rows speak of, whatever the configuration says by now.
    """

    number: int
    owner: Owner
    day: str
    part: int
    file: ShardFile
    rows: int
    sealed_ns: int
    refusals: int = 0
    error: str = ""


class Night(Protocol):
    """The outbox as the night sees it: what waits is sealed into files, a transaction each."""

    def unsealed(self) -> Iterable[Unsealed]:
        """Give every frame that waits for the night and lies in no file yet, oldest first."""
        ...

    def frames(self, seqs: Sequence[int]) -> Sequence[NightFrame]:
        """Give these frames, in their order; what is gone meanwhile is left out."""
        ...

    def next_part(self, day: str) -> int:
        """Give the number of the day's next file, from 1; no number is given twice."""
        ...

    def hand_over(
        self, file: ShardFile, owner: Owner, day: str, part: int, seqs: Sequence[int], sealed_ns: int
    ) -> Shard | None:
        """Commit, in one transaction, that these frames lie in this file now; their pictures may leave the spool.

        None, and nothing is changed, when one of them is gone meanwhile: it was evicted.
        """
        ...

    def sealed_pictures(self) -> Iterable[str]:
        """Give the names of pictures that lie in sealed files: after a crash some may still lie in the spool too."""
        ...

    def bury(self, seqs: Sequence[int], code: str) -> None:
        """Set frames aside for good, with the reason."""
        ...

    def take_back(self, number: int, pictures: Mapping[int, Spooled]) -> None:
        """Commit, in one transaction, that a file's frames lie in the spool again, and that the file is no more."""
        ...

    def sealed(self) -> Sequence[Shard]:
        """Give the files that the cloud does not have for certain yet, oldest first."""
        ...

    def hurry(self) -> None:
        """Let the files that are sealed now leave at once, whatever the window says."""
        ...


class Pictures(Protocol):
    """The spool as the night sees it."""

    def read(self, picture: Spooled) -> bytes:
        """Read a picture. Raises `agent.errors.Rejected` (``picture-lost``), `Broken` (``spool-folder``)."""
        ...

    def keep(self, jpeg: bytes) -> Spooled:
        """Write a picture durably. Raises `Broken`: ``spool-full``, ``disk-full``, ``spool-folder``."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files whose rows speak of them no longer."""
        ...


class ShardFolder(Protocol):
    """Where the night's files lie."""

    def room_bytes(self) -> int:
        """How much the disk still takes."""
        ...

    def is_sound(self, file: ShardFile) -> bool:
        """Read a file through, and tell whether it is what was written. Raises `Broken` (``batch-folder``)."""
        ...

    def read(self, file: ShardFile) -> Iterator[tuple[int, bytes]]:
        """Give a sound file's pictures, each with its frame's number."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file whose row is gone."""
        ...

    def write(self, manifest: Manifest, rows: Iterable[Mapping[str, object]]) -> ShardFile:
        """Write a file durably. Raises what `rows` raises, and `Broken`: ``disk-full``, ``batch-folder``."""
        ...

    def sweep(self, known: Collection[str], *, at_once: bool = False) -> int:
        """Remove files that were unknown at the look before already, or `at_once`; gives how many."""
        ...


class Sealed(Protocol):
    """The outbox as the shipper sees it: sealed files, until the cloud has them."""

    def sealed(self) -> Sequence[Shard]:
        """Give the files that the cloud does not have for certain yet, oldest first."""
        ...

    def ship_now(self) -> int:
        """Give the number of the last file that leaves at once; 0 when all wait for the window."""
        ...

    def live_backlog(self) -> int:
        """How many live records wait for the cloud: they go first."""
        ...

    def deliver(self, number: int) -> int:
        """Take a file and its frames out of the books: the cloud has them. Gives how many frames."""
        ...

    def note(self, number: int, error: str) -> None:
        """Keep why a file has not left yet, for whoever looks."""
        ...

    def refuse(self, number: int, error: str) -> bool:
        """Note that the cloud refused a file for good; True when that was once too often."""
        ...

    def lose(self, number: int, code: str) -> int:
        """Set the frames of a file aside for good, with the reason; gives how many."""
        ...


class SealedFiles(Protocol):
    """The folder of sealed files as the shipper sees it."""

    def is_sound(self, file: ShardFile) -> bool:
        """Read a file through, and tell whether it is what was written. Raises `Broken` (``batch-folder``)."""
        ...

    def pieces(self, file: ShardFile, size_bytes: int) -> Iterator[bytes]:
        """Read a file in pieces. Raises `OSError`."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file whose row is gone."""
        ...

    def set_aside(self, name: str) -> Path | None:
        """Move a file away that nobody will take; gives where, None when it is not there."""
        ...

    def sweep(self, known: Collection[str], *, at_once: bool = False) -> int:
        """Remove files that were unknown at the look before already, or `at_once`; gives how many."""
        ...


class ShardApi(Protocol):
    """The cloud's calls for the night's files. Each raises `agent.errors.Retryable` when there is no answer."""

    def announce(self, document: Mapping[str, object]) -> HttpReply:
        """Say what there is (`POST /v1/shards`)."""
        ...

    def put(self, url: str, headers: Mapping[str, str], pieces: Iterable[bytes], size_bytes: int) -> HttpReply:
        """Send a file to a signed address. What `pieces` raises is raised here."""
        ...

    def done(self, sha256: str, document: Mapping[str, object]) -> HttpReply:
        """Say that it was sent (`POST /v1/shards/SHA256/done`)."""
        ...
