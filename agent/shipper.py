"""Page 4: the night's files to the cloud: announce -> send -> the cloud has verified it -> delete, or try again.

A file leaves this device only on the cloud's word that it is verified and committed. What is interrupted begins again
with the same file; the cloud knows it by its digest.
"""

import logging
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import time, tzinfo

from agent.core.backoff import Backoff
from agent.core.bandwidth import Bandwidth
from agent.core.breaker import Breaker
from agent.core.days import in_window, local_time
from agent.core.receiving import Expected, Received, read_announced, read_done, read_sent
from agent.core.reply import Never, NotNow
from agent.errors import Broken, Retryable
from agent.night_ports import Sealed, SealedFiles, Shard, ShardApi
from agent.ports import Clock

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
BURST_BYTES = 4 * PIECE_BYTES

MOST_LIVE_BACKLOG = 1000
"""Alerts and results that wait: with more of them than this the night waits, so that live answers go first."""

SLOWEST_BYTES_PER_S = 5000
GRACE_S = 600.0
"""An upload that takes longer than this and its size at the slowest speed is given up: the line hardly works."""

WRONG_DAY = "shard-day"
"""The cloud's code for a day that has not been yet. Then a clock is wrong, and `nightly` mends it when it is right."""

IDLE_WAIT_S = 2.0
RETRY_BASE_S = 2.0
RETRY_CEILING_S = 300.0
SWEEP_EVERY_S = 600.0


class Stopped(Exception):
    """The process stops in the middle of an upload."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """The file is not what was sealed: its pictures are lost."""


Outcome = Received | NotNow | Never | Damaged


class Shipper:
    """Sends sealed files, one after another, within the window and the bandwidth. One thread."""

    def __init__(
        self,
        sealed: Sealed,
        files: SealedFiles,
        api: ShardApi,
        clock: Clock,
        rng: random.Random,
        *,
        window: tuple[time, time],
        bytes_per_second: int,
        zone: tzinfo | None = None,
    ) -> None:
        self._sealed = sealed
        self._files = files
        self._api = api
        self._clock = clock
        self._window = window
        self._zone = zone
        self._bytes_per_second = bytes_per_second
        self._bandwidth = Bandwidth(bytes_per_second, BURST_BYTES)
        self._retry = Backoff(RETRY_BASE_S, RETRY_CEILING_S, rng)
        self._breaker = Breaker(Backoff(RETRY_BASE_S, RETRY_CEILING_S, rng))
        self._due_ns: dict[int, int] = {}
        """When a file that did not leave is tried again, by number (boot clock)."""
        self._sweep_ns = 0
        self.trouble = ""
        """Code of what keeps files from leaving; empty when nothing does."""
        self.counts: Counter[str] = Counter()
        """What this process sent and what became of it, for the metrics."""

    def turn(self, stop: threading.Event) -> float:
        """Send one file if one is due; gives the seconds to wait before the next turn.

        Raises what the store raises when the disk is at fault; the file is then sent, or found received, again.
        """
        now_ns = self._clock.now().boot_ns
        shards = self._sealed.sealed()
        if now_ns >= self._sweep_ns:
            self._sweep_ns = now_ns + int(SWEEP_EVERY_S * 1e9)
            self._files.sweep({shard.file.name for shard in shards})
        shard = self._next(shards, now_ns)
        if shard is None or self._sealed.live_backlog() > MOST_LIVE_BACKLOG:
            return IDLE_WAIT_S
        era = self._breaker.take(now_ns)
        if era is None:
            return IDLE_WAIT_S
        try:
            outcome = self._ship(shard, stop)
        except Stopped:
            self._breaker.untake(era)
            return 0.0
        self._settle(shard, outcome, era)
        return 0.0

    def _next(self, shards: Sequence[Shard], now_ns: int) -> Shard | None:
        """Choose the oldest file that may leave now."""
        local = local_time(self._clock.now().wall_ns, self._zone)
        at_once = shards[-1].number if shards and in_window(self._window, local) else self._sealed.ship_now()
        due = (s for s in shards if s.number <= at_once and self._due_ns.get(s.number, 0) <= now_ns)
        return next(due, None)

    # -- one file --------------------------------------------------------------------------------------------

    def _ship(self, shard: Shard, stop: threading.Event) -> Outcome:
        """Take one file through all its steps; gives how far it came. Raises `Stopped`."""
        try:
            announced = self._announce(shard)
            if not isinstance(announced, Expected):
                return announced
            if not self._files.is_sound(shard.file):
                return Damaged()
            sent = self._send(shard, announced, stop)
            if sent is not None:
                return sent
            finished = self._finish(shard)
        except (Retryable, Broken) as error:
            return NotNow(error.code, f"{error}; {error.hint}")
        if isinstance(finished, Never) and not self._files.is_sound(shard.file):
            return Damaged()
        return finished

    def _announce(self, shard: Shard) -> Received | Expected | NotNow | Never:
        document = {
            "device": shard.owner.device,
            "store": shard.owner.store,
            "day": shard.day,
            "part": shard.part,
            "rows": shard.rows,
            "bytes": shard.file.size_bytes,
            "sha256": shard.file.sha256,
        }
        return read_announced(self._api.announce(document), self._clock.now().wall_ns)

    def _send(self, shard: Shard, to: Expected, stop: threading.Event) -> NotNow | None:
        reply = self._api.put(to.url, to.headers, self._pieces(shard, stop), shard.file.size_bytes)
        return read_sent(reply, self._clock.now().wall_ns)

    def _pieces(self, shard: Shard, stop: threading.Event) -> Iterator[bytes]:
        """Read the file no faster than the line may be used. Raises `Stopped`, `Retryable` (``upload-slow``)."""
        most_s = GRACE_S + shard.file.size_bytes / min(SLOWEST_BYTES_PER_S, self._bytes_per_second)
        until_ns = self._clock.now().boot_ns + int(most_s * 1e9)
        for piece in self._files.pieces(shard.file, PIECE_BYTES):
            if stop.is_set():
                raise Stopped
            if self._clock.now().boot_ns > until_ns:
                raise Retryable("upload-slow", "the line hardly takes the file", "check the network of this shop")
            yield piece
            self.counts["bytes"] += len(piece)
            wait_s = self._bandwidth.take(len(piece), self._clock.now().boot_ns)
            if wait_s > 0 and self._clock.wait(stop, wait_s):
                raise Stopped

    def _finish(self, shard: Shard) -> Received | NotNow | Never:
        reply = self._api.done(shard.file.sha256, {"device": shard.owner.device})
        return read_done(reply, self._clock.now().wall_ns)

    # -- what became of it -----------------------------------------------------------------------------------

    def _settle(self, shard: Shard, outcome: Outcome, era: int) -> None:
        """Act on an outcome; the store first, so that nothing is half done when that fails."""
        now_ns = self._clock.now().boot_ns
        match outcome:
            case Received():
                self._sealed.deliver(shard.number)
                self._files.remove(shard.file.name)
                self._went_well(era)
                log.info("the cloud has %s part %d: %d pictures", shard.day, shard.part, shard.rows)
                self.counts["delivered"] += 1
            case NotNow(code, text, retry_after_s):
                self._sealed.note(shard.number, _told(text, code))
                wait_s = max(self._retry.next(), retry_after_s or 0.0)
                self._due_ns[shard.number] = now_ns + int(wait_s * 1e9)
                self._breaker.failed(era, now_ns, code, retry_after_s)
                if self.trouble != code:
                    log.warning("%s part %d: %s (%s); it is kept and tried again", shard.day, shard.part, text, code)
                self.trouble = code
                self.counts["postponed"] += 1
            case Never(code, text):
                self._refused(shard, code, text, now_ns)
                self._went_well(era)
            case Damaged():
                rows = self._sealed.lose(shard.number, "shard-lost")
                aside = self._files.set_aside(shard.file.name)
                self._breaker.untake(era)
                log.error("%s part %d is damaged or gone: %d pictures are lost and set aside as dead letters; see %s",
                          shard.day, shard.part, rows, aside or "the disk's log")  # fmt: skip
                self.counts["lost"] += 1

    def _refused(self, shard: Shard, code: str, text: str, now_ns: int) -> None:
        """The cloud will not take a sound file. After some tries, far apart, it is set aside, file and all."""
        self._due_ns[shard.number] = now_ns + int(self._retry.at_ceiling() * 1e9)
        if code == WRONG_DAY:
            self._sealed.note(shard.number, _told(text, code))
            log.warning("the cloud waits for %s to come: a clock is wrong, and that file is kept", shard.day)
            return
        self.counts["refused"] += 1
        if not self._sealed.refuse(shard.number, _told(text, code)):
            log.warning("the cloud refuses %s part %d: %s (%s); it is tried again", shard.day, shard.part, text, code)
            return
        rows = self._sealed.lose(shard.number, code)
        aside = self._files.set_aside(shard.file.name)
        log.error("the cloud refused %s part %d for good: %s (%s); its %d pictures are set aside in %s",
                  shard.day, shard.part, text, code, rows, aside)  # fmt: skip

    def _went_well(self, era: int) -> None:
        """The cloud answers: the way is fine, whatever it said about this file."""
        self._breaker.succeeded(era)
        self._retry.reset()
        self.trouble = ""


def _told(text: str, code: str) -> str:
    """Write what kept a file here, the code at the end, short enough for its place in the store."""
    return f"{text[:200]} [{code}]"
