"""Labelled pictures as people keep them: folders per label, lists, and the mistakes in both."""

from pathlib import Path

import pytest

from models.errors import DataError
from models.labelled import Listing, read_labelled, spread

LABELS = ("Golden-Delicious", "Granny-Smith", "Lemon", "Oat Milk")
CLASSES = """Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)
Lemon,0,Citrus,3
Golden-Delicious,1,Apple,0
Granny-Smith,2,Apple,0
"""


def photos(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"not looked at")
    return folder


def labels_of(listing: Listing) -> dict[str, str]:
    return {picture.path.name: picture.label for picture in listing.pictures}


def refusal(source: Path) -> DataError:
    with pytest.raises(DataError) as refused:
        read_labelled(source, LABELS)
    assert refused.value.hint
    return refused.value


def test_the_nearest_folder_that_is_named_like_a_label_counts(tmp_path: Path) -> None:
    photos(
        tmp_path, "Lemon/1.jpg", "fruit/golden delicious/2.PNG", "Granny-Smith/monday/till 3/3.webp", "oat_milk/4.bmp"
    )
    photos(tmp_path, "Lemon/notes.txt", "Lemon/.hidden.jpg", ".trash/Lemon/5.jpg")
    listing = read_labelled(tmp_path, LABELS)
    assert labels_of(listing) == {
        "1.jpg": "Lemon",
        "2.PNG": "Golden-Delicious",
        "3.webp": "Granny-Smith",
        "4.bmp": "Oat Milk",
    }
    assert listing.coarse is None


def test_a_folder_that_is_no_label_is_an_error_that_names_near_ones(tmp_path: Path) -> None:
    photos(tmp_path, "Lemon/1.jpg", "Golden-Delicous/2.jpg", "Golden-Delicous/3.jpg")
    refused = refusal(tmp_path)
    assert refused.code == "data-label"
    assert "'Golden-Delicous' (near: Golden-Delicious)" in str(refused)
    listing = read_labelled(tmp_path, LABELS, ignore_unknown=True)
    assert (labels_of(listing), listing.skipped) == ({"1.jpg": "Lemon"}, {"Golden-Delicous": 2})


def test_pictures_in_no_folder_are_told_where_to_go(tmp_path: Path) -> None:
    refused = refusal(photos(tmp_path, "1.jpg"))
    assert refused.code == "data-label"
    assert "into a folder" in refused.hint


@pytest.mark.parametrize(
    "content",
    [
        "photos/a.jpg, 1\nphotos/b.jpg, 2\n",
        "\ufeffpath,label\nphotos/a.jpg,Granny-Smith\n\n# a comment\nphotos/b.jpg,Lemon\n",
        "photos/a.jpg\tgranny smith\nphotos/b.jpg\t2\n",
        "photos/a.jpg 1\nphotos/b.jpg Lemon\n",
        '"photos/a.jpg", "Granny-Smith"\n"photos/b.jpg", "Lemon"\n',
    ],
)
def test_a_list_gives_paths_beside_it_with_names_or_numbers(tmp_path: Path, content: str) -> None:
    (tmp_path / "val.txt").write_text(content, encoding="utf-8")
    listing = read_labelled(tmp_path / "val.txt", LABELS)
    assert labels_of(listing) == {"a.jpg": "Granny-Smith", "b.jpg": "Lemon"}
    assert listing.pictures[0].path == tmp_path / "photos" / "a.jpg"


@pytest.mark.parametrize("place", [".", ".."])
def test_numbers_are_those_of_classes_csv_beside_the_list_or_above_it(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / place / "classes.csv").write_text(CLASSES)
    (folder / "val.txt").write_text("a.jpg, 0, 3\nb.jpg, 1, 0\n")
    listing = read_labelled(folder / "val.txt", LABELS)
    assert labels_of(listing) == {"a.jpg": "Lemon", "b.jpg": "Golden-Delicious"}
    assert listing.coarse == {"Lemon": "Citrus", "Golden-Delicious": "Apple", "Granny-Smith": "Apple"}
    assert listing.coarse_named


def test_the_third_column_of_a_list_is_the_coarse_class(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("a.jpg, 0, 7\nb.jpg, 1, 7\nc.jpg, 2, 8\n")
    listing = read_labelled(tmp_path / "val.txt", LABELS)
    assert listing.coarse == {"Golden-Delicious": "7", "Granny-Smith": "7", "Lemon": "8"}
    assert not listing.coarse_named


def test_a_folder_of_the_data_set_has_its_coarse_classes_too(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text(CLASSES)
    photos(tmp_path, "val/Fruit/Lemon/1.jpg")
    listing = read_labelled(tmp_path / "val", LABELS)
    assert listing.coarse is not None
    assert listing.coarse["Lemon"] == "Citrus"


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"a.jpg, 17\n", "data-label", "'17'"),
        (b"a.jpg, Lemmon\n", "data-label", "near: Lemon"),
        (b"a.jpg\n", "data-list", "line 1"),
        (b"a.jpg, Lemon\nb.jpg\n", "data-list", "line 2"),
        (b"", "data-empty", "no picture"),
        (b"\xff\xd8\xff\xe0 a picture", "data-list", "no text"),
    ],
)
def test_a_list_with_mistakes_says_which(tmp_path: Path, content: bytes, code: str, said: str) -> None:
    (tmp_path / "val.txt").write_bytes(content)
    refused = refusal(tmp_path / "val.txt")
    assert refused.code == code
    assert said in str(refused)


def test_what_is_missing_empty_or_no_table_of_classes(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").code == "data-missing"
    assert refusal(tmp_path).code == "data-empty"
    (tmp_path / "classes.csv").write_text("a,b\n1,2\n")
    assert refusal(photos(tmp_path, "Lemon/1.jpg")).code == "data-classes"


def test_a_part_is_spread_over_the_whole(tmp_path: Path) -> None:
    photos(tmp_path, *(f"Lemon/{n:03}.jpg" for n in range(90)), *(f"Oat Milk/{n}.jpg" for n in range(10)))
    some = spread(read_labelled(tmp_path, LABELS).pictures, 20)
    assert [picture.label for picture in some].count("Oat Milk") == 2
    assert len({picture.path for picture in some}) == 20
    assert len(spread(some, 50)) == 20
