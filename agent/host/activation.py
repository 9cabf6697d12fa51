"""Listening sockets that systemd opened for this process, which needs no network then (sd_listen_fds(3))."""

import os
import socket
from collections.abc import Mapping

from agent.errors import Rejected

FIRST = 3
"""The first file descriptor that is handed in; the others follow it."""


def handed_in(name: str, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> socket.socket | None:
    """Give the listening TCP socket that was handed in under `name` (FileDescriptorName=), None when there is none.

    It is a copy: the handed in one stays open as long as the process lives, for whoever asks again after a reload.
    What was meant for another process, a parent for instance, is left alone. Raises `Rejected` (``socket-unfit``).
    """
    if environ.get("LISTEN_PID") != str(pid or os.getpid()):
        return None
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    count = environ.get("LISTEN_FDS", "")
    if name not in names or not count.isdigit() or names.index(name) >= int(count):
        return None
    return _adopt(FIRST + names.index(name), name)


def _adopt(number: int, name: str) -> socket.socket:
    unfit = Rejected(
        "socket-unfit",
        f'the socket "{name}" that was handed in is not a listening TCP socket',
        "correct ListenStream= in shelfwire-vision.socket, for example ListenStream=127.0.0.1:8471",
    )
    try:
        os.set_inheritable(number, False)
        copy = os.dup(number)
    except OSError:
        raise unfit from None
    try:
        opened = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise unfit from None
    is_tcp = opened.family in (socket.AF_INET, socket.AF_INET6) and opened.type == socket.SOCK_STREAM
    if not is_tcp or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        opened.close()
        raise unfit
    return opened
