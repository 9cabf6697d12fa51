"""The report's figures: precisions side by side, the curves of the learning, what val chose, calibration."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from models.evaluate import Figures
from training.report import plots
from training.report.parts import PRECISIONS, Checked, section, spell, table
from training.report.plots import Line, percent

if TYPE_CHECKING:
    from training.choosing import Tried

LOSSES = {"loss": "all together", "labels": "labels", "teacher": "teacher's answers", "hints": "teacher's layers"}

History = Sequence[Mapping[str, float]]

ROWS: Mapping[str, tuple[str, Callable[[Figures], float | None], bool]] = {
    "accuracy": ("Accuracy", lambda item: item.accuracy, True),
    "top5": ("Among the best five", lambda item: item.top5, True),
    "mean": ("Mean over labels, each counted once", lambda item: item.mean_label_accuracy, True),
    "coarse": ("Coarse class right", lambda item: item.coarse_accuracy, True),
    "accepted": ("Accepted", lambda item: item.accepted, True),
    "accepted_right": ("Right of the accepted", lambda item: item.accepted_accuracy, True),
    "ece": ("Calibration error (ECE)", lambda item: item.calibration_error, False),
    "brier": ("Brier score", lambda item: item.brier, False),
}
"""Rows of the table of figures: name, value, whether it is a share that is best at 100 %."""


def side_by_side(checked: Checked, figures: Mapping[str, Figures]) -> str:
    """The table of figures, a column for each precision."""
    heads = "".join(f'<th scope="col" class="n">{PRECISIONS[name]}</th>' for name in figures)
    both = list(figures.values())
    change = '<th scope="col" class="n">Change</th>' if len(both) > 1 else ""
    rows = [
        _row(name, told, is_share, [value(item) for item in both]) for name, (told, value, is_share) in ROWS.items()
    ]
    rows.insert(1, _intervals(both))
    about = f"Of {escape(checked.what)}, through the product's own decoder, resize and runtime. " + _agreement(checked)
    body = table(f"<td></td>{heads}{change}", rows)
    return section("figures", "Figures", about, body)


def _row(name: str, told: str, is_share: bool, values: Sequence[float | None]) -> str:
    texts = ["none" if value is None else percent(value, 1) if is_share else f"{value:.3f}" for value in values]
    cells = "".join(f'<td class="n">{text}</td>' for text in texts)
    if len(values) > 1:
        first, last = values[0], values[-1]
        moved = "" if first is None or last is None else _moved(last - first, is_share)
        cells += f'<td class="n soft">{moved}</td>'
    return f'<tr data-figure="{name}"><th scope="row">{told}</th>{cells}</tr>'


def _intervals(both: Sequence[Figures]) -> str:
    cells = "".join(f'<td class="n">{interval(item)}</td>' for item in both) + "<td></td>" * (len(both) > 1)
    return f'<tr class="of-it"><th scope="row">95 % interval</th>{cells}</tr>'


def _moved(by: float, is_share: bool) -> str:
    text = f"{100 * by:+.1f}" if is_share else f"{by:+.3f}"
    return text.replace("-", "−")


def _agreement(checked: Checked) -> str:
    answers = [found.scores.argmax(axis=1) for found in checked.measured.values()]
    if len(answers) < 2:
        return ""
    others = int((answers[0] != answers[-1]).sum())
    return (
        f"The two precisions give another answer for {others} of {len(answers[0])} pictures. "
        "Changes of shares are in points."
    )


def interval(figures: Figures) -> str:
    """The bounds of the accuracy in words."""
    return f"{100 * figures.accuracy_low:.1f}–{percent(figures.accuracy_high, 1)}"


# The curves, and what was chosen


def learning(history: History) -> str:
    """The curves over epochs: losses, accuracy on val, side of the pictures; empty without an epoch."""
    if not history:
        return ""
    losses = [Line(LOSSES[name], _points(history, name), mark) for mark, name in enumerate(LOSSES)]
    losses = [line for line in losses if line.points]
    val = Line("right on val", _points(history, "val"))
    most = max((y for line in losses for _, y in line.points), default=1.0)
    drawn = [_plot("Loss", "lower is better", losses, (0, most), lambda y: f"{y:.3g}")]
    if val.points:
        low = min(y for _, y in val.points)
        reach = (max(0.0, np.floor(low * 10) / 10), 1.0)
        best = max(val.points, key=lambda point: point[1])
        about = f"best {percent(best[1], 1)} after epoch {best[0]:.0f}"
        drawn.append(_plot("Accuracy on val", about, [val], reach, percent))
    sides = _points(history, "side")
    if sides:
        top = max(y for _, y in sides)
        line = Line("side", sides, stairs=True)
        drawn.append(_plot("Side of the pictures", "pixels", [line], (0, top * 1.1), lambda y: f"{y:.0f}"))
    epochs, minutes = history[-1].get("epoch", len(history)), round(history[-1].get("seconds", 0.0) / 60)
    about = f"{epochs:.0f} epochs in {spell(minutes)}. The averaged weights are measured and kept."
    return section("learning", "Learning", about, f'<div class="plots">{"".join(drawn)}</div>')


def _points(history: History, name: str) -> list[tuple[float, float]]:
    return [(figures.get("epoch", at + 1.0), figures[name]) for at, figures in enumerate(history) if name in figures]


def _plot(name: str, about: str, lines: Sequence[Line], reach: tuple[float, float], text: plots.Text) -> str:
    keys = "".join(f'<li class="mark{line.mark}">{escape(line.name)}</li>' for line in lines) if len(lines) > 1 else ""
    key = f'<ul class="key">{keys}</ul>' if keys else ""
    drawing = plots.curves(name, lines, float(reach[0]), float(reach[1]), text)
    return f'<figure class="card"><figcaption>{name} <span>{about}</span></figcaption>{drawing}{key}</figure>'


def choices(tried: "Sequence[Tried]", chosen: "Tried | None", checked: Checked) -> str:
    """What val chose: the side of the input, and the threshold with its reason."""
    rows = [_choice(side, side == chosen) for side in tried]
    about = f"Threshold {checked.threshold:g}: {escape(checked.threshold_reason)}."
    if not rows:
        return section("choices", "Choices", about, "")
    head = (
        '<th scope="col">Input</th><th scope="col">Normalisation</th>'
        '<th scope="col" class="n">Accuracy</th><th scope="col" class="n">Log loss</th>'
    )
    body = table(head, rows)
    about += (
        " The least log loss was taken. Normalisation: its means and spreads are those of the batches that were learnt "
        "from, of views that were not mixed, or of whole pictures as the device shows them."
    )
    return section("choices", "Choices on val", about, body)


def _choice(side: "Tried", chosen: bool) -> str:
    mark, kind = (' <span class="pill">chosen</span>', "chosen") if chosen else ("", "")
    return (
        f'<tr class="{kind}"><th scope="row">{side.side_px} px{mark}</th><td>{side.norms}</td>'
        f'<td class="n">{percent(side.accuracy, 1)}</td><td class="n">{side.loss:.4f}</td></tr>'
    )


def calibration(figures: Mapping[str, Figures]) -> str:
    """A reliability diagram for each precision."""
    drawn = [
        f'<figure class="card"><figcaption>{PRECISIONS[name]} <span>error {item.calibration_error:.3f}</span>'
        f"</figcaption>{plots.reliability(f'Reliability of {PRECISIONS[name]}', item.bins)}</figure>"
        for name, item in figures.items()
    ]
    about = (
        "Pictures by the score of their answer, in 15 bins. A bar is the share that was right, the paler part its "
        "distance to the mean score; on the dashed line scores mean what they say. Below: how many pictures."
    )
    return section("calibration", "Do scores mean what they say?", about, f'<div class="plots">{"".join(drawn)}</div>')
