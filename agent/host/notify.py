"""What this process tells the service manager: ready, what it does, alive, reloading, stopping.

The protocol of sd_notify(3): datagrams of KEY=VALUE lines to the socket named in $NOTIFY_SOCKET. Without that variable
nothing is sent. A message that cannot be sent is logged, and never ends the agent.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Self

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 1.0
PETS_PER_LIMIT = 3
"""The watchdog is petted this often in the time it allows, so that one late turn does no harm."""

RELOAD_LIMIT_S = 90.0
"""How long a reload may take before the watchdog takes it for hung: stop, model, cameras."""

STATUS_CHARACTERS = 400


class Notifier:
    """Speaks to the service manager, if there is one. For one thread: the main loop's."""

    def __init__(self, address: str, watchdog_s: float, time_s: Callable[[], float] = time.monotonic) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._time_s = time_s
        self._next_pet_s = 0.0
        self._ready = False
        self._sentence = ""
        self._trouble = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Take the manager's address, and the time its watchdog allows, from what it set for this very process."""
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = environment.get("WATCHDOG_USEC", "") if mine else ""
        return cls(environment.get("NOTIFY_SOCKET", ""), int(limit) / 1e6 if limit.isdigit() else 0.0)

    @property
    def present(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Say once, at the start and after each `reloading`, that the work can begin."""
        if self._ready:
            return
        # A reload has stretched the watchdog's limit: now the one of the unit holds again.
        limit = [f"WATCHDOG_USEC={round(self._watchdog_s * 1e6)}"] if self._watchdog_s else []
        self._ready = self._send("READY=1", *limit)
        self._next_pet_s = 0.0

    def status(self, sentence: str) -> None:
        """Say in a sentence what this process does; sent when it has changed."""
        line = " ".join(sentence.split())[:STATUS_CHARACTERS]
        if line != self._sentence and self._send(f"STATUS={line}"):
            self._sentence = line

    def alive(self) -> None:
        """Pet the watchdog when it is due. Call it where the work has moved on, never from a timer."""
        now_s = self._time_s()
        if self._watchdog_s and now_s >= self._next_pet_s and self._send("WATCHDOG=1"):
            self._next_pet_s = now_s + self._watchdog_s / PETS_PER_LIMIT

    def reloading(self) -> None:
        """Say that the configuration is read again; `ready` ends it."""
        limit = [f"WATCHDOG_USEC={round(RELOAD_LIMIT_S * 1e6)}"] if self._watchdog_s else []
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}", *limit)
        self._ready = False

    def stopping(self) -> None:
        """Say that the process is about to end."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(SEND_TIMEOUT_S)
                channel.connect(self._address)
                channel.send("\n".join(lines).encode())
        except OSError as error:
            if str(error) != self._trouble:
                log.warning("the service manager cannot be told %s: %s", lines[0].partition("=")[0], error)
            self._trouble = str(error)
            return False
        self._trouble = ""
        return True
