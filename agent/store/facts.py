"""Facts that the other process wrote, read on a connection of its own: a commit under way holds nobody up."""

from pathlib import Path

import apsw

BUSY_TIMEOUT_MS = 200
"""A fact is read every second; one that cannot be read at once is read the next time."""


class FactReader:
    """Reads facts from the store in `folder`; for one thread. The store exists."""

    def __init__(self, folder: Path) -> None:
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

    def close(self) -> None:
        """Close the file."""
        self._db.close()
