"""Last pictures on their way to the cloud: what vision (`agent.camera.last`) has left since the last look."""

import contextlib
import os
import time
from pathlib import Path

from wire import bounds


class PictureReader:
    """Finds messages that changed since the last look. For sync."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, int] = {}

    def changed(self) -> list[bytes]:
        """Give the new messages, each at most as large as an envelope may be, none older than a minute."""
        messages = []
        oldest_ns = time.time_ns() - 60 * 10**9
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                status = entry.stat()
                changed = status.st_mtime_ns
                if not entry.name.endswith(".json") or self._seen.get(entry.name) == changed:
                    continue
                self._seen[entry.name] = changed
                if changed >= oldest_ns and status.st_size < bounds.ENVELOPE_BYTES - 1024:
                    messages.append(Path(entry.path).read_bytes())
        return messages
