"""The daemons as the service manager sees them, for commands that a technician runs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

TARGET = "shelfwire.target"
SERVICES = ("shelfwire-vision.service", "shelfwire-sync.service")

RESTART_TIMEOUT_S = 240.0
"""Longer than the units' own limits for a stop and a start."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A service at one moment: `active` as systemd says it ("active", "failed"), `status` in the service's words."""

    unit: str
    active: str
    status: str


def are_installed() -> bool:
    """Whether systemd runs here and has our units."""
    if not Path("/run/systemd/system").is_dir():
        return False
    return subprocess.run(["systemctl", "cat", TARGET], capture_output=True, check=False).returncode == 0


def restart() -> list[ServiceState]:
    """Start all of Shelfwire anew, as after a change of identity, and wait until it is ready or has failed.

    Needs root. Empty where systemd does not run or has no units of ours: then somebody else starts the agent.
    """
    if not are_installed():
        return []
    # What has failed too often would be refused a start, though the cause is mended.
    _systemctl("reset-failed", "shelfwire-*")
    _systemctl("restart", TARGET)
    return states()


def states() -> list[ServiceState]:
    """Say how each service is; empty where systemd has no units of ours."""
    return [_state(unit) for unit in SERVICES] if are_installed() else []


def _state(unit: str) -> ServiceState:
    shown = _systemctl("show", "--property=ActiveState,StatusText", unit)
    found = dict(line.partition("=")[::2] for line in shown.splitlines())
    return ServiceState(unit, found.get("ActiveState", "unknown"), found.get("StatusText", ""))


def _systemctl(*words: str) -> str:
    command = ["systemctl", "--no-pager", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=RESTART_TIMEOUT_S, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""
