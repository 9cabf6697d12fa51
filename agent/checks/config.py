"""Is there a configuration, and can it be meant?"""

import os
import stat
from collections.abc import Iterator
from urllib.parse import urlsplit

from agent.checks.context import HIDDEN, Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.config import Config

_CODES = {"config-missing": "CFG-1", "config-unreadable": "CFG-3"}


def check(context: Context) -> Iterator[Finding]:
    """Look at the configuration file."""
    config = context.config
    if config is None:
        yield _broken(context)
        return
    if not config.camera:
        yield wrong("config", "CFG-4")
    if config.cloud.broker is None:
        yield wrong("config", "CFG-5")
    if _shows_password(context, config):
        yield wrong("config", "CFG-6", str(context.config_path))
    cameras = "1 camera" if len(config.camera) == 1 else f"{len(config.camera)} cameras"
    yield fine("config", f"the configuration of {config.device.id} can be used", f"{context.config_path}: {cameras}")


def _broken(context: Context) -> Finding:
    error = context.config_error
    assert error is not None, "a configuration that is not there has a reason"
    if error.code == HIDDEN or (error.code == "config-unreadable" and _is_hidden(context)):
        where = str(error) if error.code == HIDDEN else str(context.config_path)
        return skipped("config", "the configuration is not for this user's eyes", f"{where}: run as root")
    code = _CODES.get(error.code, "CFG-2")
    return wrong("config", code, str(error), cure="" if code == "CFG-1" else error.hint)


def _is_hidden(context: Context) -> bool:
    """Whether it is this user who may not look, at the file or at what enrolment has left."""
    return not os.access(context.config_path, os.R_OK) or context.state_hidden


def _shows_password(context: Context, config: Config) -> bool:
    """Whether the file holds a camera's password and every user of this machine may read it."""
    try:
        mode = context.config_path.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IROTH) and any(urlsplit(camera.url).password for camera in config.camera)


CHECK = Check("config", "config", "the configuration file: there, without mistakes, its passwords kept", check)
