"""What `counts.report` found, told to a person at the end of a demo."""

from collections.abc import Iterator, Mapping
from typing import Any

PLACED = {
    "local": "{:,} classified on the device",
    "serverless": "{:,} by the function",
    "deferred": "{:,} left for the night",
    "dropped": "{:,} dropped",
}
HEADING = 9
"""Columns before the text of a line."""


def missing(book: Mapping[str, Any]) -> int:
    """Results that the device has committed and the cloud has not; `book` is of one device."""
    return int(book["results_committed"] - book["results_in_cloud"])


def lost(counted: Mapping[str, Any]) -> int:
    """Results that are not in the cloud, of all devices, and frames without an answer."""
    books = [counted, *counted.get("others", {}).values()]
    return sum(map(missing, books)) + int(counted["unanswered"])


def told(counted: Mapping[str, Any]) -> str:
    """A few lines, each with a word for what it counts; the last one says whether anything is missing."""
    lines = [f"{heading:<{HEADING}} {text}".rstrip() for heading, text in _lines(counted)]
    return "\n".join([*lines, "", _verdict(counted)])


def _lines(counted: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    placed = [form.format(counted["placed"][place]) for place, form in PLACED.items() if counted["placed"][place]]
    yield "frames", f"{counted['frames_captured']:,} captured" + (": " + ", ".join(placed) if placed else "")
    if counted["dropped"]:
        yield "", "dropped because of: " + _each(counted["dropped"])
    here, cloud = counted["answers"], counted["answers_in_cloud"]
    yield "answers", _each(here) + ("; the same in the cloud" if here == cloud else f"; in the cloud: {_each(cloud)}")
    for kind in ("results", "alerts"):
        yield kind, f"{counted[f'{kind}_committed']:,} kept on the device, {counted[f'{kind}_in_cloud']:,} in the cloud"
    if counted["duplicates_suppressed"]:
        yield "", f"{counted['duplicates_suppressed']:,} came twice and were counted once"
    for device, book in counted.get("others", {}).items():
        yield "", f"{device}: {book['results_committed']:,} kept there, {book['results_in_cloud']:,} in the cloud"
    yield "times", _took("from a frame to its answer", counted["capture_to_answer_ms"])
    yield "", _took("from a frame to the cloud", counted["capture_to_cloud_ms"])
    yield "device", ", ".join(_device(counted))
    if counted["batch"]:
        yield "night", _night(counted["batch"])


def _each(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"


def _took(what: str, took_ms: Mapping[str, float | None]) -> str:
    known = [f"{name} {value:,.0f} ms" for name, value in took_ms.items() if value is not None]
    return f"{what}: {', '.join(known) or 'not known'}"


def _device(counted: Mapping[str, Any]) -> Iterator[str]:
    model = counted["model"]
    if model is not None:
        yield f"{model['name']} {model['version']}" + (f" with {counted['runtime']}" if counted["runtime"] else "")
    if counted["first_answer_s"] is not None:
        yield f"first answer after {counted['first_answer_s']:.1f} s"
    yield f"{counted['device_rss_mb']:,.0f} MB of memory at most"


def _night(batch: Mapping[str, Any]) -> str:
    text = f"{batch['day']}: {batch['answered']:,} of {batch['rows']:,} pictures answered in {batch['took_s']:.1f} s"
    return text + (f", {batch['agreed']:,} of {batch['compared']:,} as by day" if batch["compared"] else "")


def _verdict(counted: Mapping[str, Any]) -> str:
    if not lost(counted):
        return "Nothing was lost: every frame was answered or its drop counted, and the cloud has every result."
    results = sum(map(missing, [counted, *counted.get("others", {}).values()]))
    return f"Not there yet: {results:,} results are not in the cloud, {counted['unanswered']:,} frames have no answer."
