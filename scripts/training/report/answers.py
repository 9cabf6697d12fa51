"""The report's answers: label by label, what was taken for what, and the pictures worth a look."""

import base64
from collections.abc import Sequence
from html import escape

import models  # noqa: F401  # sets the limits of the picture decoder before cv2 is imported

import cv2  # isort: skip
import numpy as np

from models import evaluate
from models.evaluate import Figures
from training.report import plots
from training.report.parts import Checked, Picture, bar, section, table, title
from training.report.plots import percent

SHOWN = 12
"""How many mistakes and how many unsure hits are shown."""

PICTURE_PX = 176
PICTURE_QUALITY = 72
PAIRS = 20


def labels(checked: Checked, figures: Figures) -> str:
    """Accuracy of every label and coarse class, the worst first."""
    shown = [item for item in figures.by_label if item.pictures]
    worst = sorted(shown, key=lambda item: (item.accuracy or 0.0, -item.pictures, item.label))
    faulty = [item for item in worst if item.accuracy != 1]
    whole = [item.label for item in worst if item.accuracy == 1]
    unseen = [item.label for item in figures.by_label if not item.pictures]
    number = {label: at for at, label in enumerate(checked.labels)}
    rows = [_label_row(checked, figures, number[item.label]) for item in faulty]
    notes = _names("Always recognised", whole) + _names("Not among these pictures", unseen)
    worst_labels = f"<div><h3>Labels, the worst first</h3>{_share_table('Label', rows)}{notes}</div>"
    coarse = _coarse(checked, figures)
    about = f"{len(whole)} of {len(shown)} labels were recognised in all of their pictures (FP32)."
    return section("labels", "Label by label", about, f'<div class="tables">{worst_labels}{coarse}</div>')


def _label_row(checked: Checked, figures: Figures, number: int) -> str:
    item, row = figures.by_label[number], figures.confusion[number].copy()
    right = int(row[number])
    row[number] = 0
    other = int(row.argmax())
    taken = f"{row[other]} taken for {title(checked.labels[other])}" if row[other] else ""
    group = checked.coarse.get(item.label, item.label)
    about = taken if group == item.label else f"{title(group)} · {taken}" if taken else title(group)
    return _share_row(title(item.label), about, right, item.pictures)


def _share_row(name: str, about: str, right: int, of: int) -> str:
    return (
        f'<tr><th scope="row">{name}<span class="sub">{about}</span></th><td class="n">{right} of {of}</td>'
        f'<td class="n part">{percent(right / of)}{bar(right / of)}</td></tr>'
    )


def _share_table(what: str, rows: Sequence[str]) -> str:
    if not rows:
        return '<p class="card empty">No mistakes.</p>'
    head = f'<th scope="col">{what}</th><th scope="col" class="n">Right</th><th scope="col" class="n">Share</th>'
    return table(head, rows)


def _names(what: str, labels: Sequence[str]) -> str:
    if not labels:
        return ""
    names = ", ".join(title(label) for label in sorted(labels))
    return f'<p class="names"><strong>{what} ({len(labels)}):</strong> {names}</p>'


def _coarse(checked: Checked, figures: Figures) -> str:
    """Coarse classes of several labels, the worst first: which pictures of theirs got an answer of the same class."""
    groups = [checked.coarse.get(label, label) for label in checked.labels]
    rows = []
    for group in dict.fromkeys(groups):
        members = [at for at, other in enumerate(groups) if other == group]
        of = int(figures.confusion[members].sum())
        if of and len(members) > 1:
            right = int(figures.confusion[np.ix_(members, members)].sum())
            exact = int(figures.confusion[members, members].sum())
            rows.append((right / of, -of, group, f"{len(members)} labels · {exact} exactly right", right, of))
    made = [_share_row(title(group), about, right, of) for _, _, group, about, right, of in sorted(rows)]
    if not made:
        return ""
    note = '<p class="names">A coarse class with one label is as good as that label.</p>'
    return f"<div><h3>Coarse classes, the worst first</h3>{_share_table('Coarse class', made)}{note}</div>"


def confusion(checked: Checked, figures: Figures) -> str:
    """The confusion matrix, and the worst pairs beside it."""
    groups = [checked.coarse.get(label, label) for label in checked.labels]
    names = [label.replace("_", " ").replace("-", " ") for label in checked.labels]
    drawing = plots.matrix(figures.confusion, names, groups)
    shown = {item.label: item.pictures for item in figures.by_label}
    pairs = evaluate.most_confused(figures.confusion, checked.labels, PAIRS)
    listed = "".join(
        f"<li><span><strong>{title(pair.truth)}</strong> taken for <strong>{title(pair.answer)}</strong></span>"
        f'<span class="n">{pair.pictures} of {shown[pair.truth]}</span></li>'
        for pair in pairs
    )
    key = '<span class="right-key">Right</span>, <span class="far-key">wrong</span>'
    if len(set(groups)) < len(groups):
        key += ' and <span class="near-key">wrong within the coarse class</span>, whose labels have a common block'
    about = f"Rows are what the pictures show, columns what was answered. {key}; the stronger, the more of the row."
    body = (
        f'<div class="confusion"><div class="card"><div class="scroll" tabindex="0" role="group" '
        f'aria-label="Confusion matrix">{drawing}</div><p id="said" role="status">Point at a cell to read it.</p></div>'
        f'<div><h3>Most often confused</h3><ol class="card pairs">{listed or "<li>Nothing.</li>"}</ol></div></div>'
    )
    return section("confusion", "What was taken for what", about, body)


# Pictures


def pictures(checked: Checked) -> str:
    """The surest mistakes, and the hits that were least sure."""
    found = next(iter(checked.measured.values()))
    best, right = found.scores.max(axis=1), found.scores.argmax(axis=1) == found.truths
    order = np.argsort(best, kind="stable")
    wrong = [int(at) for at in order[::-1] if not right[at]][:SHOWN]
    unsure = [int(at) for at in order if right[at]][:SHOWN]
    body = _group(checked, "Surest mistakes", wrong) + _group(checked, "Right, but least sure", unsure)
    return section("pictures", "Pictures worth a look", "A sure mistake is often a wrong label in the data set.", body)


def _group(checked: Checked, name: str, chosen: Sequence[int]) -> str:
    if not chosen:
        return f'<h3>{name}</h3><p class="card empty">None.</p>'
    shown = "".join(_shot(checked, number) for number in chosen)
    return f'<h3>{name}</h3><ul class="shots">{shown}</ul>'


def _shot(checked: Checked, number: int) -> str:
    found = next(iter(checked.measured.values()))
    scores, truth = found.scores[number], int(found.truths[number])
    answer = int(scores.argmax())
    said = title(checked.labels[answer])
    if answer != truth:
        other = f"Really {title(checked.labels[truth])} · {percent(scores[truth])}"
    else:
        second = int(np.argsort(scores, kind="stable")[-2])
        other = f"Right · next {title(checked.labels[second])} {percent(scores[second])}"
    return (
        f'<li class="card shot {"hit" if answer == truth else "miss"}"><img src="{_jpeg(checked.picture(number))}" '
        f'alt="{title(checked.labels[truth])}" width="{PICTURE_PX}" height="{PICTURE_PX}"><p class="said">{said} '
        f'<span>{percent(scores[answer])}</span></p><p class="truth">{other}</p>'
        f'<p class="file">{_path(checked.names[number])}</p></li>'
    )


def _path(name: str) -> str:
    """A path that may be broken behind each folder."""
    return escape(name).replace("/", "/<wbr>")


def _jpeg(picture: Picture) -> str:
    """The middle square of `picture`, small, as an address that holds it."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    small = cv2.resize(square, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA)
    done, content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}" if done else "data:,"
