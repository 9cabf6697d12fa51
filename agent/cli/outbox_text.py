"""The outbox in words, for a person on a ladder."""

import json
from typing import Any

from agent.cli.common import table
from agent.cli.status_text import duration, size
from agent.core.records import moment
from agent.ports import Stamp
from agent.store.browse import Page, Record
from agent.store.invariants import Flaw
from agent.store.mending import Done

WHAT = {
    "alert": "alerts: they go first, and are never thinned out",
    "result": "answers",
    "receipt": "receipts",
    "offload": "frames for the cloud's function",
    "review": "frames for a second look",
    "batch": "frames for the night",
    "telemetry": "telemetry",
}
SHOWN_REFUSALS = 10
CELL = 40


def listing(found: Page, now: Stamp, boot: str) -> str:
    """Say how much there is lane by lane, then the records."""
    rows = [("lane", "waiting", "size", "set aside", "what")]
    rows += [
        (s.lane.name.lower(), f"{s.waiting:,}", size(s.waiting_bytes), f"{s.dead:,}", WHAT[s.lane.name.lower()])
        for s in found.lanes
        if s.waiting or s.dead
    ]
    lines = [table(rows)] if len(rows) > 1 else ["the outbox is empty: the cloud has everything"]
    if found.errors:
        lines += ["", "set aside for:"]
        lines += [f"  {n:>6,}  {error or 'no reason noted'}" for error, n in found.errors]
    if found.records:
        lines += ["", _records(found.records, now, boot)]
        if found.matching > len(found.records):
            more = f"{found.matching - len(found.records):,} more"
            lines.append(f"{more}; the next page: --after {found.records[-1].seq}")
    elif len(rows) > 1:
        lines += ["", "no record matches"]
    return "\n".join(lines)


def _records(records: tuple[Record, ...], now: Stamp, boot: str) -> str:
    rows = [("seq", "state", "lane", "kind", "of", "age", "size", "refused", "why")]
    rows += [
        (str(r.seq), r.state, r.lane.name.lower(), r.kind, r.camera or "-", _age(r, now, boot),
         size(r.size_bytes + r.picture_bytes), f"{r.refusals}x" if r.refusals else "-", _cut(r.error) or "-")
        for r in records
    ]  # fmt: skip
    return table(rows)


def _age(record: Record, now: Stamp, boot: str) -> str:
    age_s = record.age_s(now, boot)
    return "not known" if age_s is None else duration(age_s)


def _cut(text: str) -> str:
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def one(record: Record, said: dict[str, Any], now: Stamp, boot: str) -> str:
    """Show one record whole."""
    clock = "" if record.clock == "synced" else ", by a clock that was not set: the cloud dates it by its age"
    rows = [
        ("record", f"{record.seq} of run {record.run_id}, agent {record.agent_version}"),
        ("kind", f"{record.kind}, lane {record.lane.name.lower()}"),
        ("state", _state(record)),
        ("captured", f"{moment(record.captured.wall_ns)}, {_age(record, now, boot)} ago{clock}"),
        (
            "size",
            size(record.size_bytes) + (f" and a picture of {size(record.picture_bytes)}" if record.picture else ""),
        ),
    ]
    if record.picture and record.shard is None:
        rows.append(("picture", f"spool/{record.picture}"))
    shown = json.dumps(_short(said), indent=2, ensure_ascii=False)
    return "\n".join([table(rows), "", shown, *_next(record)])


def _state(record: Record) -> str:
    why = f": {record.error}" if record.error else ""
    times = f", after {record.refusals} refusals" if record.refusals else ""
    if record.state == "dead":
        return f"SET ASIDE{times}{why}"
    if record.state == "sealed":
        return f"waits in sealed file {record.shard} of the night"
    return "waits to be sent" + (f"; refused {record.refusals} times so far{why}" if record.refusals else "")


def _next(record: Record) -> list[str]:
    if record.state != "dead":
        return []
    return ["", f"to send it again: shelfwire-agent outbox retry {record.seq}"]


def _short(value: Any) -> Any:
    """Leave out what nobody reads on a screen: pictures in base64."""
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return f"({len(value):,} characters)" if isinstance(value, str) and len(value) > 400 else value


def done(done_: Done, what: str) -> str:
    """Say what was changed and what was not."""
    n = len(done_.changed)
    lines = [f"{n:,} {'record' if n == 1 else 'records'} {what}"]
    by_reason: dict[str, list[int]] = {}
    for seq, reason in done_.refused.items():
        by_reason.setdefault(reason, []).append(seq)
    for reason, seqs in by_reason.items():
        some = ", ".join(map(str, seqs[:SHOWN_REFUSALS]))
        more = f" and {len(seqs) - SHOWN_REFUSALS:,} more" if len(seqs) > SHOWN_REFUSALS else ""
        lines.append(f"left alone: {some}{more}: {reason}")
    return "\n".join(lines)


def checked(found: list[tuple[str, list[Flaw]]]) -> str:
    """One line for each check, and below it what is wrong and the cure."""
    lines = []
    for name, flaws in found:
        lines.append(f"{'✗' if flaws else '✓'} {name}")
        for flaw in flaws[:SHOWN_REFUSALS]:
            lines += [f"    {flaw.text} [{flaw.code}]", f"      cure: {flaw.cure}"]
        if len(flaws) > SHOWN_REFUSALS:
            lines.append(f"    and {len(flaws) - SHOWN_REFUSALS:,} more")
    wrong = sum(len(flaws) for _, flaws in found)
    lines.append(
        "the outbox is sound" if not wrong else f"{wrong:,} {'thing is' if wrong == 1 else 'things are'} wrong"
    )
    return "\n".join(lines)
