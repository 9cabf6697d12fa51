"""How `scripts/bench modes` is shown: as a table for the terminal and as a drawing beside the figures."""

import math
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 880, 132, 96
PANEL_TOP, ROW, GAP = 34, 30, 26

STYLE = """
  svg { color-scheme: light dark; font: 13px system-ui, "Liberation Sans", sans-serif; --ink: #14201b; --soft: #4f5a55;
        --line: #d9dedb; --ground: #fff; --real-time: #0b6b4f; --serverless: #1f5fa8; --asynchronous: #7a44a3;
        --batch: #96501a }
  @media (prefers-color-scheme: dark) { svg { --ink: #e9efec; --soft: #a6b0ab; --line: #303835; --ground: #121615;
        --real-time: #63d0a5; --serverless: #86b9f4; --asynchronous: #cda4ee; --batch: #e9ab78 } }
  .ground { fill: var(--ground) } text { fill: var(--ink) } .soft { fill: var(--soft); font-size: 11.5px }
  .title { font-weight: 650 } .grid { stroke: var(--line) }
  .real-time { --mode: var(--real-time) } .serverless { --mode: var(--serverless) }
  .asynchronous { --mode: var(--asynchronous) } .batch { --mode: var(--batch) }
  .bar { fill: var(--mode) } .span { stroke: var(--mode); stroke-width: 6; stroke-linecap: round; opacity: .35 }
  .tick { stroke: var(--mode); stroke-width: 2.5; stroke-linecap: round }
"""
"""The colours of the Modes page; each is named beside what it colours."""


def _ms(value: float) -> str:
    if value < 1000:
        return f"{value:.3g} ms"
    return f"{value / 1000:.3g} s"


def _bytes(value: float) -> str:
    return f"{value:.0f} B" if value < 1000 else f"{value / 1000:.3g} kB"


def _usd(value: float | None) -> str:
    return "not metered" if value is None else f"${value:.2g}"


ROWS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("answers", lambda way: f"{way['answers']}"),
    ("latency p50", lambda way: _ms(way["latency_ms"]["p50"])),
    ("latency p95", lambda way: _ms(way["latency_ms"]["p95"])),
    ("latency p99", lambda way: _ms(way["latency_ms"]["p99"])),
    ("answers per second", lambda way: f"{way['answers_per_s']:.3g}"),
    ("CPU per answer, device", lambda way: _ms(way["cpu_ms_device"])),
    ("CPU per answer, cloud", lambda way: _ms(way["cpu_ms_cloud"]) if way["cpu_ms_cloud"] else "none"),
    ("sent per answer", lambda way: _bytes(way["bytes_per_answer"])),
    ("cost of 1,000", lambda way: _usd(way["usd_per_1000"])),
    ("age of the newest", lambda way: _ms(way["freshness_ms"])),
    ("same as real-time", lambda way: f"{way['same_as_real_time']:.1%}" if way["same_as_real_time"] else "none"),
)


def table(ways: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the four ways side by side."""
    lines = [f"    {'':<26}" + "".join(f"{mode:>14}" for mode in ways)]
    lines += [f"    {name:<26}" + "".join(f"{text(way):>14}" for way in ways.values()) for name, text in ROWS]
    return "\n".join(lines)


def drawing(figures: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Draw the four ways as an SVG document that follows the reader's light or dark scheme."""
    ways = figures["ways"]
    panels: tuple[tuple[str, Callable[[Mapping[str, Any]], float], Callable[[float], str]], ...] = (
        ("Answers per second, as fast as they go", lambda way: way["answers_per_s"], lambda n: f"{n:.3g}"),
        ("Processor time per answer, device and cloud", lambda way: way["cpu_ms_device"] + way["cpu_ms_cloud"], _ms),
        ("Sent per answer", lambda way: way["bytes_per_answer"], _bytes),
        ("Age of the newest answer, on average", lambda way: way["freshness_ms"], _ms),
    )
    parts = _latencies(ways, 56)
    top = 56 + _height(ways, axis=True)
    for title, value, text in panels:
        parts += _bars(title, {mode: value(way) for mode, way in ways.items()}, text, top)
        top += _height(ways)
    paced = f"{figures['pace_fps']:g} per second for latency and age; the batch without its wait for the night"
    note = f"{figures['frames_each_way']} frames each way, {paced}"
    where = f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f}"
    head = [
        '<text class="title" x="16" y="26" font-size="17">Four ways to an answer</text>',
        f'<text class="soft" x="16" y="44">{escape(note)}; {escape(where)}</text>',
    ]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">',
        "<title>Four ways to an answer</title>",
        f"<desc>{escape(table(ways))}</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{top}"/>',
        *head,
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _height(ways: Mapping[str, Any], *, axis: bool = False) -> int:
    return PANEL_TOP + len(ways) * ROW + (GAP if axis else 6)


def _latencies(ways: Mapping[str, Any], top: int) -> list[str]:
    """From p50 (dot) over p95 (tick) to p99 (end of the bar), on one logarithmic axis."""
    least = min(way["latency_ms"]["p50"] for way in ways.values())
    most = max(way["latency_ms"]["p99"] for way in ways.values())
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most) + 1e-9)

    def x(ms: float) -> float:
        return LEFT + (math.log10(ms) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    bottom = top + PANEL_TOP + len(ways) * ROW
    parts = [_title("Capture to answer: half (dot), 95 (tick) and 99 of 100 (end) within", top)]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<path class="grid" d="M{at:.1f} {top + PANEL_TOP}V{bottom}"/>')
        parts.append(
            f'<text class="soft" x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{_ms(10.0**power)}</text>'
        )
    for n, (mode, way) in enumerate(ways.items()):
        y = top + PANEL_TOP + n * ROW + ROW // 2
        p50, p95, p99 = (x(way["latency_ms"][name]) for name in ("p50", "p95", "p99"))
        parts.append(
            f'<g class="{mode}">{_name(mode, y)}<path class="span" d="M{p50:.1f} {y}H{p99:.1f}"/>'
            f'<path class="tick" d="M{p95:.1f} {y - 8}v16"/><circle class="bar" cx="{p50:.1f}" cy="{y}" r="6"/>'
            f'<text x="{p99 + 12:.1f}" y="{y + 4}">{_ms(way["latency_ms"]["p50"])}</text></g>'
        )
    return parts


def _bars(title: str, values: Mapping[str, float], text: Callable[[float], str], top: int) -> list[str]:
    most = max(values.values()) or 1.0
    parts = [_title(title, top)]
    for n, (mode, value) in enumerate(values.items()):
        y = top + PANEL_TOP + n * ROW + ROW // 2
        width = max(1.0, value / most * (WIDTH - LEFT - RIGHT))
        parts.append(
            f'<g class="{mode}">{_name(mode, y)}'
            f'<rect class="bar" x="{LEFT}" y="{y - 7}" width="{width:.1f}" height="14" rx="3"/>'
            f'<text x="{LEFT + width + 10:.1f}" y="{y + 4}">{text(value)}</text></g>'
        )
    return parts


def _title(text: str, top: int) -> str:
    return f'<text class="title" x="16" y="{top + 22}">{escape(text)}</text>'


def _name(mode: str, y: int) -> str:
    return f'<text x="16" y="{y + 4}">{escape(mode)}</text>'
