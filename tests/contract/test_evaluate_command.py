"""`shelfwire-agent evaluate` on a toy that names the colour of a picture, with pictures that are really there."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import toy_bundles
from toy_bundles import plain

from agent.cli import main

import cv2  # isort: skip

COLOURS = {"blueish": (200, 60, 40), "greenish": (40, 200, 60), "reddish": (60, 40, 200)}


def photo(path: Path, label: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), plain(*COLOURS[label]))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    coarse = {"blueish": "cold", "greenish": "cold", "reddish": "warm"}
    return toy_bundles.bundle(tmp_path / "toy", coarse=coarse, threshold=0.9).folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two of each colour; one blueish lies in the folder of greenish ones, one file is cut off."""
    folder = tmp_path / "photos"
    for label in COLOURS:
        for number in range(2):
            photo(folder / label / f"{number}.png", label)
    photo(folder / "greenish" / "wrong.png", "blueish")
    (folder / "reddish" / "cut.png").write_bytes((folder / "reddish" / "0.png").read_bytes()[:-20])
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_folder_is_evaluated(toy: Path, photos: Path, runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = evaluated(capsys, toy, photos, "--runtime", runtime)
    assert told["pictures"] == 7
    assert told["accuracy"] == pytest.approx(6 / 7, abs=1e-6)
    assert told["coarse_accuracy"] == 1.0
    assert told["accepted"] == 1.0
    assert told["confusion"] == [[2, 0, 0], [1, 2, 0], [0, 0, 2]]
    assert told["most_confused"] == [{"truth": "greenish", "answer": "blueish", "pictures": 1}]
    assert [(Path(item["path"]).name, item["code"]) for item in told["broken"]] == [("cut.png", "picture-truncated")]
    assert (told["setup"]["runtime"], told["setup"]["precision"]) == (runtime, "fp32")
    assert told["bundle"]["name"] == "toy"
    assert len(told["bundle"]["digest"]) == 64
    assert 0 <= told["calibration_error"] <= 1
    assert told["timing"]["inference_ms"]["p95"] >= told["timing"]["inference_ms"]["p50"] > 0
    assert told["timing"]["pictures_per_s"] > 0


def test_the_same_photos_as_a_list_give_the_same_figures(
    toy: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"photos/{path.parent.name}/{path.name}, {path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    both = [evaluated(capsys, toy, source) for source in (photos, tmp_path / "list.txt")]
    for told in both:
        for name in ("timing", "data", "broken"):
            del told[name]
    assert both[0] == both[1]


def test_a_person_reads_the_figures_and_what_to_look_at(
    toy: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(toy), str(photos)]) == 0
    shown = capsys.readouterr().out
    for said in ("toy 1, release 1", "7 pictures of 3 labels", "85.7 %", "1 x  greenish taken for blueish", "cut.png"):
        assert said in shown


def test_every_answer_is_written_with_the_surest_mistake_first(
    toy: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = evaluated(capsys, toy, photos, "--out", tmp_path / "answers.csv", "--limit", 7)
    rows = list(csv.DictReader((tmp_path / "answers.csv").open()))
    assert len(rows) == told["pictures"]
    assert (Path(rows[0]["path"]).name, rows[0]["label"], rows[0]["answer"], rows[0]["right"]) == (
        "wrong.png",
        "greenish",
        "blueish",
        "0",
    )


def test_pictures_that_are_no_labels_are_left_out_visibly(
    toy: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(photos / "yellowish" / "1.png", "reddish")
    assert main(["evaluate", str(toy), str(photos)]) == 2
    assert "data-label" in capsys.readouterr().err
    assert evaluated(capsys, toy, photos, "--ignore-unknown")["skipped"] == {"yellowish": 1}
    assert main(["evaluate", str(toy), str(photos), "--ignore-unknown"]) == 0
    assert "1 x  yellowish" in capsys.readouterr().out


def test_what_cannot_be_evaluated_ends_with_a_code(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad" / "reddish").mkdir(parents=True)
    (tmp_path / "bad" / "reddish" / "1.jpg").write_bytes(b"")
    for words, code, exit_code in (
        ([toy, tmp_path / "bad"], "data-unreadable", 2),
        ([toy, tmp_path / "none"], "data-missing", 2),
        ([tmp_path / "none", tmp_path / "bad"], "bundle-missing", 4),
        ([toy, tmp_path / "bad", "--out", tmp_path / "answers.xls"], "evaluate-out", 2),
    ):
        assert main(["evaluate", *map(str, words), "--json"]) == exit_code
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code
