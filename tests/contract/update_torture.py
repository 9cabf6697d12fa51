"""A device that is killed again and again on its way through updates: `python update_torture.py FOLDER KILLS SEED`.

Each life is a process of its own. It takes up what the one before left, walks on through orders, gates, trials and
ways back as fast as it can, and kills itself (SIGKILL) right before one of its changes to the disk. After each death
the store must give a model that was verified, and never one that was refused or rolled back. Prints what it saw.
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from datetime import time as day_time
from functools import partial
from pathlib import Path

import toy_bundles
from toy_bundles import Toy
from update_world import House

from agent.core.gates import Terms
from agent.core.updates import When
from agent.errors import Retryable
from agent.proving import Proving, wake
from agent.store.models import Models
from agent.update import Fetching, Now
from models import Bundle
from models.bundle import MANIFEST
from wire.orders import Desired, ModelOrder

BUNDLES = 40
FASTER = 5_000
"""A second of the device takes 0.2 ms here."""
MOST_CHANGES = 90
TERMS = Terms(shadow_frames=10, trial_s=20.0, trial_limit_s=500.0, trial_frames=10)
CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir"}


def refused(release: int) -> bool:
    """Every fourth does not pass its golden pictures."""
    return release % 4 == 3


def worse(release: int) -> bool:
    """Every fourth does badly in its trial."""
    return release % 4 == 1


def now() -> Now:
    ns = time.monotonic_ns() * FASTER
    return Now(When(wall_ns=1_800_000_000 * 10**9 + ns, boot_ns=ns, boot="boot"), day_time(12, 0), sure=True)


class Shelf:
    """A repository that gives what lies in a folder; what it gives is checked by the store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched = 0

    def refresh(self) -> None:
        pass

    def manifest(self, order: ModelOrder) -> bytes:
        return (self.folder / str(order.release) / MANIFEST).read_bytes()

    def fetch(self, sha256: str, size_bytes: int, into: Path) -> None:
        self.fetched += 1
        if self.fetched % 3 == 1:
            raise Retryable("update-net", "the line is cut", "")
        source = next(p for p in self.folder.glob("*/model.onnx") if p.with_name(sha256).exists())
        part = into.with_name(f"{into.name}.part")
        shutil.copyfile(source, part)
        part.replace(into)


def make_bundles(folder: Path) -> dict[int, ModelOrder]:
    """Make the bundles that are ordered, once. Beside each model lies an empty file named by its digest."""
    orders = {}
    for release in range(1, BUNDLES + 1):
        toy = Toy(gain=0.05 + (release // 2) / 1000)  # two in a row share their file
        made = toy_bundles.bundle(folder / str(release), toy, release=release, version=f"{release}.0")
        (made.folder / made.manifest.files[0].sha256).touch()
        ref = made.ref
        orders[release] = ModelOrder(name=ref.name, version=ref.version, release=release, digest=ref.digest)
    return orders


def live(models: Models, shelf: Shelf, orders: dict[int, ModelOrder], deadly: int) -> None:
    """Walk on until the `deadly`-th change to the disk."""
    left = deadly

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    fetching = Fetching(models, lambda gate: shelf, now, random.Random(1))
    wake(models, now().when)
    house = House(models.links().current)
    vision = Proving(models, house, TERMS, now, threading.Event())
    while True:
        entry = models.journal.read("model")
        if entry is None or entry.over:
            floor = max(models.journal.floor("toy"), entry.model.release if entry is not None and entry.model else 0)
            release = floor % BUNDLES + 1
            revision = 1 + (entry.revision if entry is not None else 0)
            if release == 1 and entry is not None:  # all were ordered: begin anew, as on another device
                os.kill(os.getpid(), signal.SIGTERM)
            fetching.heard(Desired(revision=revision, ordered_at=datetime.now(UTC), model=orders[release]))
        fetching.turn()
        entry = models.journal.read("model")
        if entry is not None and entry.state == "verified" and entry.model is not None and entry.model.release % 8 == 2:
            another = orders[entry.model.release + 1]
            fetching.heard(Desired(revision=entry.revision + 1, ordered_at=datetime.now(UTC), model=another))
            fetching.turn()
        release = entry.model.release if entry is not None and entry.model is not None else 0
        house.fails = "golden" if refused(release) else None
        vision.turn()
        if worse(release):
            house.trial.failed = 50
        else:
            house.does_well(20)


def look(models: Models, orders: dict[int, ModelOrder]) -> str:
    """See after a death what answers now. Raises AssertionError; gives the state that death found."""
    entry = models.journal.read("model")
    kept = models.journal.floor("toy")
    found = models.recover()
    state = entry.state if entry is not None else "idle"
    assert (found is not None) or not kept, "a device that has kept a model has none any more"
    if found is None:
        return state
    Bundle.load(found.folder)
    release = found.ref.release
    assert found.ref.digest == orders[release].digest
    assert not refused(release), f"release {release} was refused and answers, in state {state}"
    on_trial = entry is not None and entry.state == "trial" and entry.bundle == found.ref.digest[:16]
    assert on_trial or not worse(release), f"release {release} was rolled back and answers, in state {state}"
    assert on_trial or release == kept, f"release {release} answers, kept was {kept}, in state {state}"
    assert models.links().current == found.ref.digest[:16]
    return state


def main(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    orders = make_bundles(folder / "shelf")
    models, shelf = Models(folder / "models"), Shelf(folder / "shelf")
    seen: Counter[str] = Counter()
    committed = 0
    while sum(seen.values()) < kills:
        deadly = rng.randint(1, MOST_CHANGES)
        child = os.fork()
        if child == 0:
            run_quietly(partial(live, models, shelf, orders, deadly))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM:
            shutil.rmtree(folder / "models")
            continue
        assert os.WIFSIGNALED(status), f"the device ended by itself: {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        seen[look(models, orders)] += 1
        committed = max(committed, models.journal.floor("toy"))
    print(json.dumps({"kills": sum(seen.values()), "states": seen, "kept": committed}))


def run_quietly(body: Callable[[], None]) -> None:
    """Be a child of a fork: never return into the parent's code."""
    try:
        body()
    except BaseException:  # noqa: BLE001 - the child must end here, whatever happens
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
