"""What the doctor found, for a tired person on a ladder: one line each, the cure under what is bad, a code to say."""

import textwrap
from collections.abc import Sequence

from agent.checks import Finding, spoken
from agent.cli.common import paint

WIDTH = 100
INDENT = " " * 14

MARKS = {"ok": "✓ ok  ", "warning": "! look", "failure": "✗ FAIL", "skipped": "- skip"}
_COLOURS = {"ok": "32", "warning": "33", "failure": "31", "skipped": "2"}


def write(found: Sequence[Finding], device: str, took_s: float, *, colour: bool) -> str:
    """Give the whole text. Marks have a word beside them: not everybody sees colours."""
    lines: list[str] = []
    for finding in found:
        lines += _lines(finding, colour=colour)
    lines += ["", _verdict(found, device, took_s), paint(f"Code: {spoken(found)}", "1", colour=colour)]
    return "\n".join(lines)


def _lines(finding: Finding, *, colour: bool) -> list[str]:
    mark = paint(MARKS[finding.severity], _COLOURS[finding.severity], colour=colour)
    if not finding.bad:
        why = f" ({finding.detail})" if finding.severity == "skipped" and finding.detail else ""
        return _hang(mark, finding.area, f"{finding.title}{why}")
    lines = _hang(mark, finding.area, f"{finding.title} [{finding.code}]")
    if finding.detail:
        for part in finding.detail.splitlines():
            lines += _under(part.strip())
    if finding.cure:
        lines += _under(f"-> {finding.cure}" + ("" if finding.who.startswith("you") else f" ({finding.who})"))
    return lines


def _hang(mark: str, area: str, text: str) -> list[str]:
    first, *rest = textwrap.wrap(text, WIDTH - 21, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{mark} {area:<12}  {first}", *(f"{'':<21}{line}" for line in rest)]


def _under(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * 21, subsequent_indent=" " * 24, break_long_words=False, break_on_hyphens=False
    )


def _verdict(found: Sequence[Finding], device: str, took_s: float) -> str:
    counted = {severity: sum(f.severity == severity for f in found) for severity in MARKS}
    parts = [
        f"{n} {word}{'s' if n > 1 else ''}"
        for n, word in ((counted["failure"], "failure"), (counted["warning"], "warning"))
        if n
    ]
    said = ", ".join(parts) or ("nothing wrong was found" if counted["skipped"] else "all is well")
    left_out = f", {counted['skipped']} not looked at" if counted["skipped"] else ""
    return f"{device + ': ' if device else ''}{said}{left_out} ({took_s:.1f} s)"
