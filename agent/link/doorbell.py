"""The doorbell: a datagram from vision wakes sync at once. Not needed for correctness: sync also looks by itself."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)


class Doorbell:
    """Listens on a Unix datagram socket and calls `ring` for every group of datagrams."""

    def __init__(self, path: Path, ring: Callable[[], None]) -> None:
        self._path = path
        self._ring = ring
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="doorbell", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._socket.recv(16)
            except OSError:
                break
            if not self._stopping.is_set():
                self._ring()

    def stop(self) -> None:
        """Stop listening and remove the socket."""
        self._stopping.set()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
            bell.sendto(b"", str(self._path))
        self._thread.join(1.0)
        self._socket.close()
        self._path.unlink(missing_ok=True)


def ring(runtime_dir: Path) -> None:
    """Wake sync once, from a command. Not needed for correctness: sync looks by itself."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bell:
        bell.sendto(b"1", str(runtime_dir / "doorbell"))
