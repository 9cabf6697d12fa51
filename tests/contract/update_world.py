"""Page 4 in a small world: a signed repository, a device's store, a clock that the test moves, a house of cards."""

import random
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, time
from pathlib import Path

import numpy as np
import toy_bundles
from repository_world import Clock, Owner
from toy_bundles import Toy

from agent.core.gates import Terms
from agent.core.trial import Tally
from agent.core.updates import Entry, When
from agent.errors import Rejected
from agent.link.download import Downloads
from agent.link.repository import ModelRepository
from agent.link.trust import Trust
from agent.ports import Picture
from agent.proving import Proving
from agent.store.models import Models
from agent.update import Fetching, Now
from agent.update_ports import Repository
from models import Bundle
from models.bundle import MANIFEST
from wire.orders import Desired, ModelOrder

BOOT = "boot-1"
TERMS = Terms(shadow_frames=10, shadow_every_s=0.0, trial_s=60.0, trial_limit_s=600.0, trial_frames=10)


class World:
    """One device, with sync's half of page 4 and the files of the owner's repository."""

    def __init__(self, folder: Path, window: tuple[time, time] | None = None) -> None:
        self.folder = folder
        self.owner = Owner()
        self.clock = Clock()
        self.local = time(12, 0)
        self.models = Models(folder / "models")
        self.models.folder.mkdir(parents=True)
        (self.models.folder / "root.json").write_bytes(self.owner.files["metadata/1.root.json"])
        self.journal = self.models.journal
        self.window = window
        self.restart_sync()

    def restart_sync(self) -> None:
        self.fetching = Fetching(self.models, self.open, self.now, random.Random(1), self.window)

    def open(self, gate: Callable[[int], None]) -> Repository:
        folder = self.models.folder
        downloads = Downloads(self.owner, self.clock, bytes_per_second=1 << 40, gate=gate)
        trust = Trust(folder / "trust", self.clock, folder / "root.json")
        return ModelRepository(trust, self.owner, downloads, folder)

    def now(self) -> Now:
        stamp = self.clock.now()
        return Now(When(wall_ns=stamp.wall_ns, boot_ns=stamp.boot_ns, boot=BOOT), self.local, self.clock.synced)

    def toy(self, release: int, gain: float = 0.05, **changes: object) -> Bundle:
        """Make a bundle of that release; each has other weights."""
        folder = self.folder / f"toy-{release}"
        return toy_bundles.bundle(folder, Toy(gain=gain + release / 1e4), release=release, version=f"{release}.0",
                                  **changes)  # fmt: skip

    def publish(self, bundle: Bundle, raw: bytes | None = None) -> ModelOrder:
        """Publish a bundle, or other bytes in the place of its `bundle.json`; gives the order for it."""
        ref = bundle.ref
        content = raw if raw is not None else (bundle.folder / MANIFEST).read_bytes()
        path = f"models/{ref.name}/{ref.release}/bundle.json"
        target = self.owner.target(self.owner.targets.signed, path, content)
        target.unrecognized_fields["custom"] = {"version": ref.version}
        for file in bundle.manifest.files:
            self.owner.files[f"blobs/{file.sha256}"] = (bundle.folder / file.path).read_bytes()
        self.owner.publish()
        return ModelOrder(name=ref.name, version=ref.version, release=ref.release, digest=target.hashes["sha256"])

    def order(self, revision: int, model: ModelOrder | None, **more: object) -> Desired:
        """Give the device an order."""
        order = Desired(revision=revision, ordered_at=datetime.now(UTC), model=model, **more)
        self.fetching.heard(order)
        return order

    @property
    def entry(self) -> Entry:
        entry = self.journal.read("model")
        assert entry is not None
        return entry

    def turns(self, n: int = 4) -> Entry:
        for _ in range(n):
            self.fetching.turn()
        return self.entry


class Card:
    """A model that is open."""

    def __init__(self, key: str | None) -> None:
        self.key = key


class CardAnswer:
    def __init__(self, label: str) -> None:
        self.label, self.score, self.took_ms = label, 0.9, 1.0


class CardBench:
    """Passes every gate but the one named in `fails`."""

    def __init__(self, fails: str | None, differs: bool) -> None:
        self.numbers: dict[str, float] = {}
        self._fails, self._differs = fails, differs

    def _gate(self, name: str) -> None:
        self.numbers[name] = 1.0
        if self._fails == name:
            raise Rejected(f"update-{name}", f"it does not pass {name}", "")

    def compiled(self) -> None:
        self._gate("compile")

    def golden(self) -> None:
        self._gate("golden")

    def fast(self) -> None:
        self._gate("slow")

    def ask(self, picture: Picture) -> CardAnswer:
        self._gate("crashed")
        return CardAnswer("Lemon" if self._differs else "Banana")

    def close(self) -> None:
        pass


class House:
    """Vision without cameras and models: `agent.update_ports.House`."""

    def __init__(self, key: str | None = None) -> None:
        self.key = key
        self.fails: str | None = None
        self.differs = False
        self.takes: list[str | None] = []
        self.trial = Tally()
        self.before = Tally()
        self.online: bool | None = None
        self.pictures: deque[tuple[Picture, str]] = deque()
        self.opens = True

    def fits(self, bundle: Bundle) -> None:
        if self.fails == "incompatible":
            raise Rejected("update-incompatible", "it does not fit", "")

    def bench(self, bundle: Bundle) -> CardBench:
        return CardBench(self.fails, self.differs)

    def pick_every(self, seconds: float | None) -> None:
        pass

    def pick(self, timeout_s: float) -> tuple[Picture, str]:
        return np.zeros((2, 2, 3), np.uint8), "Banana"

    def named(self, bundle: Bundle, answer: CardAnswer) -> str:
        return answer.label

    def open(self, bundle: Bundle | None, *, proven: bool = False) -> Card:
        if not self.opens:
            raise Rejected("model-load", "it cannot be opened", "")
        return Card(bundle.ref.digest[:16] if bundle is not None else None)

    def take_up(self, opened: Card) -> None:
        self.key = opened.key
        self.takes.append(opened.key)

    def begin_trial(self) -> None:
        self.trial = Tally()

    def end_trial(self, *, keep: bool) -> None:
        pass

    def tallies(self) -> tuple[Tally, Tally, Tally]:
        return self.before, self.trial, self.trial

    def connected(self) -> bool | None:
        return self.online

    def said(self) -> dict[str, bytes]:
        return {"said.txt": b"something"}

    def does_well(self, frames: int = 100) -> None:
        for _ in range(frames):
            self.trial.add("Banana", 20.0)
        self.trial.captured = self.trial.answered
        self.trial.seconds = 60.0


def proving(world: World, house: House, terms: Terms = TERMS) -> Proving:
    return Proving(world.models, house, terms, world.now, threading.Event())
