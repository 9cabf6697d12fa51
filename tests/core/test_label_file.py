"""Labels as they come with models: plain lines, numbered lines, JSON and tables, and the mistakes in them."""

from pathlib import Path

import pytest

from models.errors import BundleError
from models.label_file import LabelFile, read_labels


def read(folder: Path, content: str, name: str = "labels.txt") -> LabelFile:
    (folder / name).write_text(content, encoding="utf-8")
    return read_labels(folder / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "apple\npear\nplum\n"),
        ("labels.txt", "\ufeffapple\r\npear\r\nplum\r\n\r\n"),
        ("labels.txt", "0 apple\n1 pear\n2 plum\n"),
        ("labels.txt", "1: apple\n2: pear\n3: plum"),
        ("labels.json", '["apple", "pear", "plum"]'),
        ("labels.txt", ' ["apple", "pear", "plum"]'),
        ("labels.json", '{"0": ["n01", "apple"], "1": ["n02", "pear"], "2": ["n03", "plum"]}'),
        ("labels.json", '{"2": "plum", "0": "apple", "1": "pear"}'),
        ("labels.csv", "Class Name (str),Class ID (int)\napple,0\npear,1\nplum,2\n"),
        ("labels.csv", "0,apple\n1,pear\n2,plum\n"),
        ("labels.tsv", "id\tname\n0\tapple\n1\tpear\n2\tplum\n"),
    ],
)
def test_the_usual_files_are_read(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path, content, name).names == ("apple", "pear", "plum")


def test_what_was_changed_is_told(tmp_path: Path) -> None:
    names, notes = read(tmp_path, "crane\n\nkite\ncrane\n").names, read(tmp_path, "crane\n\nkite\ncrane\n").notes
    assert names == ("crane", "kite", "crane (2)")
    assert "1 empty lines" in notes[0]
    assert "'crane', from here on 'crane (2)'" in notes[1]


def test_long_names_are_shortened_at_a_comma_and_stay_apart(tmp_path: Path) -> None:
    long = "dragonfly, darning needle, devil's darning needle, sewing needle, snake feeder, snake doctor"
    same = "x" * 70
    found = read(tmp_path, f"{long}\n{same}a\n{same}b\n")
    assert found.names[0] == "dragonfly, darning needle, devil's darning needle, sewing needle"
    assert len(set(found.names)) == 3
    assert all(len(name) <= 64 for name in found.names)
    assert "3 labels of over 64 characters" in found.notes[0]


def test_numbers_that_are_labels_stay(tmp_path: Path) -> None:
    assert read(tmp_path, "7 up\n3 musketeers\n").names == ("7 up", "3 musketeers")
    assert read(tmp_path, "0\n1\n2\n").names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("labels.txt", "\n\n", "holds no labels"),
        ("labels.txt", "apple\nunknown\n", "label 2"),
        ("labels.txt", "apple\npe\x07ar\n", "control character"),
        ("labels.json", '{"apple": 1}', "no JSON list"),
        ("labels.json", "[1, 2]", "no label"),
        ("labels.json", "[apple", "no JSON list"),
        ("labels.csv", "id,name\n1,apple\n2\n", "different length"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(BundleError) as refused:
        read(tmp_path, content, name)
    assert refused.value.code == "import-labels"
    assert said in str(refused.value)
    assert refused.value.hint


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07\xff\xfe")
    for path in (tmp_path / "none.txt", tmp_path, tmp_path / "model.onnx"):
        with pytest.raises(BundleError, match=path.name) as refused:
            read_labels(path)
        assert refused.value.code == "import-labels"
