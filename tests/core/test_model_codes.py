"""Every code with which a bundle, a picture or a data set is refused stands in docs/models.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RAISED = re.compile(r"(?:BundleError|PictureError|DataError)\(\s*\"([a-z0-9-]+)\"")
CODES = sorted({code for path in (ROOT / "models").rglob("*.py") for code in RAISED.findall(path.read_text())})
TRAINING = re.compile(r"TrainError\(\s*\"([a-z0-9-]+)\"")
TRAINING_CODES = sorted(
    {code for path in (ROOT / "scripts" / "training").rglob("*.py") for code in TRAINING.findall(path.read_text())}
)
PAGE = (ROOT / "docs" / "models.md").read_text()
NAMED = (ROOT / "models" / "errors.py").read_text()


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_explained_with_its_cure_and_named_by_its_class(code: str) -> None:
    row = next((line for line in PAGE.splitlines() if line.startswith("| `") and f"`{code}`" in line), "")
    assert row.count("|") >= 4
    assert code in NAMED or f"-{code.partition('-')[2]}" in NAMED


@pytest.mark.parametrize("code", TRAINING_CODES)
def test_a_code_of_the_training_is_explained_with_its_cure(code: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and f"`{code}`" in line.split("|")[1]]
    assert any(row.count("|") >= 4 for row in rows)


def test_there_are_codes_to_look_for() -> None:
    assert len(CODES) > 20
    assert len(TRAINING_CODES) > 8
