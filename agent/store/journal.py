"""The journal of updates: how far each has come, written before anything is done, so that a power cut finds its way.

One small JSON file, replaced by rename after fsync. Who changes it holds the lock of the folder; readers need none.
"""

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from agent.core.lifecycle import What
from agent.core.updates import Entry, Kept
from agent.durable import sync_folder, write_file
from agent.errors import Broken
from wire.orders import Desired

JOURNAL: Final = "journal.json"
NEWEST: Final = "newest.json"
PINNED: Final = "pinned"
LOCK: Final = "lock"
MOST_BYTES: Final = 1 << 20


class _Page(Kept):
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

    def write(self, entry: Entry, *, raise_floor: bool = False) -> None:
        """Keep an update as it stands, safe against a power cut when this returns.

        With `raise_floor` its release is the least from then on, in the same write: nothing older is taken. Of settings
        the revision is what is in force.
        """
        changes: dict[str, object] = {entry.what: entry}
        if raise_floor and entry.what == "config":
            changes["config_revision"] = entry.revision
        if raise_floor and entry.model is not None:
            name, release = entry.model.name, entry.model.release
            floors = self._page().floors
            changes["floors"] = {**floors, name: max(release, floors.get(name, 0))}
        self._keep(changes)

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

    def floor(self, name: str) -> int:
        """Give the highest release of that model that this device has kept; 0 for none."""
        return self._page().floors.get(name, 0)

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


def load_json(path: Path) -> dict[str, object]:
    """Read a small JSON object; empty when it is not there or not one."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
