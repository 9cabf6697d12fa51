"""What a check says: one line about one thing, with a code to read aloud and the cure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from agent.core.codes import AREAS, CODES, WHO, Severity

FINE = 0
"""Exit codes of the doctor, by its worst finding."""
WARNINGS = 1
FAILURES = 2
NOT_RUN = 3

CHECK_FAILED, CHECK_LATE = "SVC-8", "SVC-10"
"""Codes of a check that could not be made."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `code` is of `agent.core.codes`, or ends with ``-0`` for what is fine or was not looked at.

    `title` is the line to show, `detail` what was measured, `cure` what to do; both may be empty.
    """

    code: str
    area: str
    severity: Literal["ok", "warning", "failure", "skipped"]
    title: str
    detail: str
    cure: str

    @property
    def bad(self) -> bool:
        """Whether somebody must act."""
        return self.severity in ("warning", "failure")

    @property
    def who(self) -> str:
        """Who acts, in words; empty when nobody needs to."""
        return WHO[CODES[self.code].who] if self.code in CODES else ""


def fine(area: str, title: str, detail: str = "") -> Finding:
    """Say that something is as it should be."""
    return Finding(f"{AREAS[area]}-0", area, "ok", title, detail, "")


def skipped(area: str, title: str, why: str) -> Finding:
    """Say that something was not looked at, and why."""
    return Finding(f"{AREAS[area]}-0", area, "skipped", title, why, "")


def wrong(
    area: str, code: str, detail: str = "", *, title: str = "", cure: str = "", severity: Severity | None = None
) -> Finding:
    """Say that something is wrong, in the words of its code unless others are given."""
    known = CODES[code]
    return Finding(code, area, severity or known.severity, title or known.means, detail, cure or known.cure)


def exit_code(findings: Iterable[Finding]) -> int:
    """Give the doctor's exit code: 0 fine, 1 warnings, 2 failures, 3 when a check could not be made."""
    found = list(findings)
    if any(finding.severity == "failure" for finding in found):
        return FAILURES
    if any(finding.code in (CHECK_FAILED, CHECK_LATE) for finding in found):
        return NOT_RUN
    return WARNINGS if any(finding.bad for finding in found) else FINE


def spoken(findings: Iterable[Finding]) -> str:
    """Give the codes to read out over the phone, failures first, each once; ``OK`` when all is fine."""
    found = [finding for finding in findings if finding.bad]
    ordered = [f.code for f in found if f.severity == "failure"] + [f.code for f in found if f.severity == "warning"]
    return " ".join(dict.fromkeys(ordered)) or "OK"
