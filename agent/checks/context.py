"""What checks are given: the configuration if there is one, the store if it can be read, and how thorough to be."""

import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from agent import config as configuration
from agent.config import Config
from agent.errors import Broken, Rejected, Retryable, ShelfwireError
from agent.host.clock import SystemClock, boot_id
from agent.link import trace
from agent.link.hops import Way
from agent.ports import Clock
from agent.store import outside
from agent.store.inspect import Snapshot, look
from agent.store.outside import is_at_work

T = TypeVar("T")

SPARE_S = 0.25
"""What is kept back of a check's time, to say what was found."""

LOAD_S = 1.5
"""How long the configuration may take to be read."""

HIDDEN = "config-hidden"
"""Code of a configuration that names files where this user may not look."""

SHARED_S = 2.0
"""How long a check waits for what another check reads as well, before it goes without."""


class Once(Generic[T]):
    """Something that several checks need and that may hang: read by the first one, the others wait, not for ever."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._outcome: T | ShelfwireError | None = None

    def get(self, timeout_s: float = SHARED_S) -> T:
        """Give it. Raises what making it raises, `Retryable` (``late``) when it does not come in time."""
        if not self._lock.acquire(timeout=timeout_s):
            raise Retryable("late", "it does not answer in time")
        try:
            if self._outcome is None:
                try:
                    self._outcome = self._make()
                except ShelfwireError as error:
                    self._outcome = error
        finally:
            self._lock.release()
        if isinstance(self._outcome, ShelfwireError):
            raise self._outcome
        return self._outcome


@dataclass(frozen=True)
class Context:
    """What the doctor knows before it looks. `config` is None when `config_error` says why."""

    config_path: Path
    config: Config | None
    config_error: ShelfwireError | None = None
    quick: bool = False
    """Look only at what takes no time: no camera is opened, no model is run, nothing is sent."""
    deep: bool = False
    """Also check the store against its invariants."""
    since_s: float | None = None
    """Also count what went wrong in this time."""
    patience_s: float = 3.0
    """How long one check may take."""
    until_s: float = float("inf")
    """When the checks that run now are given up, on the monotonic clock."""
    clock: Clock = field(default_factory=SystemClock)
    sys: Path = Path("/sys")
    proc: Path = Path("/proc")

    @classmethod
    def load(cls, path: Path, **how: object) -> "Context":
        """Load the configuration at `path` if that is possible."""
        try:
            return cls(path, _in_time(lambda: configuration.load(path)), **how)  # type: ignore[arg-type]
        except ShelfwireError as error:
            return cls(path, None, error, **how)  # type: ignore[arg-type]
        except OSError as error:  # a file that the configuration names lies where this user may not look
            return cls(path, None, Rejected(HIDDEN, str(error.filename), "run as root"), **how)  # type: ignore[arg-type]

    def until(self, until_s: float) -> "Context":
        """Give this context for checks that are given up at `until_s`. What was read for others is read again."""
        return replace(self, until_s=until_s)

    def left_s(self) -> float:
        """What is left of a check's time, in seconds."""
        return max(0.1, min(self.patience_s, self.until_s - time.monotonic()))

    @property
    def state_dir(self) -> Path:
        """Where the agent keeps its files, also by a configuration that has mistakes elsewhere."""
        return self.config.device.state_dir if self.config else self._stated

    @cached_property
    def _stated(self) -> Path:
        try:
            return configuration.state_dir_of(self.config_path)
        except ShelfwireError:
            return configuration.STATE_DIR

    @property
    def state_hidden(self) -> bool:
        """Whether this user cannot look into the state folder, though it is there."""
        try:
            os.stat(self.state_dir)  # noqa: PTH116 - `Path.exists` hides what is asked for here
        except PermissionError:
            return True
        except OSError:
            return False
        if not self.state_dir.is_dir():
            return False
        locks = [lock for lock in self.state_dir.glob("*.lock") if not os.access(lock, os.R_OK)]
        return bool(locks) or not os.access(self.state_dir, os.R_OK | os.X_OK)

    @cached_property
    def _snapshot(self) -> Once[Snapshot]:
        return Once(lambda: look(self.state_dir))

    def snapshot(self) -> Snapshot:
        """Read the store, once for all checks. Raises `Broken` as `look` does, `Retryable` when it hangs."""
        return self._snapshot.get()

    def at_work(self, role: str) -> bool:
        """Whether the process of a role runs, by its lock."""
        return is_at_work(self.state_dir, role)

    def sync(self) -> trace.Sync:
        """What sync says of its connection. Where this user cannot look, sync counts as running."""
        if self.state_hidden:
            return trace.Sync(True, {})
        if not self.at_work("sync"):
            return trace.Sync(False, {})
        try:
            snapshot = self.snapshot()
        except ShelfwireError:
            return trace.Sync(True, {})

        receipt = snapshot.receipt
        if receipt.get("boot") != boot_id():
            return trace.Sync(True, snapshot.sync)
        age_s = max(0.0, (self.clock.now().boot_ns - receipt["boot_ns"]) / 1e9)
        return trace.Sync(True, snapshot.sync, age_s, receipt["ms"])

    @cached_property
    def _ways(self) -> Once[list[Way]]:
        return Once(lambda: trace.walk(self.config, self.sync(), self.left_s() - SPARE_S) if self.config else [])

    def ways(self, timeout_s: float) -> list[Way]:
        """Walk to broker and API, once for all checks. Raises `Retryable` when it does not end in time."""
        return self._ways.get(timeout_s)

    def vision_reports(self) -> Snapshot | None:
        """The store, when vision runs and its report is fresh; else None."""
        if self.state_hidden or not self.at_work("vision"):
            return None
        try:
            snapshot = self.snapshot()
        except (Broken, Retryable):
            return None
        report = snapshot.vision
        if not report or report["stopped"] or report["boot"] != boot_id():
            return None
        silent = snapshot.silent_s(boot_id(), self.clock.now().boot_ns) is not None
        return None if silent else snapshot


def _in_time(load: Callable[[], Config]) -> Config:
    """Load in a thread of its own: the file, or one that it names, may lie on a disk that does not answer."""
    outcomes: queue.SimpleQueue[Config | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcomes.put(load())
        except (ShelfwireError, OSError) as error:
            outcomes.put(error)

    threading.Thread(target=run, name="load-config", daemon=True).start()
    try:
        outcome = outcomes.get(timeout=LOAD_S)
    except queue.Empty:
        raise Broken("config-unreadable", "the disk does not answer", "look at the card or disk; restart") from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def run_as(context: Context) -> str:
    """Say who may see what this user may not."""
    return outside.run_as(context.state_dir)
