"""A look at what waits for the night, over whatever connection the caller has."""

from collections.abc import Sequence
from typing import Any, Protocol

from agent.core.backlog import Backlog
from agent.ports import Lane

SHIP_NOW = "ship-now"
"""Fact: number of the last shard that leaves at once, whatever the window says."""

UNSEALED = f"state = 0 AND lane = {int(Lane.BATCH)} AND kind = 'frame' AND shard IS NULL"

_FILES = (
    "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(bytes), 0), min(day), min(sealed_ns),"
    " coalesce((SELECT error FROM shard WHERE error IS NOT NULL ORDER BY shard LIMIT 1), ''),"
    " count(*) FILTER (WHERE shard > coalesce((SELECT value + 0 FROM fact WHERE name = ?), 0)) FROM shard"
)
_FRAMES = (
    "SELECT count(*), coalesce(sum(picture_bytes), 0), min(wall_ns) FILTER (WHERE clock = 'synced')"  # noqa: S608
    f" FROM outbox WHERE {UNSEALED}"
)


class _Rows(Protocol):
    def fetchone(self) -> Any: ...


class Connection(Protocol):
    """What the look needs of a connection: that of the daemons, and that of a reader, have it."""

    def execute(self, sql: str, values: Sequence[str], /) -> _Rows:
        """Run a statement."""
        ...


def read_backlog(db: Connection) -> Backlog:
    """Look. A store that no agent has opened since an update knows no night yet."""
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", ("shard",)).fetchone() is None:
        return Backlog()
    return Backlog(*db.execute(_FILES, (SHIP_NOW,)).fetchone(), *db.execute(_FRAMES, ()).fetchone())
