"""What is asked of a file or folder before it is read, in the camera's error codes."""

import os
from pathlib import Path

from agent.config import Camera
from agent.errors import Rejected


def existing_path(camera: Camera) -> Path:
    """Give the path of a file or folder camera.

    Raises `Rejected`: ``camera-not-found`` when nothing is there, ``camera-permission`` when it may not be read.
    """
    path = Path(camera.url).expanduser()
    try:
        exists = path.exists()
    except OSError:  # a parent folder that may not be entered, or a name that is too long
        exists = False
    if not exists:
        raise Rejected(
            "camera-not-found",
            f"camera {camera.name}: there is no {path}",
            "correct the path in the camera's url, or put the file there",
        )
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise Rejected(
            "camera-permission",
            f"camera {camera.name}: {path} may not be read by this user",
            f"give the device's user the right to read it (chmod o+r {path})",
        )
    return path
