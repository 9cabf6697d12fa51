"""The journal of updates: how far each has come, written before anything is done, so that a power cut finds its way.

One small JSON file, replaced by rename after fsync. Who changes it holds the lock of the folder; readers need none.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.core import lifecycle
from agent.core.lifecycle import Event, State, What
from agent.errors import Broken
from agent.ports import Stamp
from wire.orders import ConfigOrder, Desired, Disagreement, ModelOrder, Update

JOURNAL: Final = "journal.json"
NEWEST: Final = "newest.json"
PINNED: Final = "pinned"
LOCK: Final = "lock"
MOST_BYTES: Final = 1 << 20

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""The first 16 digits of a bundle's digest: the name of its folder in the store."""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Links(_Kept):
    """Which bundles the two links name; None where there is no link."""

    current: Key | None = None
    previous: Key | None = None


class Entry(_Kept):
    """One update. `former` is what the links were before; `starts` counts the crashes that its trial has seen.

    `open` is set while vision is at a trial: one that is found set at a start was left by a crash.
    """

    what: Literal["model", "config"]
    revision: int
    rollout: str = ""
    model: ModelOrder | None = None
    config: ConfigOrder | None = None
    download_window: str | None = None
    apply_window: str | None = None
    deadline_wall_ns: int | None = None
    state: lifecycle.State = "offered"
    code: str | None = None
    text: str = ""
    numbers: dict[str, float] = Field(default_factory=dict)
    disagreements: tuple[Disagreement, ...] = ()
    progress: float = 0.0
    attempt: int = 0
    since_wall_ns: int = 0
    since_boot_ns: int = 0
    boot: str = ""
    bundle: Key | None = None
    former: Links = Links()
    starts: int = 0
    open: bool = False
    connected: bool = False
    retry_boot_ns: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing is under way any more."""
        return self.state in lifecycle.OVER

    def step(self, event: Event, now: Stamp, boot: str, **changes: object) -> "Entry":
        """Take one step of the table, at `now`. Raises ValueError for a step that the table does not have."""
        into = lifecycle.after(self.what, self.state, event)
        if into is None:
            raise ValueError(f"no {event!r} of a {self.what} in state {self.state!r}")
        fresh = {} if into == self.state else {"since_wall_ns": now.wall_ns, "since_boot_ns": now.boot_ns, "boot": boot}
        return self.model_copy(update={"state": into, "code": None, "text": "", **fresh, **changes})

    def end(self, code: str, text: str, now: Stamp, boot: str, **changes: object) -> "Entry":
        """Take the way out that `code` is in this state, with the sentence that says why."""
        return self.step(lifecycle.ending(self.state, code), now, boot, code=code, text=text, **changes)

    def age_s(self, now: Stamp, boot: str) -> float:
        """Tell for how long it has been in this state; after a reboot only the wall clock knows."""
        if boot == self.boot:
            return max(0.0, (now.boot_ns - self.since_boot_ns) / 1e9)
        return max(0.0, (now.wall_ns - self.since_wall_ns) / 1e9)

    def as_update(self) -> Update:
        """Give it as `reported` carries it."""
        return Update(
            what=self.what,
            revision=self.revision,
            rollout=self.rollout,
            state=self.state,
            code=self.code,
            text=self.text[:256],
            numbers=dict(list(self.numbers.items())[:32]),
            disagreements=self.disagreements[:20],
            target=self.model,
            progress=round(min(1.0, max(0.0, self.progress)), 3),
            attempt=self.attempt,
            since=_moment(self.since_wall_ns),
        )


def _moment(wall_ns: int) -> datetime | None:
    return datetime.fromtimestamp(wall_ns // 10**6 / 1e3, UTC) if wall_ns else None


class _Page(_Kept):
    model: Entry | None = None
    config: Entry | None = None
    floors: dict[str, int] = Field(default_factory=dict)
    config_revision: int = 0


class Journal:
    """The journal in `folder`, the device's `models` folder. Any process and thread may read and, in turn, write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock: whoever changes journal, links or bundles does it alone. Raises `Broken`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise broken(self.folder, error) from None

    def read(self, what: What) -> Entry | None:
        """Give the last update of that kind, None when there was none."""
        page = self._page()
        return page.model if what == "model" else page.config

    def write(self, entry: Entry) -> None:
        """Keep an update as it stands, safe against a power cut when this returns."""
        self._keep({entry.what: entry})

    def move(self, what: What, change: Callable[[Entry | None], Entry | None]) -> Entry | None:
        """Change an entry under the lock; `change` gives None to leave it. Gives what is kept then."""
        with self.turn():
            now = self.read(what)
            new = change(now)
            if new is None or new == now:
                return now
            self.write(new)
            return new

    @property
    def config_revision(self) -> int:
        """The revision of the ordered settings in force; 0 is none."""
        return self._page().config_revision

    def keep_config_revision(self, revision: int) -> None:
        """Keep that revision."""
        self._keep({"config_revision": revision})

    def floor(self, name: str) -> int:
        """Give the highest release of that model that this device has kept; 0 for none."""
        return self._page().floors.get(name, 0)

    def raise_floor(self, name: str, release: int) -> None:
        """Keep the release that was committed: nothing older is taken from then on."""
        floors = self._page().floors
        self._keep({"floors": {**floors, name: max(release, floors.get(name, 0))}})

    # The newest order: sync writes it the moment it comes, whoever owns the update under way sees it.

    def newest(self) -> Desired | None:
        """Give the newest order that was heard, None when there was none."""
        try:
            raw = (self.folder / NEWEST).read_bytes()
            return Desired.model_validate_json(raw)
        except (OSError, ValidationError):
            return None

    def keep_newest(self, order: Desired) -> bool:
        """Keep an order when it is newer than the one kept; gives whether it was."""
        with self.turn():
            known = self.newest()
            if known is not None and order.revision <= known.revision:
                return False
            write_file(self.folder / NEWEST, order.model_dump_json().encode())
            return True

    @property
    def pinned(self) -> bool:
        """Whether a technician holds the model as it is."""
        return (self.folder / PINNED).exists()

    def pin(self, *, hold: bool) -> None:
        """Hold the model as it is, or let it go."""
        with self.turn():
            if hold:
                write_file(self.folder / PINNED, b"")
            else:
                (self.folder / PINNED).unlink(missing_ok=True)
                sync_folder(self.folder)

    def _page(self) -> _Page:
        path = self.folder / JOURNAL
        try:
            with path.open("rb") as file:
                raw = file.read(MOST_BYTES)
        except FileNotFoundError:
            return _Page()
        except OSError as error:
            raise broken(self.folder, error) from None
        try:
            return _Page.model_validate_json(raw)
        except ValidationError:
            self._set_aside(path)
            return _Page()

    def _set_aside(self, path: Path) -> None:
        """Never delete what is broken: the links still say which model answers."""
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f"{JOURNAL}.broken"))

    def _keep(self, changes: dict[str, object]) -> None:
        page = self._page().model_copy(update=changes)
        try:
            write_file(self.folder / JOURNAL, page.model_dump_json(indent=1).encode())
        except OSError as error:
            raise broken(self.folder, error) from None


def broken(folder: Path, error: OSError) -> Broken:
    """Say that the folder of models cannot be used."""
    where = error.filename or folder
    return Broken(
        "update-broken",
        f"{where}: {error.strerror or error}",
        f"mend {folder}: it must belong to the agent's user and have room; shelfwire-agent doctor disk",
    )


def write_file(path: Path, content: bytes) -> None:
    """Replace a file so that a power cut leaves the old or the new one, whole. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    with half.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the folder's entries on the disk when this returns. Raises `OSError`."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_json(path: Path) -> dict[str, object]:
    """Read a small JSON object; empty when it is not there or not one."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def begin(order: Desired, what: What, now: Stamp, boot: str) -> Entry:
    """Make the entry of a new order."""
    return Entry(
        what=what,
        revision=order.revision,
        rollout=order.rollout,
        model=order.model if what == "model" else None,
        config=order.config if what == "config" else None,
        download_window=order.download_window,
        apply_window=order.apply_window,
        deadline_wall_ns=int(order.deadline_at.timestamp() * 1e9) if order.deadline_at else None,
        since_wall_ns=now.wall_ns,
        since_boot_ns=now.boot_ns,
        boot=boot,
    )


__all__ = ["Entry", "Event", "Journal", "Links", "State", "begin", "broken", "load_json", "sync_folder", "write_file"]
