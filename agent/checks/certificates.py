"""Are the files there with which this device shows who it is?"""

from collections.abc import Iterator
from pathlib import Path

from agent.checks.context import Context
from agent.checks.finding import Finding, skipped
from agent.checks.runner import Check

IDENTITY = "identity"
"""Folder in the state folder where enrolment leaves key and certificate."""


def check(context: Context) -> Iterator[Finding]:
    """Look at the device's certificate and key."""
    cloud = context.config.cloud if context.config else None
    if cloud is None or cloud.cert_file is None:
        yield skipped("certificates", "device certificate", "none is configured")


def identity(state_dir: Path) -> Path:
    """Where enrolment leaves key and certificate."""
    return state_dir / IDENTITY


CHECK = Check(
    "certificates", "certificates", "the device's certificate and key: valid, days left, belong together", check
)
