"""What waits for the night and for its upload, and when that has gone on for too long."""

from dataclasses import dataclass

HOUR_NS = 3600 * 10**9

UPLOAD_LATE_NS = 36 * HOUR_NS
"""A sealed file has met a whole window by then, whatever the window is."""

SEALING_LATE_NS = 50 * HOUR_NS
"""A day has been over for a day by then, the longest of them too: whoever should run `nightly` does not."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The night's files that the cloud does not have for certain yet, and the frames that lie in no file yet."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    oldest_day: str | None = None
    sealed_ns: int | None = None
    """When the oldest file was sealed, by the wall clock."""
    error: str = ""
    """What keeps the first file that was tried and did not leave."""
    in_the_window: int = 0
    """Files that wait for the window; the others leave at once."""
    unsealed: int = 0
    unsealed_bytes: int = 0
    """Of the pictures of frames that lie in no file."""
    captured_ns: int | None = None
    """When the oldest of these was captured, by a wall clock that was trusted."""

    def upload_is_late(self, now_wall_ns: int) -> bool:
        """Whether a file should have left long ago."""
        return self.sealed_ns is not None and now_wall_ns - self.sealed_ns > UPLOAD_LATE_NS

    def sealing_is_late(self, now_wall_ns: int) -> bool:
        """Whether a frame should have been sealed long ago."""
        return self.captured_ns is not None and now_wall_ns - self.captured_ns > SEALING_LATE_NS
