"""Composition roots: configuration -> adapters -> threads -> signals and stop order. They alone import adapters."""

import logging
import os
import signal
import threading
from types import FrameType

log = logging.getLogger(__name__)


class Stop:
    """The stop signal, passed in as a value. A second SIGTERM or SIGINT means now."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.crashed = False

    def listen(self) -> None:
        """Take SIGTERM and SIGINT; call it from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if self.event.is_set():
            os._exit(128 + number)
        self.event.set()

    def crash(self) -> None:
        """End the process because one of its threads died; its owner starts it anew."""
        self.crashed = True
        self.event.set()
