"""What this device did in its last 24 hours, hour by hour: what a new model is compared with."""

import contextlib
import json
from pathlib import Path
from typing import Final

from agent.core.trial import Tally, total
from agent.durable import write_file
from agent.store.journal import load_json

HISTORY: Final = "history.json"
HOURS: Final = 24
HOUR_NS: Final = 3600 * 10**9


class History:
    """The hours, in memory and in a file of `folder`. Losing the newest minutes of it to a power cut does no harm."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / HISTORY
        self._hours: dict[int, Tally] = {}
        for hour, told in load_json(self._path).items():
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                self._hours[int(hour)] = Tally.load(told)  # type: ignore[arg-type]

    def hour(self, wall_ns: int) -> Tally:
        """Give the tally of the hour that `wall_ns` lies in; older ones than a day are dropped."""
        now = wall_ns // HOUR_NS
        if now not in self._hours:
            self._hours[now] = Tally()
            # A clock that was set may leave hours of the future: only the newest 24 that were counted stay.
            for old in sorted(self._hours)[:-HOURS]:
                del self._hours[old]
        return self._hours[now]

    def total(self) -> Tally:
        """Add the hours up."""
        return total(self._hours.values())

    def save(self) -> None:
        """Keep them. Raises `OSError`."""
        told = {str(hour): tally.dump() for hour, tally in self._hours.items()}
        write_file(self._path, json.dumps(told).encode())
