"""What training learns from: data sets in all their forms, photos of every kind, and views that a seed repeats."""

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from training import photos, views
from training.errors import TrainError

CLASSES = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str)\n"
    "Lime,0,Citrus,0,/iconic/lime.png\nLemon,1,Citrus,0,\nLeek,2,Leek,1,/iconic/not-there.png\n"
)


def picture(shade: int = 0, width: int = 64, height: int = 48) -> np.ndarray:
    """A ramp from left to right, so that a turned or mirrored one is another."""
    ramp = np.linspace(shade, 255, width).astype(np.uint8)
    return np.repeat(np.repeat(ramp[None, :, None], height, 0), 3, 2)


def files(folder: Path, content: Mapping[str, str | bytes | None]) -> Path:
    """Write `content`: a path without content is a photo."""
    for number, (name, what) in enumerate(content.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if what is None:
            cv2.imwrite(str(path), picture(number))
        elif isinstance(what, str):
            path.write_text(what, encoding="utf-8")
        else:
            path.write_bytes(what)
    return folder


def shown(split: photos.Listing, data: photos.DataSet) -> list[tuple[str, str]]:
    """Paths inside the data set, and the names of their classes."""
    return [
        (path.relative_to(data.folder).as_posix(), data.classes.names[label])
        for path, label in zip(split.paths, split.labels, strict=True)
    ]


# -- the three forms


def test_lists_name_classes_by_number_with_their_coarse_classes_and_the_shops_own_pictures(tmp_path: Path) -> None:
    lists = {"train.txt": "a.jpg, 1, 0\n\n# no more\nb.jpg, 2, 1\n", "val.txt": "c.jpg, 0, 0\n"}
    data = photos.find(files(tmp_path, {"classes.csv": CLASSES, "iconic/lime.png": None, **lists}))
    assert data.classes == photos.Classes(("Lime", "Lemon", "Leek"), ("Citrus", "Citrus", "Leek"))
    assert shown(data.train, data) == [("a.jpg", "Lemon"), ("b.jpg", "Leek"), ("iconic/lime.png", "Lime")]
    assert shown(data.val, data) == [("c.jpg", "Lime")]


def test_lists_name_classes_by_name_without_any_classes_file(tmp_path: Path) -> None:
    data = photos.find(files(tmp_path, {"train.txt": "a.jpg,pear\nb.jpg,apple\n", "val.txt": "\ufeffc.jpg , apple"}))
    assert data.classes == photos.Classes(("apple", "pear"), ("apple", "pear"))
    assert shown(data.train, data) == [("a.jpg", "pear"), ("b.jpg", "apple")]
    assert shown(data.val, data) == [("c.jpg", "apple")]


def test_folders_for_train_and_val_at_any_depth(tmp_path: Path) -> None:
    names = ["train/Lime/1.jpg", "train/Lime/deep/2.PNG", "train/Leek/3.webp", "val/Leek/4.jpg"]
    hidden = {"train/Lime/._1.jpg": b"", "train/.cache/x.jpg": b"", "train/Lime/notes.txt": "", "val/.tmp/y.jpg": b""}
    data = photos.find(files(tmp_path, dict.fromkeys(names) | hidden | {"classes.csv": CLASSES}))
    assert data.classes == photos.Classes(("Leek", "Lime"), ("Leek", "Citrus"))
    assert shown(data.train, data) == [
        ("train/Leek/3.webp", "Leek"),
        ("train/Lime/1.jpg", "Lime"),
        ("train/Lime/deep/2.PNG", "Lime"),
    ]
    assert shown(data.val, data) == [("val/Leek/4.jpg", "Leek")]


def test_a_folder_per_class_alone_keeps_every_tenth_photo_of_each_class_for_choices(tmp_path: Path) -> None:
    names = [f"a/{number:02}.jpg" for number in range(21)] + [f"b/{number:02}.jpg" for number in range(10)]
    data = photos.find(files(tmp_path, dict.fromkeys([*names, "c/0.jpg"], b"")))
    assert data.classes.names == ("a", "b", "c")
    assert shown(data.val, data) == [("a/09.jpg", "a"), ("a/19.jpg", "a"), ("b/09.jpg", "b")]
    assert len(data.train) == len(names) + 1 - 3


def test_a_list_without_a_val_is_split_alike(tmp_path: Path) -> None:
    lines = "".join(f"{number}.jpg,{'pear' if number % 2 else 'apple'}\n" for number in range(20))
    data = photos.find(files(tmp_path, {"train.txt": lines}))
    assert shown(data.val, data) == [("18.jpg", "apple"), ("19.jpg", "pear")]


# -- what is wrong with it

WRONG: dict[str, tuple[dict[str, str | bytes | None], str, str]] = {
    "nothing": ({}, "data-missing", "fewer than two folders"),
    "one class": ({"a/1.jpg": b""}, "data-missing", "fewer than two folders"),
    "few photos": ({"a/1.jpg": b"", "b/1.jpg": b""}, "data-missing", "no class has 10 photos"),
    "empty val": ({"train/a/1.jpg": b"", "train/b/1.jpg": b"", "val/a/x.txt": ""}, "data-missing", "val of"),
    "strange val": ({"train/a/1.jpg": b"", "train/b/1.jpg": b"", "val/c/1.jpg": b""}, "data-classes", "'c'"),
    "no class": ({"train.txt": "a.jpg\n"}, "data-list", "line 1 names no class"),
    "no such class": ({"train.txt": "a.jpg, pear\n", "val.txt": "\nb.jpg, pea\n"}, "data-list", "line 2: 'pea'"),
    "no such number": ({"classes.csv": CLASSES, "train.txt": "a.jpg, 3\n"}, "data-list", "'3' is none of the 3"),
    "numbers alone": ({"train.txt": "a.jpg, 3\n"}, "data-classes", "no classes.csv"),
    "no text": ({"train.txt": b"\xff\xfe\x00a"}, "data-list", "UTF-8"),
    "classes of another kind": ({"classes.csv": "a,b\n1,2\n", "train.txt": "a, 1"}, "data-classes", "Class Name"),
    "classes in no order": (
        {"classes.csv": "Class Name,Class ID\na,1\nb,0\n", "train.txt": "x, a"},
        "data-classes",
        "order of its ids",
    ),
    "a class twice": ({"classes.csv": "Class Name\na\na\n", "train.txt": "x, a"}, "data-classes", "twice"),
    "learnt and judged": ({"train.txt": "x.jpg, a\ny.jpg, b", "val.txt": "x.jpg, a"}, "data-list", "train and in val"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_learnt_from_is_refused_with_a_cure(tmp_path: Path, case: str) -> None:
    content, code, words = WRONG[case]
    with pytest.raises(TrainError, match=words) as refused:
        photos.find(files(tmp_path, content))
    assert refused.value.code == code
    assert refused.value.hint


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="is no folder") as refused:
        photos.find(tmp_path / "gone")
    assert refused.value.code == "data-missing"
    assert "--synthetic-only" in refused.value.hint


# -- photos


def nothing(_done: int, _of: int) -> None:
    """No progress to show."""


def listing(*paths: Path) -> photos.Listing:
    return photos.Listing(paths, np.arange(len(paths)))


def turned_jpeg(path: Path) -> None:
    """A JPEG whose EXIF says that it must be turned by 90 degrees to the right."""
    done, content = cv2.imencode(".jpg", picture())
    assert done
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    head = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    path.write_bytes(content.tobytes()[:2] + head + content.tobytes()[2:])


KINDS: dict[str, Callable[[Path], object]] = {
    "16-bit.png": lambda path: cv2.imwrite(str(path), picture().astype(np.uint16) * 257),
    "alpha.png": lambda path: cv2.imwrite(str(path), np.dstack([picture(), picture()[:, :, :1]])),
    "grey.png": lambda path: cv2.imwrite(str(path), picture()[:, :, 0]),
    "photo.bmp": lambda path: cv2.imwrite(str(path), picture()),
}


@pytest.mark.parametrize("name", KINDS)
def test_photos_of_other_kinds_are_the_same_bgr_bytes(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    [found] = photos.read(listing(tmp_path / name), tmp_path / "cache", nothing)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - picture()).max() <= 1


def test_a_photo_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    turned_jpeg(tmp_path / "turned.jpg")
    [found] = photos.read(listing(tmp_path / "turned.jpg"), tmp_path / "cache", nothing)
    assert found.shape == (64, 48, 3)
    assert found[0].mean() < 20
    assert found[-1].mean() > 235


def test_large_photos_are_kept_smaller_and_small_ones_as_they_are(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.png"), picture(0, 800, 600))
    cv2.imwrite(str(tmp_path / "small.png"), picture(0, 200, 40))
    found = photos.read(listing(tmp_path / "large.png", tmp_path / "small.png"), tmp_path / "cache", nothing)
    assert [part.shape for part in found] == [(384, 512, 3), (40, 200, 3)]


def test_photos_are_decoded_once_until_one_is_another(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), picture(20 * number))
    told: list[tuple[int, int]] = []

    def read() -> list[np.ndarray]:
        told.clear()
        return photos.read(listing(*paths), tmp_path / "cache", lambda done, of: told.append((done, of)))

    first = read()
    assert told == [(1, 3), (2, 3), (3, 3)]
    again = read()
    assert told == []
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    cv2.imwrite(str(paths[1]), picture(200))
    os.utime(paths[1], ns=(1, 1))
    assert np.array_equal(read()[1], picture(200))
    assert len(told) == 3
    assert not list((tmp_path / "cache").glob("*.half*"))


BROKEN: dict[str, tuple[bytes | None, str, str]] = {
    "cut.png": (cv2.imencode(".png", picture())[1].tobytes()[:-20], "data-photo", "ends too early"),
    "text.jpg": (b"<html>not found</html>", "data-photo", "no JPEG, PNG, WebP or BMP"),
    "scan.tif": (cv2.imencode(".tif", picture())[1].tobytes(), "data-photo", "no JPEG, PNG, WebP or BMP"),
    "empty.jpg": (b"", "data-photo", "empty"),
    "icon.png": (cv2.imencode(".png", picture(0, 64, 31))[1].tobytes(), "data-photo", "64 x 31 pixels"),
    "gone.jpg": (None, "data-missing", "does not exist"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_photo_that_cannot_be_used_is_named_with_its_cure(tmp_path: Path, name: str) -> None:
    content, code, words = BROKEN[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainError, match=words) as refused:
        photos.read(listing(tmp_path / name), tmp_path / "cache", nothing)
    assert refused.value.code == code
    assert name in str(refused.value)
    assert refused.value.hint


def test_all_bad_photos_are_told_at_once_and_nothing_is_kept(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), picture())
    bad = [tmp_path / f"bad-{number}.jpg" for number in range(7)]
    for path in bad:
        path.write_bytes(b"no picture")
    with pytest.raises(TrainError, match="7 of 8 photos cannot be used") as refused:
        photos.read(listing(tmp_path / "good.png", *bad), tmp_path / "cache", nothing)
    assert str(refused.value).count(".jpg") == photos.NAMED
    assert list((tmp_path / "cache").iterdir()) == []


# -- views


@pytest.mark.parametrize("taste", [views.PHOTOS, views.SCENES])
def test_views_are_squares_that_the_same_numbers_repeat(taste: views.Taste) -> None:
    photo = np.random.default_rng(5).integers(0, 256, (90, 120, 3), np.uint8)
    before = photo.copy()
    first = [views.view(np.random.default_rng((seed, 3)), photo, 64, taste) for seed in range(40)]
    again = [views.view(np.random.default_rng((seed, 3)), photo, 64, taste) for seed in range(40)]
    assert {view.shape for view in first} == {(64, 64, 3)}
    assert {view.dtype for view in first} == {np.dtype(np.uint8)}
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({view.tobytes() for view in first}) == 40
    assert np.array_equal(photo, before)


def test_a_view_can_be_cut_from_a_photo_that_is_kept_on_disk(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), picture(0, 400, 32))
    [photo] = photos.read(listing(tmp_path / "wide.png"), tmp_path / "cache", nothing)
    assert not photo.flags.writeable
    assert all(views.view(np.random.default_rng(seed), photo, 96).shape == (96, 96, 3) for seed in range(20))
    assert views.middle(photo, 96).shape == (96, 96, 3)


def test_mixing_says_how_much_of_each_picture_is_left() -> None:
    pictures = np.stack([np.full((32, 32, 3), 10 * number, np.uint8) for number in range(8)])
    seen = set()
    for seed in range(30):
        mixed, partner, share = views.mix(np.random.default_rng(seed), pictures, 6)
        assert np.array_equal(mixed[6:], pictures[6:])
        assert share[6:].tolist() == [1, 1]
        assert sorted(partner[:6]) == [0, 1, 2, 3, 4, 5]
        wanted = share[:6] * 10 * np.arange(6) + (1 - share[:6]) * 10 * partner[:6]
        assert np.abs(mixed[:6].mean(axis=(1, 2, 3)) - wanted).max() < 1
        own = np.arange(6) != partner[:6]
        seen |= set(mixed[:6][own].reshape(own.sum(), -1).std(axis=1) > 0)  # a square, or laid over each other
    assert seen == {False, True}
    same, _, share = views.mix(np.random.default_rng(1), pictures, 1)
    assert np.array_equal(same, pictures)
    assert share.min() == 1
