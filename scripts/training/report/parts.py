"""What every section of the report is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from models import evaluate
from models.evaluate import Figures
from training.bundling import Measured

PRECISIONS = {"fp32": "FP32", "int8": "INT8"}

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Checked:
    """What the finished bundle said, in each precision, about pictures that it had not learnt from.

    `names` are the pictures' names for people, `picture` gives one of them, BGR; `coarse` each label's coarse class.
    """

    what: str
    measured: Mapping[str, Measured]
    labels: tuple[str, ...]
    coarse: Mapping[str, str]
    threshold: float
    threshold_reason: str
    names: Sequence[str]
    picture: Callable[[int], Picture]

    def figures(self, precision: str) -> Figures:
        """The figures of one precision; see `models.evaluate.figures`."""
        found = self.measured[precision]
        return evaluate.figures(found.scores, found.truths, self.labels, self.threshold, self.coarse)


def section(name: str, heading: str, about: str, body: str) -> str:
    """A section named `name`; `heading`, `about` and `body` are HTML."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{heading}</h2>'
        f'<p class="about">{about}</p>{body}</section>'
    )


def title(name: str) -> str:
    """A label as one says it, safe inside HTML."""
    return escape(name.replace("_", " ").replace("-", " "))


def spell(minutes: int) -> str:
    """A length of time in words."""
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def table(head: str, rows: Sequence[str]) -> str:
    """A table of the cells `head` and of whole `rows`."""
    body = "".join(rows)
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def bar(share: float) -> str:
    """A line of which `share` is filled, for the eye."""
    return (
        '<svg class="bar-line" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="all" width="100" height="4"/><rect class="filled" width="{100 * share:.1f}" height="4"/></svg>'
    )
