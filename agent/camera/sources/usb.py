"""A USB camera (or any other that the kernel shows as /dev/videoN), through OpenCV and V4L2."""

import errno
import fcntl
import os
import stat
import struct
import threading

import cv2

from agent.camera.health import stalled
from agent.camera.sources.capture import Capture, check_size, quiet
from agent.config import Camera
from agent.errors import Broken, Rejected, Retryable, ShelfwireError
from agent.ports import Clock

# linux/videodev2.h, the same on every 64-bit and 32-bit machine: request numbers, and offsets in their structures.
_VIDIOC_QUERYCAP = 0x80685600
_QUERYCAP_BYTES = 104
_CAPABILITIES_AT = 84
_CAP_VIDEO_CAPTURE = 0x1
_CAP_DEVICE_CAPS = 0x80000000
_VIDIOC_REQBUFS = 0xC0145608
_REQBUFS = struct.Struct("=5I")  # count, type, memory, capabilities, flags
_TYPE_VIDEO_CAPTURE, _MEMORY_MMAP = 1, 1

_AGAIN_S = 0.02  # before the next grab, for some failures come at once


class UsbSource(Capture):
    """Reads a V4L2 device."""

    def __init__(self, camera: Camera, clock: Clock) -> None:
        super().__init__(camera, clock)
        self._path = f"/dev/video{camera.url}" if camera.url.isdecimal() else camera.url
        self._never = threading.Event()

    def open(self) -> None:
        """Open the device. Raises the cause: not there, no permission, in use, no camera."""
        self.close()
        check_device(self._camera.name, self._path)
        quiet()
        capture = cv2.VideoCapture(self._path, cv2.CAP_V4L2)
        if not capture.isOpened():
            capture.release()
            raise Retryable(
                "camera-codec",
                f"camera {self._camera.name}: {self._path} is a camera, but gives no pictures this device understands",
                "unplug it and plug it in again; try another USB port, and another camera",
            )
        self._capture = capture
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # each waiting buffer is a frame of age
        check_size(self._camera, capture)

    def grab(self) -> None:
        """Wait for the next picture. Raises ``camera-stalled``, or ``camera-not-found`` when it was unplugged."""
        assert self._capture is not None, "open comes first"
        began_ns = self._clock.now().boot_ns
        while not self._capture.grab():  # gives up after a second, see agent/camera/__init__.py
            check_device(self._camera.name, self._path, claim=False)
            silent_s = (self._clock.now().boot_ns - began_ns) / 1e9
            if silent_s >= self._camera.stall_timeout:
                raise stalled(self._camera.name, silent_s)
            self._clock.wait(self._never, _AGAIN_S)


def check_device(name: str, path: str, *, claim: bool = True) -> None:
    """Look at a video device before it is opened. Raises the cause why it cannot be; asks for a buffer when `claim`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _why_not(name, path, error) from None
    try:
        if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
            raise _no_camera(name, path)
        reply = fcntl.ioctl(descriptor, _VIDIOC_QUERYCAP, bytes(_QUERYCAP_BYTES))
        whole, of_node = struct.unpack_from("=2I", reply, _CAPABILITIES_AT)
        if not (of_node if whole & _CAP_DEVICE_CAPS else whole) & _CAP_VIDEO_CAPTURE:
            raise _no_camera(name, path)
        if claim:
            fcntl.ioctl(descriptor, _VIDIOC_REQBUFS, _REQBUFS.pack(1, _TYPE_VIDEO_CAPTURE, _MEMORY_MMAP, 0, 0))
    except OSError as error:
        raise _why_not(name, path, error) from None
    finally:
        os.close(descriptor)


def _why_not(name: str, path: str, error: OSError) -> ShelfwireError:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return Retryable(
            "camera-not-found",
            f"camera {name}: there is no {path}",
            "plug the camera in; `ls /dev/v4l/by-id` lists those that are there",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Broken(
            "camera-permission",
            f"camera {name}: this user may not open {path}",
            "add the device's user to the `video` group (usermod -aG video USER) and restart the service",
        )
    if error.errno == errno.EBUSY:
        return Retryable(
            "camera-busy",
            f"camera {name}: another program uses {path}",
            f"find it with `fuser -v {path}` and close it",
        )
    if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EISDIR):
        return _no_camera(name, path)
    return Retryable(
        "camera-error",
        f"camera {name}: {path} does not work: {os.strerror(error.errno or 0)}",
        "unplug the camera and plug it in again; if it stays, try another cable or port",
    )


def _no_camera(name: str, path: str) -> Rejected:
    return Rejected(
        "camera-codec",
        f"camera {name}: {path} is not a camera that gives pictures",
        "take another /dev/videoN: a camera often has a second node for its settings; see /dev/v4l/by-id",
    )
