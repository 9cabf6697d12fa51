"""The kinds of camera: one file each, one function that chooses."""

from agent.camera.mask import hide
from agent.camera.sources.folder import FolderSource
from agent.camera.sources.rendered import RenderedSource
from agent.camera.sources.snapshot import SnapshotSource
from agent.camera.sources.stream import StreamSource
from agent.camera.sources.usb import UsbSource
from agent.camera.sources.video import VideoSource
from agent.config import Camera
from agent.ports import Clock, Source

__all__ = ["open_source"]


def open_source(camera: Camera, clock: Clock) -> Source:
    """Give the source for `camera`, by its kind; nothing is touched before its `open`.

    The zones of `camera.mask` are painted over in every picture it gives. Raises `Rejected` or `Broken` when the
    address or the login cannot be meant.
    """
    return hide(_bare_source(camera, clock), camera.mask)


def _bare_source(camera: Camera, clock: Clock) -> Source:
    match camera.kind_of():
        case "rtsp" | "http":
            return StreamSource(camera, clock)
        case "snapshot":
            return SnapshotSource(camera, clock)
        case "usb":
            return UsbSource(camera, clock)
        case "file":
            return VideoSource(camera)
        case "folder":
            return FolderSource(camera)
        case "synthetic":
            return RenderedSource(camera)
