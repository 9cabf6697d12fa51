"""The report of a training: one HTML page that needs nothing else, for a person to judge what came out.

It shows pictures of the data set, so it lies in the training's own folder, and never in the bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from models.evaluate import Figures
from training.report import answers, figures
from training.report.figures import History, interval
from training.report.parts import PRECISIONS, Checked, bar
from training.report.plots import percent

if TYPE_CHECKING:
    from training.choosing import Tried

__all__ = ["PRECISIONS", "Checked", "Training", "write"]


@dataclass(frozen=True, slots=True)
class Training:
    """What was trained and how: the bundle's name, facts for the head, the figures of every epoch, what val chose."""

    name: str
    facts: Mapping[str, str]
    method: str
    history: History
    tried: "Sequence[Tried]"
    chosen: "Tried | None"


def write(path: Path, training: Training, checked: Checked) -> Path:
    """Write the report of `training` to `path`, whole or not at all."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    all_figures = {precision: checked.figures(precision) for precision in checked.measured}
    first = next(iter(all_figures.values()))
    sections = [
        _head(training, checked, all_figures),
        figures.side_by_side(checked, all_figures),
        figures.choices(training.tried, training.chosen, checked),
        figures.learning(training.history),
        figures.calibration(all_figures),
        answers.labels(checked, first),
        answers.confusion(checked, first),
        answers.pictures(checked),
    ]
    half = path.with_suffix(".half")
    half.write_text(
        _page(training, style, "\n".join(part for part in sections if part)), encoding="utf-8", errors="replace"
    )
    return half.replace(path)


def _page(training: Training, style: str, sections: str) -> str:
    name = escape(training.name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Training of {name} · Shelfwire</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header class="top"><p class="brand">Shelfwire <span>Training</span></p><h1>{name}</h1></header>
<main>
{sections}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


SCRIPT = """
const said = document.querySelector("#said");
const tell = (event) => {
  const cell = event.target.closest(".cell");
  if (cell) said.textContent = cell.dataset.said;
};
for (const kind of ["pointerover", "click"]) document.querySelector(".matrix")?.addEventListener(kind, tell);
"""
"""What a cell of the confusion matrix means, for whoever points at it or taps on it."""


def _head(training: Training, checked: Checked, told: Mapping[str, Figures]) -> str:
    first = next(iter(told.values()))
    rest = [f"{PRECISIONS[name]} {percent(item.accuracy, 1)}" for name, item in list(told.items())[1:]]
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in training.facts.items()
    )
    return f"""<section class="card head" aria-label="In short">
<div class="right"><p class="share">{percent(first.accuracy, 1)}</p>{bar(first.accuracy)}
<p>of {escape(checked.what)} recognised</p>
<p class="soft">95 % interval {interval(first)}{"".join(f" · {text}" for text in rest)}</p></div>
<dl class="facts">{facts}</dl>
<p class="method">{escape(training.method)}</p>
</section>"""
