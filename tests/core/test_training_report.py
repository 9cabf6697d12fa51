"""The report of a training: whole, safe and self-contained for any numbers, labels and file names."""

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from training import report
from training.bundling import Measured
from training.report import Checked, Training, plots

from models import evaluate

HOSTILE = "<script>alert('x')</script>\"&"
LABELS = ("Granny_Smith", "Pink-Lady", "Lemon", HOSTILE)
COARSE = {"Granny_Smith": "Apple", "Pink-Lady": "Apple", "Lemon": "Lemon", HOSTILE: "<b>&"}
NORMS = ("as learnt", "whole pictures")
VOID = {"meta", "link", "img", "br", "wbr"}


class Page(HTMLParser):
    """Reads a page and remembers what it holds; an element that is not closed in its turn is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _scores(seed: int, count: int = 40) -> Measured:
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, 3, count)  # the hostile label has no picture of its own
    scores = rng.dirichlet([0.6] * len(LABELS), count)
    scores[np.arange(count), truths] += 0.6
    return Measured(scores / scores.sum(axis=1, keepdims=True), truths)


def _training(**other: object) -> Training:
    history = [
        {"epoch": n + 1.0, "seconds": 60.0 * n, "loss": 3.0 - n / 5, "labels": 2.0, "teacher": 1.0, "side": 96.0}
        | ({"val": n / 10} if n % 5 == 0 else {})
        for n in range(11)
    ]
    tried = [SimpleNamespace(side_px=side, norms=how, accuracy=0.8, loss=0.7) for side in (96, 128) for how in NORMS]
    given = {"name": HOSTILE, "facts": {"Seed": "7", HOSTILE: HOSTILE}, "method": HOSTILE, "history": history}
    return Training(**given | {"tried": tried, "chosen": tried[2]} | other)


def _checked(**other: object) -> Checked:
    given: dict[str, object] = {
        "what": "40 photos of val",
        "measured": {"fp32": _scores(1), "int8": _scores(2)},
        "labels": LABELS,
        "coarse": COARSE,
        "threshold": 0.35,
        "threshold_reason": "it seemed <fair>",
        "names": [f"a/{HOSTILE}/\udcff{number}.jpg" for number in range(40)],
        "picture": lambda number: np.full((30, 50, 3), 5 * number, np.uint8),
    }
    return Checked(**given | other)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    written = report.write(tmp_path_factory.mktemp("report") / "report.html", _training(), _checked())
    return written.read_text(encoding="utf-8")


def test_it_is_whole_html_that_asks_nothing_of_a_network(html: str) -> None:
    page = Page(html)
    assert all(address.startswith("data:") for address in page.addresses)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert "http" not in html
    assert "@import" not in html
    assert "url(" not in html


def test_labels_file_names_and_facts_are_text_and_never_markup(html: str) -> None:
    assert "<script>alert" not in html
    assert "<fair>" not in html
    assert "<b>" not in html
    assert "b" not in Page(html).tags
    assert html.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;") > 3


def test_it_holds_every_figure_of_both_precisions(html: str) -> None:
    text = Page(html).text
    for found in _checked().measured.values():
        told = evaluate.figures(found.scores, found.truths, LABELS, 0.35, COARSE)
        shares = (told.accuracy, told.top5, told.mean_label_accuracy, told.coarse_accuracy, told.accepted)
        for share in (*shares, told.accepted_accuracy, told.accuracy_high):
            assert f"{share:.1%}" in text
        assert f"{told.calibration_error:.3f}" in text
        assert f"{told.brier:.3f}" in text
    for word in ("Seed 7", "Threshold 0.35", "FP32", "INT8", "whole pictures", "128 px", "best 100.0% after epoch 11"):
        assert word in text


def test_only_the_side_that_val_chose_is_marked(html: str) -> None:
    chosen = re.findall(r'<tr class="chosen">.*?</tr>', html)
    assert len(chosen) == html.count('class="pill"') == 1
    assert "128 px" in chosen[0]
    assert "as learnt" in chosen[0]


def test_labels_stand_worst_first_with_their_counts(html: str) -> None:
    found = evaluate.figures(_scores(1).scores, _scores(1).truths, LABELS, 0.35, COARSE)
    section = html[html.index('<section id="labels"') : html.index("Coarse classes, the worst first")]
    shown = [(int(right), int(of)) for right, of in re.findall(r'class="n">(\d+) of (\d+)<', section)]
    wanted = [(round(item.accuracy * item.pictures), item.pictures) for item in found.by_label if item.accuracy]
    assert sorted(shown) == sorted(pair for pair in wanted if pair[0] < pair[1])
    shares = [right / of for right, of in shown]
    assert shares == sorted(shares)
    assert "Not among these pictures (1)" in section


def test_the_surest_mistakes_come_first_and_every_picture_is_in_the_page(html: str) -> None:
    found = _scores(1)
    wrong = found.scores.argmax(axis=1) != found.truths
    section = html[html.index('<section id="pictures"') :]
    shown = [int(share) for share in re.findall(r'shot miss">.*?<span>(\d+)%</span>', section)]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == min(12, int(wrong.sum()))
    assert shown[0] == round(100 * found.scores[wrong].max())
    assert section.count("data:image/jpeg;base64,") == len(shown) + 12


def test_without_mistakes_history_or_choices_it_is_whole_too(tmp_path: Path) -> None:
    perfect = Measured(np.eye(4), np.arange(4))
    checked = _checked(measured={"fp32": perfect}, names=list("abcd"))
    page = Page(report.write(tmp_path / "r.html", _training(history=[], tried=(), chosen=None), checked).read_text())
    assert "No mistakes." in page.text
    assert "100.0% of 40 photos of val recognised" in page.text


def test_ticks_are_round_and_inside() -> None:
    assert plots.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert plots.ticks(0, 5.3) == [0, 2, 4]
    assert plots.ticks(0.62, 0.88, 4) == [0.7, 0.8]


def test_labels_of_one_coarse_class_stand_together_in_the_matrix() -> None:
    assert plots.ordered(["fruit", "milk", "fruit", "bread", "milk"]) == [0, 2, 1, 4, 3]
