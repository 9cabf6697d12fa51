"""Bytes that claim to be a picture: their size is read from the header before anything is decoded."""

import struct

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import PictureError

MOST_PICTURE_PIXELS = 25_000_000
MOST_PICTURE_BYTES = 32 * 1024 * 1024

_KINDS = "JPEG, PNG, WebP or BMP"
_NO_SIZE_MARKERS = frozenset({0xC4, 0xC8, 0xCC})  # tables and an extension in the range of JPEG's frame headers
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # JPEG markers without a length


def decode_picture(
    data: bytes, max_pixels: int = MOST_PICTURE_PIXELS, max_bytes: int = MOST_PICTURE_BYTES
) -> npt.NDArray[np.uint8]:
    """The picture in `data` as (height, width, 3) BGR, turned as its EXIF orientation says.

    Raises PictureError: picture-empty, picture-not-a-picture, picture-too-large (more than `max_pixels` or
    `max_bytes`), picture-truncated (the end of the file is missing), picture-broken (the decoder gave up).
    """
    if len(data) > max_bytes:
        raise PictureError(
            "picture-too-large",
            f"the file has {len(data)} bytes, at most {max_bytes} are taken",
            "save it smaller or at a lower quality",
        )
    width, height, kind = picture_size(data)
    if width * height > max_pixels:
        raise PictureError(
            "picture-too-large",
            f"the picture has {width} x {height} pixels, at most {max_pixels} are taken",
            "scale it down before it is sent",
        )
    if not _is_complete(data, kind):
        raise PictureError("picture-truncated", f"the {kind} file ends too early", "copy or send the whole file again")
    return _decode(data, kind)


def picture_size(data: bytes) -> tuple[int, int, str]:
    """(width, height, kind) from the header alone; kind is jpeg, png, webp or bmp.

    Raises PictureError: picture-empty, picture-not-a-picture, picture-truncated, picture-broken (no such size).
    """
    if not data:
        raise PictureError("picture-empty", "the file is empty", "check what wrote it, and the space on its disk")
    kind = _kind(data)
    if kind is None:
        raise PictureError("picture-not-a-picture", f"this is no {_KINDS} file", f"give a {_KINDS} file")
    try:
        width, height = _SIZES[kind](data)
    except (struct.error, IndexError):
        raise PictureError(
            "picture-truncated", f"the {kind} header ends too early", "copy the whole file again"
        ) from None
    if width <= 0 or height <= 0:
        raise PictureError("picture-broken", f"the {kind} header says {width} x {height} pixels", "save it again")
    return width, height, kind


def _kind(data: bytes) -> str | None:
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    starts = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "bmp": b"BM"}
    return next((kind for kind, start in starts.items() if data.startswith(start)), None)


def _decode(data: bytes, kind: str) -> npt.NDArray[np.uint8]:
    broken = PictureError(
        "picture-broken", f"the {kind} file cannot be decoded", "open and save it with a picture editor"
    )
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        raise broken from None
    if picture is None or picture.ndim != 3 or picture.size == 0:
        raise broken
    return np.asarray(picture, np.uint8)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """From the frame header (ITU T.81 B.2.2), found by stepping over the segments before it."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise PictureError("picture-broken", "the jpeg file has no frame header", "save it again")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _BARE_MARKERS:
            at += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker in (0xD9, 0xDA):
            raise PictureError("picture-broken", "the jpeg file has no frame header", "save it again")
        at += 2 + max(2, int(struct.unpack_from(">H", data, at + 2)[0]))


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    """From the information header, or OS/2's shorter one; a negative height means top-down rows."""
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)


def _webp_size(data: bytes) -> tuple[int, int]:
    """From the first chunk of each of the three WebP forms (RFC 9649)."""
    form = data[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if form == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8X":
        return 1 + int.from_bytes(_exactly(data, 24, 3), "little"), 1 + int.from_bytes(_exactly(data, 27, 3), "little")
    raise PictureError("picture-broken", "the webp file holds no known form", "save it again")


def _exactly(data: bytes, at: int, count: int) -> bytes:
    part = data[at : at + count]
    if len(part) < count:
        raise IndexError(at)
    return part


_SIZES = {"jpeg": _jpeg_size, "png": _png_size, "webp": _webp_size, "bmp": _bmp_size}


def _is_complete(data: bytes, kind: str) -> bool:
    """Whether the end of the file is there. Decoders fill what is missing with grey and say nothing."""
    if kind == "jpeg":
        return _jpeg_ends(data)
    if kind == "png":
        return _png_ends(data)
    if kind == "webp":
        return bool(struct.unpack_from("<I", data, 4)[0] + 8 <= len(data))
    return _bmp_ends(data)


def _jpeg_ends(data: bytes) -> bool:
    """An end marker after the last scan began; a thumbnail's own end marker lies before the first scan."""
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        elif marker == 0xDA:
            return data.rfind(b"\xff\xd9") > at
        else:
            at += 2 + max(2, int(struct.unpack_from(">H", data, at + 2)[0]))
    return False


def _png_ends(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        length = int(struct.unpack_from(">I", data, at)[0])
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + length
    return False


def _bmp_ends(data: bytes) -> bool:
    """All rows are there, for the uncompressed kinds; others are left to the decoder."""
    if struct.unpack_from("<I", data, 14)[0] == 12 or len(data) < 34:
        return len(data) > 26
    start = int(struct.unpack_from("<I", data, 10)[0])
    width, height = _bmp_size(data)
    bits = int(struct.unpack_from("<H", data, 28)[0])
    if struct.unpack_from("<I", data, 30)[0] not in (0, 3):
        return True
    return start + (width * bits + 31) // 32 * 4 * height <= len(data)
