"""Tells the broker who is revoked: the list that it reads anew, and an end to the sessions of those who are on it.

mosquitto reads its list of revoked certificates at SIGHUP, for connections that begin after it. A session that stands
is cut by taking it over: on the cloud's listener, under the device's client id. So a revocation counts at the broker
within a second or two, without a restart that would cut everybody.
"""

import contextlib
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg_pool import PoolTimeout

from cloud import broker_files
from cloud.fleet.authority import Authority, write_file
from cloud.fleet.registry import CHANNEL, Fleet
from wire import mqtt

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
"""The database tells at once; this is for what it could not tell."""
RECONNECT_S = 2.0
SETTLE_S = 0.5
"""What mosquitto takes to read its list after the signal, with room to spare."""
AGAIN_S = 3.0
"""A device that connected in that moment is cut once more."""
OVERLAP = timedelta(seconds=30)
"""Looked at again, because transactions commit in another order than they began in."""
FIRST_LOOK = timedelta(days=1)
"""How far back to look at the start: who was revoked while nobody kept the broker may still have a session there."""
CUT_S = 5.0


class Keeper:
    """Keeps the revocations of the broker in `folder` up to date on a thread; a thread that dies calls `on_crash`.

    `cloud` are the options of the cloud's own connection to that broker.
    """

    def __init__(
        self,
        fleet: Fleet,
        authority: Authority,
        dsn: str,
        folder: Path,
        cloud: mqtt.Options,
        *,
        on_crash: Callable[[BaseException], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fleet = fleet
        self._authority = authority
        self._dsn = dsn
        self._folder = folder.expanduser()
        self._cloud = cloud
        self._on_crash = on_crash
        self._now = now
        self._stopping = threading.Event()
        self._since = now() - FIRST_LOOK
        self._listed: tuple[str, ...] | None = None
        self._cut: dict[str, datetime] = {}
        self._again: dict[str, float] = {}
        self._thread = threading.Thread(target=self._work, name="fleet-keeper", daemon=True)

    def start(self) -> None:
        """Begin, with a fresh list for the broker."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(CUT_S)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._follow()
                except (psycopg.Error, PoolTimeout) as error:
                    log.warning("the database is away: %s; revocations wait", " ".join(str(error).split()))
                    self._stopping.wait(RECONNECT_S)
        except Exception as error:
            log.exception("the keeper of revocations died")
            self._on_crash(error)

    def _follow(self) -> None:
        """Listen to the database, and look whenever it tells something, or has been silent for a while."""
        with psycopg.connect(
            self._dsn, autocommit=True, connect_timeout=5, application_name="shelfwire-fleet"
        ) as connection:
            connection.execute(f"LISTEN {CHANNEL}".encode())
            look_at_s = 0.0
            while not self._stopping.is_set():
                told = [told.payload for told in connection.notifies(timeout=0.5, stop_after=1)]
                if told or time.monotonic() >= look_at_s:
                    look_at_s = time.monotonic() + LOOK_EVERY_S
                    self.look()
                self._cut_again()

    def look(self) -> None:
        """Bring the broker's list up to date, and cut off who has lost a certificate since the last look."""
        before, began = self._since, self._now()
        serials, lost = self._fleet.revoked(before)
        self._since = began - OVERLAP
        if tuple(serials) != self._listed and self._write(serials):
            self._listed = tuple(serials)
        fresh = [(device, at) for device, at in lost if self._cut.get(device) != at]
        if fresh:
            self._stopping.wait(SETTLE_S)
        for device, at in fresh:
            self._take_over(device)
            self._cut[device] = at
            self._again[device] = time.monotonic() + AGAIN_S

    def _cut_again(self) -> None:
        """Cut once more who was cut a moment ago."""
        for device, at_s in list(self._again.items()):
            if time.monotonic() >= at_s:
                self._take_over(device)
                del self._again[device]

    def _write(self, serials: Sequence[str]) -> bool:
        path = self._folder / broker_files.REVOKED
        try:
            owner = path.stat() if path.exists() else self._folder.stat()
            write_file(path, self._authority.revocations(serials, self._now()), 0o600)
            if os.geteuid() == 0:
                os.chown(path, owner.st_uid, owner.st_gid)
        except OSError as error:
            log.error("the broker's list of revoked certificates cannot be written: %s; it is tried again", error)
            return False
        log.info("the broker's list of revoked certificates has %d", len(serials))
        signal_broker(self._folder)
        return True

    def _take_over(self, device: str) -> None:
        """End the session of a device, and what the broker keeps for it, by taking its place for a moment."""
        session = mqtt.Session(
            replace(self._cloud, client_id=device, clean_start=True, session_expiry_s=0, subscriptions=(), will=None),
            random.Random(),  # noqa: S311 - spreads retries
        )
        session.start()
        event = session.next_event(CUT_S)
        session.stop()
        if isinstance(event, mqtt.Up):
            log.info("%s is cut from the broker", device)
        else:
            log.error("%s could not be cut from the broker: %s", device, event)


def signal_broker(folder: Path) -> bool:
    """Have the mosquitto that runs on `folder`'s configuration read its files anew; False when there is none."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / broker_files.PID).read_text("utf-8"))
        if b"mosquitto" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGHUP)
            return True
    log.warning("no mosquitto runs in %s: it reads the list of revoked certificates at its start", folder)
    return False
