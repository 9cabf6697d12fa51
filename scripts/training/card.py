"""The card of a bundle: for a person who decides whether to use it."""

from collections.abc import Mapping

from models.evaluate import interval

PRECISIONS = {"fp32": "FP32", "int8": "INT8"}

ON_VAL = {
    "top1": "right",
    "top5": "right among the best five",
    "coarse_top1": "coarse class right",
    "accepted": "accepted",
    "accepted_top1": "right, of the accepted",
    "calibration_error": "calibration error (ECE)",
}
ON_SCENES = {"top1": "right", "accepted": "accepted"}
"""What is measured, by the end of its name in the bundle's metrics."""


def title(labels: int, grocery: bool) -> str:
    """The card's heading."""
    return f"{labels} products of a grocery shelf" if grocery else f"A classifier of {labels} labels"


def figures(metrics: Mapping[str, float], sizes_bytes: Mapping[str, int]) -> str:
    """A table in Markdown, precisions side by side. `sizes_bytes` is of each precision's file."""
    there = [name for name in PRECISIONS if name in sizes_bytes]
    lines = [_row("", *(PRECISIONS[name] for name in there)), _row("---", *("---:" for _ in there))]
    for ring, told, count in (("val", ON_VAL, "val_photos"), ("synthetic", ON_SCENES, "synthetic_frames")):
        if count not in metrics:
            continue
        of = int(metrics[count])
        what = f"{of} photos of val" if ring == "val" else f"{of} rendered scenes"
        for name, words in told.items():
            shown = [_shown(name, metrics.get(f"{ring}_{precision}_{name}"), of, ring) for precision in there]
            if any(shown):
                lines.append(_row(f"{what}: {words}", *shown))
    lines.append(_row("size", *(f"{sizes_bytes[name] / 1e6:.1f} MB" for name in there)))
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(name: str, value: float | None, of: int, ring: str) -> str:
    if value is None:
        return ""
    if name == "calibration_error":
        return f"{value:.3f}"
    if name == "top1" and ring == "val":
        low, high = interval(round(value * of), of)
        return f"{value:.1%} ({low:.1%} to {high:.1%})"
    return f"{value:.1%}"
