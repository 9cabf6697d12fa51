"""Facts that the other process wrote, read on a connection of its own: a commit under way holds nobody up."""

import json
from pathlib import Path

import apsw

from agent.core.pulse import link_words
from agent.ports import Lane
from agent.store.database import one
from agent.store.outside import is_at_work

BUSY_TIMEOUT_MS = 200
"""A fact is read every second; one that cannot be read at once is read the next time."""


DUE = [f"rows:{lane}" for lane in Lane if lane is not Lane.BATCH]


def count_due(db: apsw.Connection) -> int:
    """Count the records that should be on their way; not those that wait for the night."""
    marks = ", ".join("?" * len(DUE))
    return int(one(db, f"SELECT coalesce(sum(n), 0) FROM counter WHERE name IN ({marks})", *DUE))  # noqa: S608


class FactReader:
    """Reads facts from the store in `folder`; for one thread. The store exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._db = apsw.Connection(str(folder / "outbox.sqlite"), flags=apsw.SQLITE_OPEN_READONLY)
        self._db.set_busy_timeout(BUSY_TIMEOUT_MS)

    def read(self, *names: str) -> dict[str, str]:
        """Give those of the facts that there are; none of them when the store cannot be read now."""
        marks = ", ".join("?" * len(names))
        try:
            rows = self._db.execute(f"SELECT name, value FROM fact WHERE name IN ({marks})", names)  # noqa: S608
            return {str(name): str(value) for name, value in rows}
        except apsw.Error:
            return {}

    def due(self) -> int:
        """Count the records that should be on their way; -1 when the store cannot be read now."""
        try:
            return count_due(self._db)
        except apsw.Error:
            return -1

    def link_words(self) -> str:
        """Say in a few words how sync is connected. A sync that was killed cannot say so: its lock does."""
        if not is_at_work(self._folder, "sync"):
            return "sync does not run"
        return link_words(json.loads(self.read("sync").get("sync", "{}")))

    def close(self) -> None:
        """Close the file."""
        self._db.close()
