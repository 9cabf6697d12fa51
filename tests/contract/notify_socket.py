"""The service manager's end of sd_notify: a datagram socket that a test binds."""

import socket
import time
from collections.abc import Callable
from pathlib import Path


class NotifySocket:
    """Collects what a process tells; every message is a list of lines."""

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)
        self.messages: list[list[str]] = []

    def environment(self, watchdog_s: float = 0) -> dict[str, str]:
        limit = {"WATCHDOG_USEC": str(round(watchdog_s * 1e6))} if watchdog_s else {}
        return {"NOTIFY_SOCKET": self.address, **limit}

    def take(self, timeout_s: float) -> list[str] | None:
        """Give the next message, None when none comes in time."""
        self._socket.settimeout(timeout_s)
        try:
            self.messages.append(self._socket.recv(4096).decode().splitlines())
        except (TimeoutError, BlockingIOError):
            return None
        return self.messages[-1]

    def wait_for(self, wanted: Callable[[str], bool], timeout_s: float = 60.0) -> str:
        """Read on until a line is as wanted; gives the line."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            for line in self.take(left_s) or ():
                if wanted(line):
                    return line
        raise AssertionError(f"nothing such in {timeout_s:.0f} s; told was {self.messages[-5:]}")

    def silence_s(self, line: str, longest_s: float) -> float:
        """Read until `line` comes or the time is over; gives how long it did not come."""
        began_s = time.monotonic()
        while (left_s := began_s + longest_s - time.monotonic()) > 0:
            if line in (self.take(left_s) or ()):
                break
        return time.monotonic() - began_s

    @property
    def lines(self) -> list[str]:
        return [line for message in self.messages for line in message]

    def close(self) -> None:
        self._socket.close()
