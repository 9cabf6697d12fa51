"""Threads of one part that begin and end together, and of which none dies in silence."""

import logging
import threading
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)


class Crew:
    """Named threads. When one dies of an error it is logged, `stopping` is set for all, and `on_crash` is called in it.

    The bodies end by themselves soon after `stopping` is set.
    """

    def __init__(self, bodies: Mapping[str, Callable[[], None]], on_crash: Callable[[BaseException], None]) -> None:
        self.stopping = threading.Event()
        self._on_crash = on_crash
        self._threads = {
            name: threading.Thread(target=self._guarded, args=(body,), name=name, daemon=True)
            for name, body in bodies.items()
        }

    def start(self) -> None:
        """Begin."""
        for thread in self._threads.values():
            thread.start()

    def join(self, timeout_s: float | None = None, *names: str) -> bool:
        """Wait until the threads of these names have ended, all without one; False when the time was not enough."""
        threads = [self._threads[name] for name in names] if names else list(self._threads.values())
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in threads:
            if thread.ident is not None:
                thread.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # the boundary of a thread: nothing may vanish in silence
            log.exception("%s died", threading.current_thread().name)
            self.stopping.set()
            self._on_crash(error)
