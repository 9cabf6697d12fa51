"""Composition roots: configuration -> adapters -> threads -> signals and stop order. They alone import adapters."""

import _thread
import logging
import os
import signal
import threading
from types import FrameType

log = logging.getLogger(__name__)


class Stop:
    """The stop signal, passed in as a value. A second SIGTERM or SIGINT means now.

    `event` ends what runs; it is set for a stop, a crash and the end of a life that a reload replaces (`renew`).
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.crashed = False
        self._asked = False
        self._reload = False

    def listen(self) -> None:
        """Take SIGTERM and SIGINT; call it from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def listen_reload(self) -> None:
        """Take SIGHUP as the wish for a reload: under a service manager only, for a terminal that closes sends it."""
        signal.signal(signal.SIGHUP, self._reload_signalled)

    def ask_reload(self) -> None:
        """Wish for a reload, as SIGHUP does: the ordered settings have changed."""
        self._reload = True

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last look."""
        asked, self._reload = self._reload, False
        return asked

    def renew(self) -> bool:
        """Begin anew after a life has ended; False when the process itself shall end. For the main thread."""
        if not self._asked and not self.crashed:
            self.event = threading.Event()
        # A signal may have come in between: it set the event that was.
        return not self._asked and not self.crashed

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            os._exit(128 + number)
        self._asked = True
        # Not here: the lock of the event may be held by the very wait of the main thread that the signal interrupts.
        _thread.start_new_thread(self.event.set, ())

    def _reload_signalled(self, _number: int, _frame: FrameType | None) -> None:
        self._reload = True

    def crash(self) -> None:
        """End the process because one of its threads died; its owner starts it anew."""
        self.crashed = True
        self.event.set()
