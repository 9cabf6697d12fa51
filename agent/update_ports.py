"""What page 4 (`agent.update`) needs from the outside, in our words; beside `agent.ports`, which is long enough."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from agent.core.lifecycle import What
from agent.core.trial import Tally
from agent.core.updates import Entry, Links
from agent.ports import Picture
from models.bundle import Bundle, BundleFile, Manifest
from wire.orders import Desired, ModelOrder, Reported


class Journal(Protocol):
    """What is under way; see `agent.store.journal`."""

    def turn(self) -> AbstractContextManager[None]:
        """Hold the lock over journal, links and bundles. Never inside another turn."""
        ...

    def read(self, what: What) -> Entry | None:
        """Give the last update of that kind."""
        ...

    def write(self, entry: Entry, *, raise_floor: bool = False) -> None:
        """Keep an update as it stands, and with `raise_floor` its release as the least; within a turn."""
        ...

    def newest(self) -> Desired | None:
        """Give the newest order that was heard."""
        ...

    def keep_newest(self, order: Desired) -> bool:
        """Keep an order when it is newer; gives whether it was. Takes a turn."""
        ...

    def floor(self, name: str) -> int:
        """Give the highest release of that model that was kept."""
        ...

    @property
    def pinned(self) -> bool:
        """Whether a technician holds the model as it is."""
        ...


class Store(Protocol):
    """The device's models; see `agent.store.models`. What changes links or bundles is called within a turn."""

    @property
    def journal(self) -> Journal:
        """The journal beside them."""
        ...

    def links(self) -> Links:
        """Tell which bundles the links name."""
        ...

    def wanted(self, entry: Entry | None) -> Links:
        """Tell what they must name by the journal."""
        ...

    def point(self, links: Links) -> None:
        """Make them name these."""
        ...

    def bundle(self, key: str | None) -> Bundle | None:
        """Load a bundle and check every file; None when it is not whole."""
        ...

    def read_manifest(self, raw: bytes) -> Manifest:
        """Read and check `bundle.json`. Raises `Rejected`."""
        ...

    def missing(self, manifest: Manifest) -> list[BundleFile]:
        """List the files that are not here yet."""
        ...

    def blob(self, sha256: str) -> Path:
        """Give the place of a file by its content."""
        ...

    def need_room(self, size_bytes: int) -> None:
        """Check the disk. Raises `Retryable` (``update-space``)."""
        ...

    def assemble(self, raw: bytes) -> Bundle:
        """Make the bundle's folder and mark it as whole. Raises `Rejected`, `Broken`."""
        ...

    def recover(self) -> Bundle | None:
        """Put the links right by the journal; gives the bundle that answers. Takes a turn."""
        ...

    def sweep(self) -> None:
        """Remove what nothing needs. Takes a turn."""
        ...

    def keep_failed(self, entry: Entry, said: dict[str, bytes]) -> Path | None:
        """Save what is known of a model that failed."""
        ...


class Orders(Protocol):
    """Orders of the cloud and the reports on them, as the uplink passes them on. Never waits, never raises."""

    def heard(self, order: Desired) -> None:
        """Take an order that came in."""
        ...

    def reported(self) -> Reported | None:
        """Say what runs and what became of the orders; None when that cannot be said now."""
        ...


class Answer(Protocol):
    """What the new model says of a picture, before any threshold."""

    @property
    def label(self) -> str:
        """Its best label."""
        ...

    @property
    def score(self) -> float:
        """That label's score."""
        ...

    @property
    def took_ms(self) -> float:
        """What it took."""
        ...


class Bench(Protocol):
    """The process in which a new model is tried; see `agent.proof.bench`. The gates raise `Rejected` with numbers."""

    numbers: dict[str, float]

    def compiled(self) -> None:
        """Wait until it is loaded and compiled."""
        ...

    def golden(self) -> None:
        """Wait until its golden pictures were answered, and look at its memory."""
        ...

    def fast(self) -> None:
        """Wait until its speed was measured."""
        ...

    def ask(self, picture: Picture) -> Answer | None:
        """Have it classify a picture; None at the stop."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Opened(Protocol):
    """A model that is open and ready to answer."""

    @property
    def key(self) -> str | None:
        """Its name in the store; None for the configured bundle."""
        ...


class House(Protocol):
    """What vision lets page 4 see and do; see `agent.app.updating`."""

    @property
    def key(self) -> str | None:
        """The name of the model that answers; None for the configured bundle."""
        ...

    def fits(self, bundle: Bundle) -> None:
        """Check a bundle against this device and its alert rules. Raises `Rejected` (``update-incompatible``)."""
        ...

    def bench(self, bundle: Bundle) -> Bench:
        """Begin to try a bundle in a process of its own."""
        ...

    def pick(self, timeout_s: float) -> tuple[Picture, str] | None:
        """Give a picked live picture and what the running model names it (its label, or "unknown"), or None."""
        ...

    def pick_every(self, seconds: float | None) -> None:
        """Begin to pick a picture of each camera this often; None: pick none."""
        ...

    def named(self, bundle: Bundle, answer: Answer) -> str:
        """Name an answer of the new model as it would be named if it were running."""
        ...

    def open(self, bundle: Bundle | None, *, proven: bool = False) -> Opened:
        """Open a model, or the configured one, beside the running one. Raises `Rejected`, `Broken`.

        A `proven` one has answered its golden pictures a moment ago, and need not again.
        """
        ...

    def take_up(self, opened: Opened) -> None:
        """Have it answer from the next frame on, and let go of the one before."""
        ...

    def begin_trial(self) -> None:
        """Count from here on what is done in the trial."""
        ...

    def end_trial(self, *, keep: bool) -> None:
        """Add what the trial has counted to this device's history, or forget it."""
        ...

    def tallies(self) -> tuple[Tally, Tally, Tally]:
        """Give the 24 hours before the trial, the trial, and the trial's last minute."""
        ...

    def connected(self) -> bool | None:
        """Whether the device is connected to its broker; None where it has none, or the line is away."""
        ...

    def said(self) -> dict[str, bytes]:
        """Give what may help to find out what is wrong: files for the folder of a failed model."""
        ...


class Repository(Protocol):
    """Models that may be trusted, whichever road they come by. No call takes an address: that is configured."""

    def refresh(self) -> None:
        """Bring the metadata up to date. A check that finds nothing new costs under 2 kB.

        Raises `agent.errors.Retryable` (``update-net``, ``update-missing``, ``update-metadata``), `Rejected`
        (``update-signature``, ``update-expired``, ``update-clock``, ``update-rollback``, ``update-digest``,
        ``update-size``, ``update-path``, ``update-root``) and `Broken` (``update-folder``). What was trusted before
        stays so.
        """
        ...

    def manifest(self, order: ModelOrder) -> bytes:
        """Give the verified ``bundle.json`` of an order. Raises `Rejected` (``update-unlisted``, ``update-differs``)
        and what `refresh` and `fetch` raise."""
        ...

    def fetch(self, sha256: str, size_bytes: int, into: Path) -> None:
        """Have the file `into` with this content: verified, resumed, within the cap on bandwidth, safe on the disk.

        Nothing is fetched when it is there already. Raises `Retryable` (``update-net``, ``update-missing``,
        ``update-space``, ``update-stopped``, ``update-digest`` for a part that must be fetched anew), `Rejected`
        (``update-digest``, ``update-size``) and `Broken` (``update-folder``).
        """
        ...
