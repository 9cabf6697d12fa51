"""Why does this network camera not open? FFmpeg does not say, so we ask the camera ourselves, within a deadline."""

import errno
import os
import queue
import socket
import ssl
import threading
from dataclasses import dataclass

from agent.camera import CA_FILE, rtsp
from agent.camera.address import Address
from agent.camera.causes import Causes
from agent.camera.http import Client, network_is_shut
from agent.config import Camera
from agent.errors import ShelfwireError
from agent.ports import Clock

_PICTURE_TYPES = ("image/", "video/", "multipart/x-mixed-replace", "application/octet-stream", "application/vnd.apple")


def diagnose(camera: Camera, address: Address, clock: Clock, took_s: float) -> ShelfwireError:
    """Give the cause why `address` could not be opened, after asking it for at most the camera's open timeout.

    `took_s` is how long the failed opening took: it tells a stream that never came from one that cannot be decoded.
    """
    cause = ask(camera, address, clock)
    if cause is not None:
        return cause
    causes = Causes(camera.name, address)
    if took_s >= 0.9 * camera.open_timeout:
        return causes.timeout("it answers, but sent no picture", camera.open_timeout)
    # Not for a person yet: it may have come up between FFmpeg's try and ours.
    return causes.broken_picture("it answers, but what it sent was no video that this device knows")


def ask(camera: Camera, address: Address, clock: Clock) -> ShelfwireError | None:
    """Ask the camera itself, for at most its open timeout; gives what is wrong, None when it answers as it should."""
    causes = Causes(camera.name, address)
    deadline = _Deadline(clock, clock.now().boot_ns + round(camera.open_timeout * 1e9), camera.open_timeout)
    try:
        _connect(causes, deadline).close()
        if address.scheme in ("rtsp", "rtsps"):
            _ask_rtsp(causes, deadline)
        else:
            _ask_http(causes, deadline, clock)
    except ShelfwireError as cause:
        return cause
    return None


@dataclass(frozen=True, slots=True)
class _Deadline:
    clock: Clock
    boot_ns: int
    whole_s: float

    def left_s(self) -> float:
        """Give the seconds left, never 0, which a socket takes for "do not wait"."""
        return max(0.01, (self.boot_ns - self.clock.now().boot_ns) / 1e9)


def _connect(causes: Causes, deadline: _Deadline) -> socket.socket:
    """Connect to the first of the host's addresses that answers, encrypted where the scheme says so."""
    if network_is_shut():
        raise causes.shut()
    last: ShelfwireError = causes.dns()
    for family, target in _resolve(causes, deadline):
        raw = socket.socket(family, socket.SOCK_STREAM)
        try:
            raw.settimeout(deadline.left_s())
            raw.connect(target)
            return _encrypt(causes, raw) if causes.address.secure else raw
        except ShelfwireError:
            raw.close()
            raise
        except OSError as error:
            raw.close()
            last = _why_no_connection(causes, deadline, error)
    raise last


def _resolve(causes: Causes, deadline: _Deadline) -> list[tuple[int, tuple[str, int]]]:
    """Ask for the host's addresses. In a thread, since the system's resolver knows no deadline."""
    answers: queue.SimpleQueue[list[tuple[int, tuple[str, int]]]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(causes.address.host, causes.address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = []
        answers.put([(int(family), target) for family, _, _, _, target in found])  # type: ignore[misc]

    threading.Thread(target=ask, name=f"camera-{causes.name}-resolve", daemon=True).start()
    try:
        found = answers.get(timeout=deadline.left_s())
    except queue.Empty:
        found = []
    if not found:
        raise causes.dns()
    return found


def _why_no_connection(causes: Causes, deadline: _Deadline, error: OSError) -> ShelfwireError:
    if isinstance(error, ConnectionRefusedError):
        return causes.refused()
    if isinstance(error, TimeoutError):
        return causes.timeout("it does not answer", deadline.whole_s)
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM):
        return causes.unreachable(os.strerror(error.errno))
    return causes.lost()


def _encrypt(causes: Causes, raw: socket.socket) -> socket.socket:
    try:
        return ssl.create_default_context(cafile=CA_FILE).wrap_socket(raw, server_hostname=causes.address.host)
    except ssl.SSLCertVerificationError as error:
        raise causes.tls(error.verify_message) from None
    except (ssl.SSLError, ConnectionError):
        raise causes.tls("the handshake failed") from None


def _ask_rtsp(causes: Causes, deadline: _Deadline) -> None:
    """Raise the cause that the camera's answers to DESCRIBE name, if they name one."""
    address = causes.address
    reply = _describe(causes, deadline, None)
    if reply.status == 401 and address.login is not None:
        authorization = rtsp.authorize(reply.challenges, "DESCRIBE", address.url, address.login)
        if authorization is None:
            raise causes.codec("it asks for a kind of login that this device does not know")
        reply = _describe(causes, deadline, authorization)
    cause = causes.by_status(reply.status)
    if cause is not None:
        raise cause
    if "m=video" not in reply.body:
        raise causes.codec("its stream has no video in it")


def _describe(causes: Causes, deadline: _Deadline, authorization: str | None) -> rtsp.Reply:
    with _connect(causes, deadline) as connection:
        try:
            return rtsp.describe(connection, causes.address.url, authorization, deadline.left_s)
        except TimeoutError:
            raise causes.timeout("it takes the connection, but does not answer", deadline.whole_s) from None
        except OSError:
            raise causes.lost() from None
        except ValueError as error:
            raise causes.codec(str(error)) from None


def _ask_http(causes: Causes, deadline: _Deadline, clock: Clock) -> None:
    """Raise the cause that the camera's answer to GET names, if it names one."""
    client = Client(causes.name, causes.address, clock)
    try:
        with client.get(deadline.left_s()) as response:
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    finally:
        client.close()
    if kind and not kind.startswith(_PICTURE_TYPES):
        raise causes.codec(f"it sends {kind[:40]!r} there, not video")
