"""The report in words: figures as people read them, and the whole for a terminal. Pure."""

from collections.abc import Iterator
from typing import Final

from cloud.batch.report import OfCamera, OfClass, Report
from cloud.batch.tally import Frame

MOST_LINES: Final = 20
"""Rows of each table on a terminal; `--json` has all."""


def percent(part: int, whole: int) -> str:
    """A share in percent with one decimal, "100%" only when it is all."""
    if part == whole:
        return "100%"
    return f"{min(part / whole, 0.999):.1%}"


def points(now: float, then: float) -> str:
    """How a share has changed, in percentage points: "+1.2"."""
    changed = round((now - then) * 100, 1)
    return f"{changed:+.1f}" if changed else "0.0"


def lines(report: Report) -> Iterator[str]:
    """The report for a terminal."""
    if report.model is None:
        yield f"{report.day}: not scored yet. {report.shards} shards with {report.frames} frames have come in."
        yield f"  score it: shelfwire-cloud batch run {report.day}"
        return
    counts = report.counts
    yield f"{report.day} by {report.model} [{(report.model_digest or '')[:8]}]"
    yield (
        f"  {report.shards_scored} of {report.shards} shards, {counts.frames} frames, {counts.answered} answered, "
        f"{counts.unreadable} unreadable"
    )
    if report.expected or report.bad:
        yield f"  {report.expected} shards announced and not here yet, {report.bad} refused"
    yield f"  {_agreement(report)}"
    if report.truth:
        known = report.truth.frames
        yield (
            f"  known content: {known} frames, right on the device {percent(report.truth.device_right, known)}, "
            f"here {percent(report.truth.batch_right, known)}"
        )
    yield from _table("by camera", [_camera(one) for one in report.cameras])
    yield from _table("by what the device said", [_class(one) for one in report.classes])
    yield from _table("by the device's model", [(o.model, o.agreed, o.compared, "") for o in report.local_models])
    if report.worth:
        yield ""
        yield "frames most worth a label"
        for frame in report.worth:
            yield f"  {frame.device}/{frame.run}/{frame.seq}  {frame.camera}: {reason(frame)}"


def reason(frame: Frame) -> str:
    """Why a frame is worth a label."""
    if frame.why == "unreadable":
        return frame.error or "it cannot be read"
    if frame.why == "disagreement":
        return f"device {_said(frame.local_label, frame.local_score)}, batch {_said(frame.label, frame.score)}"
    behind = f"{frame.second_label or 'the next'} {(frame.margin or 0.0) * 100:.1f} points behind"
    return f"{_said(frame.best_label, frame.score)}, {behind}"


def _agreement(report: Report) -> str:
    counts = report.counts
    if not counts.compared:
        return "no frame can be compared: the devices had no answer of their own"
    said = f"{percent(counts.agreed, counts.compared)} as the device said ({counts.agreed} of {counts.compared})"
    if report.before is None or report.before.counts.agreement is None or counts.agreement is None:
        return said
    return f"{said}, {points(counts.agreement, report.before.counts.agreement)} points to the day before"


def _said(label: str | None, score: float | None) -> str:
    return (label or "nothing") + (f" {score:.0%}" if score is not None else "")


_Row = tuple[str, int, int, str]
"""What a row speaks of, agreed, compared, and a note."""


def _camera(one: OfCamera) -> _Row:
    now, then = one.counts.agreement, one.before
    note = f"{points(now, then)} points" if now is not None and then is not None else ""
    return f"{one.device}/{one.camera}", one.counts.agreed, one.counts.compared, note


def _class(one: OfClass) -> _Row:
    note = f"else mostly {one.instead} ({one.instead_frames})" if one.instead else ""
    return one.label, one.agreed, one.compared, note


def _table(title: str, rows: list[_Row]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield title
    width = max(len(name) for name, *_ in rows[:MOST_LINES])
    for name, agreed, compared, note in rows[:MOST_LINES]:
        share = percent(agreed, compared) if compared else "-"
        yield f"  {name:<{width}}  {share:>6}  {f'{agreed} of {compared}':>14}  {note}".rstrip()
    if len(rows) > MOST_LINES:
        yield f"  and {len(rows) - MOST_LINES} more with --json"
