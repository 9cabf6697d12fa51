"""What went wrong lately (`--since`): starts of vision, refused records, errors in the journal."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw

from agent.checks.context import Context
from agent.checks.finding import Finding, fine, skipped, wrong
from agent.checks.runner import Check
from agent.checks.words import duration, many
from agent.errors import ShelfwireError
from agent.store.database import one
from agent.store.outside import reading

TIMEOUT_S = 2.5
JOURNALS = (Path("/run/log/journal"), Path("/var/log/journal"))
MANY_STARTS = 3


def check(context: Context) -> Iterator[Finding]:
    """Count what went wrong in the time asked about; nothing is said when none was."""
    if context.since_s is None:
        return
    lately = f"in the last {duration(context.since_s)}"
    try:
        starts, refused = _counted(context, context.since_s)
    except ShelfwireError:
        yield skipped("service", "starts and refusals", "the store cannot be read")
    else:
        if starts >= MANY_STARTS:
            yield wrong("service", "SVC-4", f"vision was started {starts} times {lately}")
        if refused:
            yield wrong("outbox", "BOX-6", f"{many(refused, 'record')} of those captured {lately}")
        if starts < MANY_STARTS and not refused:
            yield fine("service", f"{many(starts, 'start')} of vision, nothing refused {lately}")
    yield from _journal(context.since_s, lately)


def _counted(context: Context, since_s: float) -> tuple[int, int]:
    from_ns = context.clock.now().wall_ns - int(since_s * 1e9)
    with reading(context.state_dir) as db:
        return _starts(db, from_ns), int(
            one(db, "SELECT count(*) FROM outbox WHERE state = 2 AND wall_ns >= ?", from_ns)
        )


def _starts(db: apsw.Connection, from_ns: int) -> int:
    return int(one(db, "SELECT count(*) FROM run WHERE role = 'vision' AND started_ns >= ?", from_ns))


def _journal(since_s: float, lately: str) -> Iterator[Finding]:
    if not any(folder.is_dir() for folder in JOURNALS):
        yield skipped("service", "journal", "there is none on this machine")
        return
    words = ["journalctl", "--no-pager", "--quiet", "--output=cat", "--priority=err", f"--since=-{since_s:.0f}s",
             "--unit=shelfwire-*"]  # fmt: skip
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, errors="replace")
    except (OSError, subprocess.SubprocessError) as error:
        yield skipped("service", "journal", f"it cannot be read: {type(error).__name__}")
        return
    if "No data available" in said.stderr:
        yield skipped("service", "journal", "it knows nothing of our services")
        return
    lines = [line for line in said.stdout.splitlines() if line.strip() and not line[0].isspace()]  # the rest goes on
    if said.returncode or "not permitted" in said.stderr:
        yield skipped("service", "journal", "run as root, or as a member of the group systemd-journal")
    elif lines:
        yield wrong("service", "SVC-7", f"{many(len(lines), 'error')} {lately}, the last: {lines[-1][:120]}")
    else:
        yield fine("service", f"no error in the journal {lately}")


CHECK = Check("log", "service", "with --since: starts, refusals, errors in the journal", check)
