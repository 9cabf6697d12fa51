"""What was measured, for a person: one line for each setup, the choice and its reason in a sentence."""

from collections.abc import Sequence
from pathlib import Path

from agent.cli.common import table
from agent.core.setups import NAMES, Agreement, Figures, ratio
from agent.store.choice import Choice
from models.bundle import ModelRef
from models.setup import Setup

MUCH = 0.1
"""Others that take this part of the processor are worth a line."""


def others_words(part: float) -> str:
    """Say what others took of the processor meanwhile."""
    return f"other programs took {100 * part:.0f} % of the processor meanwhile: stop them, and measure again"


def write(ref: ModelRef, chosen: Choice, kept: Path | None, why_not: str) -> str:
    """Write the whole."""
    key, figures = chosen.key, chosen.figures
    cpu = key.cpu.partition(" #")[0]
    head = f"{ref.name} {ref.version} on {cpu}, {_count(key.cores, 'core')}, {_count(key.workers, 'worker')}"
    lines = [head, key.runtimes, "", table(_rows(figures, chosen.setup)), "", f"chosen: {chosen.reason}"]
    if chosen.others >= MUCH:
        lines.append(others_words(chosen.others))
    if kept is None:
        return "\n".join([*lines, f"not kept: {why_not}"])
    return "\n".join([*lines, f"kept in {kept}; vision takes it up within seconds"])


def _rows(figures: Sequence[Figures], chosen: Setup) -> list[tuple[str, ...]]:
    labelled = any(each.pictures for each in figures)
    head = (
        "runtime",
        "precision",
        "streams",
        "colours",
        "frames/s",
        "times",
        "CPU each",
        "one alone",
        "golden",
        "differs by",
    )
    rows = [(*head, *(("right",) if labelled else ()), "")]
    for each in sorted(figures, key=lambda each: (bool(each.trouble), -ratio(each, figures[0]))):
        setup = each.setup
        where = "" if setup.device == "cpu" else f", {setup.device.upper()}"
        rows.append(
            (
                f"{NAMES.get(setup.runtime, setup.runtime)}{where}",
                NAMES.get(setup.precision, setup.precision),
                str(setup.streams),
                setup.preprocess,
                *_speed(each, figures[0]),
                *_answers(each.golden),
                *((_right(each.pictures),) if labelled else ()),
                "<- chosen" if setup == chosen else f"excluded: {each.trouble}" if each.trouble else "",
            )
        )
    return rows


def _speed(each: Figures, first: Figures) -> tuple[str, str, str, str]:
    if not each.rounds_fps:
        return "-", "-", "-", "-"
    times = ratio(each, first)
    times_text = f"{times:.2f}" if times else "-"
    return f"{each.fps:.1f}", times_text, f"{each.cpu_ms:.1f} ms", f"{each.latency_ms:.1f} ms"


def _answers(golden: Agreement | None) -> tuple[str, str]:
    return ("-", "-") if golden is None else (f"{golden.same} of {golden.many}", f"{golden.difference:.4f}")


def _right(pictures: Agreement | None) -> str:
    if pictures is None or pictures.right is None:
        return "-"
    return f"{pictures.right} of {pictures.many}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
