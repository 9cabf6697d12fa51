"""The device's configuration: strict TOML into frozen models. An unknown key is an error that names the nearest one."""

from agent.config.read import ENROLLED, IDENTITY, ORDERED, load, own_id, parse, read_ordered, state_dir_of
from agent.config.sections import (
    NAME,
    STATE_DIR,
    AlertRule,
    Bytes,
    Camera,
    CameraKind,
    Cloud,
    Config,
    Device,
    Hours,
    Local,
    Seconds,
    Section,
    Update,
    Watched,
    WatchRules,
    Zones,
    nearest,
)

__all__ = [
    "ENROLLED", "IDENTITY", "NAME", "ORDERED", "STATE_DIR", "AlertRule", "Bytes", "Camera", "CameraKind", "Cloud",
    "Config", "Device", "Hours", "Local", "Seconds", "Section", "Update", "WatchRules", "Watched", "Zones", "load",
    "nearest", "own_id", "parse", "read_ordered", "state_dir_of",
]  # fmt: skip
