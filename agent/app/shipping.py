"""The shipper's thread in sync: what it is made of, its start and its stop."""

import logging
import random
import threading
from collections.abc import Callable
from importlib.metadata import version

from agent.config import Config
from agent.link.upload import Uploads
from agent.ports import Clock
from agent.shipper import Shipper
from agent.store.batch import BatchFolder
from agent.store.database import BUSY_ERRORS, DISK_ERRORS
from agent.store.shards import Shards

log = logging.getLogger(__name__)

TROUBLE_PAUSE_S = 10.0
LOOK_EVERY_S = 60.0
STOP_S = 3.0
"""What a stop waits for an upload to notice; the thread does not outlive the process."""


class Shipping:
    """Sends the night's files while sync runs. Its connection to the store is its own.

    Made only where `Config.frames_may_leave`. A thread that dies calls `on_crash`.
    """

    def __init__(self, config: Config, clock: Clock, rng: random.Random, on_crash: Callable[[], None]) -> None:
        if config.cloud.api is None or not config.frames_may_leave:
            raise ValueError("no frame may leave this device")
        folder = config.device.state_dir
        self._clock = clock
        self._on_crash = on_crash
        self._stop = threading.Event()
        files = BatchFolder(folder)
        self._shards = Shards(folder, config.outbox.reserve)
        self._shipper = Shipper(
            self._shards,
            files,
            Uploads(config.cloud.api, config.cloud.ca_file, version("shelfwire"), own=config.cloud.own),
            clock,
            rng,
            window=config.batch.window,
            bytes_per_second=config.batch.bytes_per_second,
        )
        self._thread = threading.Thread(target=self._work, name="shipper", daemon=True)
        self.backlog = self._shards.backlog()
        """What waits for the night, as of a minute ago at most."""
        self._look_at_ns = 0

    @property
    def counts(self) -> dict[str, int]:
        """What was sent and what became of it, for the metrics."""
        return dict(self._shipper.counts)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, in the middle of a file too: it is sent again from its start."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)
        if not self._thread.is_alive():
            self._shards.close()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._clock.wait(self._stop, self._turn())
        except Exception:
            log.exception("the shipper died")
            self._on_crash()

    def _turn(self) -> float:
        try:
            wait_s = self._shipper.turn(self._stop)
            self._look(did_something=not wait_s)
            return wait_s
        except BUSY_ERRORS as error:
            log.warning("the store is in use: %s", error)
        except DISK_ERRORS as error:
            # A DELETE needs space too. What could not be deleted is announced again, and received at once.
            log.error("the store cannot be written: %s", error)
            self._shards.reserve.give_up()
        return TROUBLE_PAUSE_S

    def _look(self, *, did_something: bool) -> None:
        now_ns = self._clock.now().boot_ns
        if did_something or now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + int(LOOK_EVERY_S * 1e9)
            self.backlog = self._shards.backlog()
