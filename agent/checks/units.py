"""What the service manager says of our units: active, enabled, restarts, the last result."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.checks.words import many

UNITS = ("shelfwire.target", "shelfwire-vision.service", "shelfwire-sync.service", "shelfwire-nightly.timer")
PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "Result")
RUNS_HERE = Path("/run/systemd/system")
"""There as long as systemd is the service manager (sd_booted(3))."""

TIMEOUT_S = 2.0
MANY_RESTARTS = 3

_ENABLED = ("enabled", "enabled-runtime", "static", "alias", "generated")


def check(_: Context) -> Iterator[Finding]:
    """Ask systemd, within a deadline."""
    if not RUNS_HERE.is_dir():
        yield skipped("service", "units", "systemd does not run here")
        return
    try:
        units = ask()
    except (OSError, subprocess.SubprocessError) as error:
        yield wrong("service", "SVC-9", type(error).__name__)
        return
    if all(unit.get("LoadState") == "not-found" for unit in units):
        yield skipped("service", "units", "the agent is not installed as a service here")
        return
    found = [finding for unit in units for finding in judge(unit)]
    yield from found or [fine("service", f"{many(len(units), 'unit')} active and enabled")]


def ask() -> list[dict[str, str]]:
    """Give the properties of our units, one dictionary each."""
    words = ["systemctl", "show", "--no-pager", f"--property={','.join(PROPERTIES)}", *UNITS]
    said = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    return parse(said)


def parse(said: str) -> list[dict[str, str]]:
    """Read what `systemctl show` prints: lines of KEY=VALUE, an empty line between units."""
    blocks = [block for block in said.split("\n\n") if block.strip()]
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def judge(unit: dict[str, str]) -> Iterator[Finding]:
    """Say what is wrong with one unit."""
    name = unit.get("Id", "?")
    if unit.get("LoadState") == "not-found":
        yield wrong("service", "SVC-5", f"{name} is not installed", cure="install the agent again")
        return
    if unit.get("ActiveState") == "failed":
        yield wrong("service", "SVC-6", f"{name}: {unit.get('Result', '')}", cure=f"journalctl -u {name} -n 50")
    restarts = int(unit.get("NRestarts") or 0)
    if restarts >= MANY_RESTARTS:
        yield wrong("service", "SVC-4", f"{name}: {many(restarts, 'restart')}", cure=f"journalctl -u {name} -n 50")
    if unit.get("UnitFileState") not in _ENABLED:
        yield wrong("service", "SVC-5", name, cure=f"systemctl enable --now {name}")


CHECK = Check("units", "service", "systemd units: active, enabled, restarts, last result", check, late="SVC-9")
