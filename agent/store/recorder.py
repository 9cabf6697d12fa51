"""The store's thread: takes records from the pipeline and commits them in groups; an alert never waits."""

import contextlib
import logging
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.ports import Clock, Draft, Lane, Later
from agent.store.database import BUSY_ERRORS, DISK_ERRORS
from agent.store.writer import Writer

log = logging.getLogger(__name__)

WAITING_ITEMS = 512
"""Frames' records that may wait for the disk: some seconds at full speed. Beyond that the frames are dropped."""

EVICT_EVERY_COMMITS = 64

PATIENCE_MS = 2000
"""How long a commit waits for another process's before that is called trouble; then it is tried again."""

KEPT_ALERTS = 1000
"""Alerts kept in memory while the disk refuses them."""


@dataclass(slots=True)
class _Item:
    drafts: Sequence[Draft | Later]
    counts: Mapping[str, int]
    facts: Mapping[str, str]


@dataclass(slots=True)
class _Group:
    drafts: list[Draft] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    facts: dict[str, str] = field(default_factory=dict)

    def add(self, item: _Item) -> None:
        self.drafts.extend(draft if isinstance(draft, Draft) else draft() for draft in item.drafts)
        for name, n in item.counts.items():  # Counter.update looks at the type of what it is given: half of this time
            self.counts[name] += n
        self.facts.update(item.facts)


class Recorder:
    """Group commit on a thread of its own; see `agent.ports.Recorder`."""

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        *,
        rows: int,
        interval_s: float,
        doorbell: Path,
        on_crash: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._rows = rows
        self._interval_s = interval_s
        self._doorbell = doorbell
        self._on_crash = on_crash
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        """Set when the group that is being collected is to be committed before its time is over: the thread is not
        woken for each frame, only once for a group."""
        self._bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._unsaved = _Group()
        self._until_ns: int | None = None
        self.trouble = ""
        """Why the last commit failed; empty when it did not."""
        self.committed = 0
        """Records committed by this process."""

    def start(self) -> None:
        """Begin to take records."""
        self._writer.wait_at_most(PATIENCE_MS)
        self._thread.start()

    def record(
        self,
        drafts: Sequence[Draft | Later],
        counts: Mapping[str, int] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> bool:
        """Hand over what belongs into one transaction; False when the store is too far behind to take it."""
        waiting = self._queue.qsize()
        if waiting >= WAITING_ITEMS:
            return False
        self._queue.put(_Item(drafts, counts or {}, facts or {}))
        if waiting + 2 >= self._rows or _urgent(drafts):  # this one, and the first of the group, in the thread's hand
            self._hurry.set()
        return True

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Commit what waits and end; True when everything was committed in time."""
        self._until_ns = self._clock.now().boot_ns + int(timeout_s * 1e9)
        self._queue.put(None)
        self._hurry.set()
        self._thread.join(timeout_s + PATIENCE_MS / 1000)
        self._bell.close()
        return not self._thread.is_alive() and not self.trouble

    def _work(self) -> None:
        try:
            commits = 0
            going = True
            self._tidy()
            while going:
                group, going = self._gather()
                if not self._commit(group):
                    return
                commits += 1
                if commits % EVICT_EVERY_COMMITS == 0:
                    self._tidy()
        except Exception:
            log.exception("the store's thread died")
            self._on_crash()

    def _gather(self) -> tuple[_Group, bool]:
        """Collect one group: until it is large enough, its time is over, an alert is in it, or the end."""
        group = _Group()
        item = self._queue.get()
        self._hurry.wait(self._interval_s)
        self._hurry.clear()  # before the queue is emptied: what comes later sets it again
        while item is not None:
            group.add(item)
            if len(group.drafts) >= self._rows or _urgent(item.drafts):
                if not self._queue.empty():
                    self._hurry.set()  # what is left over has waited long enough
                return group, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: _Group) -> bool:
        """Commit a group; False when it was given up, at a stop whose time is over.

        When the disk refuses, its frames count as dropped, in the next commit that succeeds. While another process
        keeps the store locked the group is kept, whole: nothing of it was written.
        """
        group.add(_Item(self._unsaved.drafts, self._unsaved.counts, {}))
        try:
            while not self._put(group):
                if self._until_ns is not None and self._clock.now().boot_ns >= self._until_ns:
                    log.error("%d records were given up: another process keeps the store locked", len(group.drafts))
                    return False
        except DISK_ERRORS as error:
            self._disk_trouble(group, str(error))
            return True
        if self.trouble:
            dropped = self._unsaved.counts["frames:dropped:disk-full"]
            log.info("the store takes records again; it refused %d frames meanwhile", dropped)
            self.trouble = ""
        self._unsaved = _Group()
        self.committed += len(group.drafts)
        if group.drafts:
            self._ring()
        return True

    def _put(self, group: _Group) -> bool:
        """Try to commit a group; False when another process keeps the store locked, which is said once."""
        try:
            self._writer.put(group.drafts, group.counts, self._unsaved.facts | group.facts)
        except BUSY_ERRORS as error:
            if not self.trouble:
                log.error("the store is in use by another process that does not let go (%s): records wait in memory,"
                          " and what finds no room there is dropped and counted", error)  # fmt: skip
            self.trouble = str(error)
            return False
        return True

    def _disk_trouble(self, group: _Group, why: str) -> None:
        if not self.trouble:
            log.error("the store cannot be written (%s): frames are dropped and counted until it can", why)
        self.trouble = why
        self._writer.reserve.give_up()
        # Results and pictures are dropped and counted. Alerts and decision state wait for the next commit that works.
        for fate in ("frames:classified", "frames:serverless", "frames:deferred"):
            group.counts["frames:dropped:disk-full"] += group.counts.pop(fate, 0)
        for copies in [name for name in group.counts if name.startswith("frames:copied:")]:
            del group.counts[copies]
        self._writer.spool.remove(d.picture.name for d in group.drafts if d.picture is not None)
        alerts = [d for d in group.drafts if d.lane == Lane.ALERT]
        self._unsaved = _Group(alerts[-KEPT_ALERTS:], group.counts, self._unsaved.facts | group.facts)

    def _tidy(self) -> None:
        try:
            evicted = self._writer.evict()
            self._writer.shrink()
            self._writer.sweep()
            self._writer.reserve.build()
        except (*BUSY_ERRORS, *DISK_ERRORS) as error:
            log.warning("the store cannot be tidied: %s", error)
            return
        if evicted:
            log.warning("the outbox is at its limit: thinned out %d waiting records", evicted)

    def _ring(self) -> None:
        """Wake sync. Not needed for correctness: sync looks by itself when nobody rings."""
        with contextlib.suppress(OSError):
            self._bell.sendto(b"1", str(self._doorbell))


def _urgent(drafts: Sequence[Draft | Later]) -> bool:
    for draft in drafts:  # noqa: SIM110 - a generator for each frame costs more than this
        if isinstance(draft, Draft) and draft.lane == Lane.ALERT:
            return True
    return False
