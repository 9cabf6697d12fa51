"""Page 3: the night: select -> seal -> hand over -> trim.

Every frame that waits for the night and whose day is over goes into a file, and with the file to the cloud (see
`agent/shipper.py`). At any moment a picture lies in the spool or in a file that is on the disk for certain, and its row
says in which: whatever a kill or a full disk interrupts is done again by the next run.
"""

import logging
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.core.days import Dated, Now, date_frame, is_due
from agent.core.shards import ROW_BYTES, Manifest, Owner, frame_row, read_body
from agent.errors import Broken, Rejected, Retryable
from agent.night_ports import Night, NightFrame, Pictures, Shard, ShardFolder
from wire.bounds import SEQ_MAX

log = logging.getLogger(__name__)

MOST_ROWS = 5000
"""Frames in one file: what one transaction marks, and later deletes, on a disk that may be nearly full."""

MOST_BYTES = 120 << 20
"""Size of one file, whatever the configuration says: the cloud takes 128 MiB."""

LEAST_BYTES = 4 << 20
"""A file is not made smaller for want of room: thousands of tiny ones would not help a full disk."""

LOOK_AT_ONCE = 100
"""Records in memory at once."""

TRIES = 5
"""How often a file is made again because frames were evicted under it."""


@dataclass(slots=True)
class Report:
    """What a run did."""

    sealed: list[Shard] = field(default_factory=list)
    lost: int = 0
    """Frames whose picture was missing or altered, or whose record cannot be read: set aside."""
    later: int = 0
    """Frames whose day goes on."""

    @property
    def rows(self) -> int:
        """Frames that were sealed."""
        return sum(shard.rows for shard in self.sealed)


@dataclass(slots=True)
class _Day:
    """Frames of one day, by number, and what each will take in a file. 16 bytes each: there may be a million."""

    seqs: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))


class Nightly:
    """Seals what is due. One process, one thread; vision and sync may work meanwhile."""

    def __init__(
        self,
        owner: Owner,
        night: Night,
        pictures: Pictures,
        folder: ShardFolder,
        *,
        shard_bytes: int,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._owner = owner
        self._night = night
        self._pictures = pictures
        self._folder = folder
        self._shard_bytes = min(shard_bytes, MOST_BYTES)
        self._on_step = on_step

    def run(
        self,
        now: Now,
        *,
        day: str | None = None,
        today_too: bool = False,
        report: Report | None = None,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Report:
        """Seal every frame that is due; `progress` hears of frames done and frames in all.

        Raises `Broken` (``disk-full``, ``batch-folder``, ``spool-folder``), `Retryable` (``outbox-busy``). What was
        sealed before stays sealed, and stands in `report` when one was given.
        """
        self._clean_up()
        self._take_back(now)
        report = report if report is not None else Report()
        report.later = 0
        days = self._select(now, report, day, today_too=today_too)
        steps = _Steps(sum(len(chosen.seqs) for chosen in days.values()), progress)
        for name, chosen in sorted(days.items()):
            start = 0
            while start < len(chosen.seqs):
                end = self._fill(chosen, start)
                self._seal(name, chosen.seqs[start:end], now, report, steps)
                steps.finish_file(end - start)
                start = end
        if today_too:
            self._night.hurry()
        return report

    def _clean_up(self) -> None:
        """Finish what a killed run left: files without a row go, and pictures that lie in a sealed file."""
        self._folder.sweep({shard.file.name for shard in self._night.sealed()}, at_once=True)
        self._pictures.remove(self._night.sealed_pictures())

    def _take_back(self, now: Now) -> None:
        """Undo files of days still to come: a clock that was wrong sealed them, the cloud refuses them, ours is right.

        Their frames are dated anew, with the others. A picture is in the spool again before its file goes.
        """
        for shard in self._night.sealed():
            if shard.day <= now.today or now.clock == "unsure" or not self._folder.is_sound(shard.file):
                continue
            try:
                pictures = {seq: self._pictures.keep(jpeg) for seq, jpeg in self._folder.read(shard.file)}
            except Broken as error:
                log.warning("%s part %d stays as a wrong clock sealed it: %s", shard.day, shard.part, error)
                return
            log.warning("%s part %d was sealed by a wrong clock: its pictures are dated anew", shard.day, shard.part)
            self._on_step("unpacked")
            self._night.take_back(shard.number, pictures)
            self._on_step("taken-back")
            self._folder.remove(shard.file.name)

    def _select(self, now: Now, report: Report, day: str | None, *, today_too: bool) -> Mapping[str, _Day]:
        """Choose the frames that are due, by day."""
        days: dict[str, _Day] = {}
        for frame in self._night.unsealed():
            stamp = frame.captured
            dated = date_frame(stamp.wall_ns, stamp.boot_ns, frame.clock, frame.boot_id, now)
            if is_due(dated, now, day=day, today_too=today_too):
                chosen = days.setdefault(dated.day, _Day())
                chosen.seqs.append(frame.seq)
                chosen.sizes.append(frame.size_bytes + ROW_BYTES)
            elif day in (None, dated.day):
                report.later += 1
        return days

    def _fill(self, chosen: _Day, start: int) -> int:
        """Say where a file that begins at `start` ends. A nearly full disk gets small ones: each frees its pictures."""
        limit_bytes = min(self._shard_bytes, max(LEAST_BYTES, self._folder.room_bytes() // 2))
        size_bytes = 0
        for end in range(start, min(len(chosen.seqs), start + MOST_ROWS)):
            size_bytes += chosen.sizes[end]
            if size_bytes > limit_bytes and end > start:
                return end
        return min(len(chosen.seqs), start + MOST_ROWS)

    def _seal(self, day: str, seqs: Sequence[int], now: Now, report: Report, steps: "_Steps") -> None:
        """Make one file of these frames and hand it over; again without those that turn out to be lost or gone."""
        for _ in range(TRIES):
            draft = _Draft(self._owner, self._night, self._pictures, day, now)
            draft.look(seqs)
            if draft.seqs and not draft.lost:
                shard = self._hand_over(draft, steps)
                if shard is not None:
                    report.sealed.append(shard)
                    return
            self._bury(draft.lost, report)
            if not draft.seqs:
                return
        raise Retryable("outbox-busy", f"frames of {day} are evicted faster than they can be sealed",
                        "free disk space or raise [outbox] max_bytes, then run this again")  # fmt: skip

    def _hand_over(self, draft: "_Draft", steps: "_Steps") -> Shard | None:
        """File first, then the transaction, then the pictures go. None when a frame was lost or gone on the way."""
        try:
            file = self._folder.write(draft.manifest(), draft.rows(steps.in_file))
        except _Changed:
            return None
        shard = self._night.hand_over(file, self._owner, draft.day, draft.part, draft.seqs, draft.now.wall_ns)
        if shard is None:
            return None  # The next run sweeps the file.
        self._on_step("handed-over")
        self._pictures.remove(draft.pictures)
        self._on_step("trimmed")
        return shard

    def _bury(self, lost: Mapping[str, list[int]], report: Report) -> None:
        for code, seqs in lost.items():
            log.error("%d frames are lost and set aside (%s)", len(seqs), code)
            self._night.bury(seqs, code)
            report.lost += len(seqs)


class _Changed(Exception):
    """The frames are not what the manifest says."""


class _Steps:
    """How far a run is, told while a file is written and not only after it. A file that is made again counts once."""

    def __init__(self, total: int, tell: Callable[[int, int], None]) -> None:
        self._total = total
        self._tell = tell
        self._done = 0

    def in_file(self, n: int) -> None:
        """So many frames of the file are written."""
        self._tell(self._done + n, self._total)

    def finish_file(self, n: int) -> None:
        """The file is done, and it was so many frames."""
        self._done += n
        self.in_file(0)


class _Draft:
    """One file in the making: looked through once for its manifest, and once more for its rows."""

    def __init__(self, owner: Owner, night: Night, pictures: Pictures, day: str, now: Now) -> None:
        self._owner = owner
        self._night = night
        self._spool = pictures
        self.day = day
        self.now = now
        self.part = night.next_part(day)
        self.seqs: list[int] = []
        self.pictures: list[str] = []
        self.lost: dict[str, list[int]] = {}
        """Numbers of frames that can never be sealed, by code."""
        self._pictures_bytes = 0
        self._first_ns, self._last_ns = SEQ_MAX, -SEQ_MAX

    def look(self, seqs: Sequence[int]) -> None:
        """Look through the records: which are still there, can be read, and from when they are."""
        for frame in self._frames(seqs):
            try:
                read_body(frame.body)
            except ValueError as error:
                log.warning("frame %s/%d cannot be read: %s", frame.run_id, frame.seq, error)
                self._lose(frame, "bad-record")
                continue
            wall_ns = self._date(frame).wall_ns
            self._first_ns, self._last_ns = min(self._first_ns, wall_ns), max(self._last_ns, wall_ns)
            self._pictures_bytes += frame.picture.size_bytes
            self.seqs.append(frame.seq)
            self.pictures.append(frame.picture.name)

    def manifest(self) -> Manifest:
        """Say what the file will hold."""
        rows, size_bytes = len(self.seqs), self._pictures_bytes
        return Manifest(self._owner, self.day, self.part, rows, size_bytes, self._first_ns, self._last_ns)

    def rows(self, tell: Callable[[int], None]) -> Iterator[Mapping[str, object]]:
        """Give the rows, one picture in memory at a time; `tell` hears how many. Raises `_Changed` when some are gone.

        What is lost is looked for to the end, so that one more try is enough.
        """
        found = 0
        for frame in self._frames(self.seqs):
            try:
                jpeg = self._spool.read(frame.picture)
            except Rejected as error:
                log.warning("frame %s/%d: %s", frame.run_id, frame.seq, error)
                self._lose(frame, error.code)
                continue
            found += 1
            tell(found)
            if not self.lost:
                record = read_body(frame.body)
                row = frame_row(self._owner, frame.run_id, frame.seq, record, self._date(frame), frame.picture.sha256)
                yield {**row, "picture": jpeg}
        if found != len(self.seqs):
            raise _Changed

    def _frames(self, seqs: Sequence[int]) -> Iterator[NightFrame]:
        for start in range(0, len(seqs), LOOK_AT_ONCE):
            yield from self._night.frames(seqs[start : start + LOOK_AT_ONCE])

    def _date(self, frame: NightFrame) -> Dated:
        stamp = frame.captured
        return date_frame(stamp.wall_ns, stamp.boot_ns, frame.clock, frame.boot_id, self.now)

    def _lose(self, frame: NightFrame, code: str) -> None:
        self.lost.setdefault(code, []).append(frame.seq)
