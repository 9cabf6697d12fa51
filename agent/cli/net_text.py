"""The ways to the cloud for a person: one line per hop with its time, and under the broken one who mends it."""

import textwrap
from collections.abc import Sequence

from agent.cli.common import paint
from agent.core.codes import CODES
from agent.link.hops import NAMES, Hop, Way

WIDTH = 100
_TITLES = {"broker": "broker", "api": "API"}
_MARKS = {True: ("✓ ok  ", "32"), False: ("✗ FAIL", "31"), None: ("-     ", "2")}
_ENDS = {"broker": ("login", "echo"), "api": ("answer",)}


def write(ways: Sequence[Way], code: str, *, colour: bool) -> str:
    """Give the whole text; the last line is the code to read out."""
    lines: list[str] = []
    for way in ways:
        lines += [paint(f"{_TITLES[way.target]}  {way.address}", "1", colour=colour)]
        for hop in way.hops:
            lines += _hop(hop, colour=colour)
        lines += [*_rest(way), ""]
    broken = [way for way in ways if way.broken is not None]
    lines.append("both ways are whole" if len(ways) == 2 and not broken else _verdict(ways))
    return "\n".join([*lines, paint(f"Code: {code}", "1", colour=colour)])


def _hop(hop: Hop, *, colour: bool) -> list[str]:
    word, style = _MARKS[hop.ok]
    took = f"{hop.ms:8,.1f} ms" if hop.ms is not None else " " * 11
    text = hop.detail + (f" [{hop.code}]" if hop.code else "")
    first, *rest = _wrap(text, WIDTH - 34)
    lines = [
        f"  {paint(word, style, colour=colour)}  {hop.name:<9} {took}  {first}",
        *(" " * 34 + line for line in rest),
    ]
    if hop.ok is False:
        lines += [" " * 10 + line for line in _wrap(f"means:     {CODES[hop.code].means}", WIDTH - 10)]
        lines += [" " * 10 + line for line in _wrap(f"do:        {hop.cure}", WIDTH - 10)]
        lines += [" " * 10 + f"who mends: {hop.who}"]
    return lines


def _rest(way: Way) -> list[str]:
    """Name the hops behind the broken one: nothing is known of them."""
    if way.broken is None:
        return []
    lower = [name for name in NAMES if name not in ("login", "echo", "answer") and (way.secure or name != "tls")]
    mine = [*lower, *_ENDS[way.target]]
    after = mine[mine.index(way.broken.name) + 1 :]
    return [f"  -       not reached: {', '.join(after)}"] if after else []


def _verdict(ways: Sequence[Way]) -> str:
    parts = []
    for way in ways:
        state = "whole" if way.broken is None else f"broken at {way.broken.name}: {way.broken.who}"
        parts.append(f"{_TITLES[way.target]} {state}")
    return "; ".join(parts)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
