"""Pictures from anywhere: what is one, what is refused, and why."""

import os
import struct
import zlib

import numpy as np
import pytest

import models
from models import PictureError, decode_picture, picture_size
from models.picture import MOST_PICTURE_PIXELS

import cv2  # isort: skip


def _rainbow(width: int = 40, height: int = 30) -> np.ndarray:
    x = np.linspace(0, 255, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 255, height, dtype=np.float32)[:, None]
    return np.stack([x + 0 * y, y + 0 * x, (x + y) / 2], axis=2).astype(np.uint8)


def _file(kind: str, picture: np.ndarray | None = None) -> bytes:
    given = _rainbow() if picture is None else picture
    options = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}.get(kind, [])  # 101 asks for the lossless form
    written, content = cv2.imencode(kind, given, options)
    assert written
    return content.tobytes()


def _refusal(data: bytes, **limits: int) -> PictureError:
    with pytest.raises(PictureError) as refused:
        decode_picture(data, **limits)
    assert refused.value.hint
    return refused.value


def _png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_every_kind_is_read(suffix: str) -> None:
    picture = decode_picture(_file(suffix))
    assert picture.shape == (30, 40, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - _rainbow()).mean() < 6


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "jpeg"), (".png", "png"), (".bmp", "bmp"), (".webp", "webp")])
@pytest.mark.parametrize("size", [(1, 1), (17, 5), (640, 480)])
def test_the_header_tells_the_size(suffix: str, kind: str, size: tuple[int, int]) -> None:
    assert picture_size(_file(suffix, _rainbow(*size))) == (*size, kind)


def test_a_lossy_and_a_lossless_webp_tell_their_size() -> None:
    lossy = cv2.imencode(".webp", _rainbow(), [cv2.IMWRITE_WEBP_QUALITY, 60])[1].tobytes()
    assert picture_size(lossy) == (40, 30, "webp")
    assert picture_size(_file(".webp")) == (40, 30, "webp")


def test_an_extended_webp_tells_its_size() -> None:
    extended = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    extended += (99).to_bytes(3, "little") + (49).to_bytes(3, "little")
    assert picture_size(extended) == (100, 50, "webp")


def test_grey_and_transparent_pictures_become_three_channels() -> None:
    grey = cv2.imencode(".png", _rainbow()[..., 0])[1].tobytes()
    clear = cv2.imencode(".png", np.dstack([_rainbow(), np.full((30, 40), 9, np.uint8)]))[1].tobytes()
    assert decode_picture(grey).shape == decode_picture(clear).shape == (30, 40, 3)


def test_an_empty_file_is_named_so() -> None:
    assert _refusal(b"").code == "picture-empty"


@pytest.mark.parametrize(
    "data", [b"hello", b"%PDF-1.7", b"GIF89a" + bytes(40), b"\x00" * 100, b"RIFF\x00\x00\x00\x00WAVE"]
)
def test_other_files_are_no_pictures(data: bytes) -> None:
    assert _refusal(data).code == "picture-not-a-picture"


def test_a_huge_picture_is_refused_by_its_header_alone() -> None:
    refused = _refusal(_png_header(20_000, 20_000))
    assert refused.code == "picture-too-large"
    assert "20000 x 20000" in str(refused)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_the_limit_on_pixels_counts(suffix: str) -> None:
    assert _refusal(_file(suffix), max_pixels=1199).code == "picture-too-large"
    assert decode_picture(_file(suffix), max_pixels=1200).size


def test_the_limit_on_bytes_counts() -> None:
    content = _file(".png")
    assert _refusal(content, max_bytes=len(content) - 1).code == "picture-too-large"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_file_that_ends_early_is_truncated(suffix: str, share: float) -> None:
    content = _file(suffix, _rainbow(200, 150))
    assert _refusal(content[: int(len(content) * share)]).code == "picture-truncated"


def test_a_jpeg_without_its_end_is_truncated_even_when_it_holds_a_thumbnail() -> None:
    thumbnail = _file(".jpg", _rainbow(8, 8))
    note = b"Exif\x00\x00" + thumbnail
    content = _file(".jpg", _rainbow(200, 150))
    with_note = content[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + content[2:]
    assert decode_picture(with_note).shape == (150, 200, 3)
    assert picture_size(with_note) == (200, 150, "jpeg")
    assert _refusal(with_note[:-2]).code == "picture-truncated"


def test_bytes_after_the_end_do_no_harm() -> None:
    assert decode_picture(_file(".jpg") + b"\x00" * 64).shape == (30, 40, 3)
    assert decode_picture(_file(".png") + b"trailer").shape == (30, 40, 3)


@pytest.mark.parametrize("count", range(1, 26))
def test_a_header_cut_anywhere_is_an_answer_not_a_crash(count: int) -> None:
    for suffix in (".jpg", ".png", ".bmp", ".webp"):
        assert _refusal(_file(suffix)[:count]).code in {"picture-truncated", "picture-not-a-picture", "picture-broken"}


def test_a_png_whose_pixels_are_rubbish_is_broken() -> None:
    rubbish = b"IDAT" + os.urandom(64)
    chunk = struct.pack(">I", 64) + rubbish + struct.pack(">I", zlib.crc32(rubbish))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    assert _refusal(_png_header(10, 10) + chunk + end).code == "picture-broken"


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0)])
def test_a_picture_without_pixels_is_broken(width: int, height: int) -> None:
    assert _refusal(_png_header(width, height)).code == "picture-broken"


def test_random_bytes_behind_a_known_start_never_crash() -> None:
    rng = np.random.default_rng(5)
    for start in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\x00\x00\x00\x00WEBPVP8 "):
        for _ in range(40):
            junk = start + rng.integers(0, 256, int(rng.integers(0, 200)), dtype=np.uint8).tobytes()
            try:
                picture = decode_picture(junk)
            except PictureError as refused:
                assert refused.code.startswith("picture-")
            else:
                assert picture.size


def test_opencv_itself_is_limited_above_our_limit() -> None:
    assert int(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]) >= MOST_PICTURE_PIXELS
    assert models.MOST_PIXELS >= MOST_PICTURE_PIXELS
