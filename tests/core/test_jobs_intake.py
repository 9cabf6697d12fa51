"""What a submission may carry, judged without a server."""

import struct

import pytest
from web_shop import shelf

from cloud.jobs.callback import Allowed
from cloud.web.jobs_intake import MOST_PICTURE_BYTES, make_submission, plain_name
from cloud.web.problems import ApiProblem

PNG_HUGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0) + b"\0" * 4


def refused(picture: bytes, fields: dict[str, str] | None = None, key: str | None = None) -> tuple[int, str]:
    with pytest.raises(ApiProblem) as problem:
        make_submission(picture, fields or {}, key, Allowed())
    assert problem.value.hint
    return int(problem.value.status), problem.value.code


def test_a_picture_is_judged_from_its_header() -> None:
    jpeg = shelf(3, "Banana")
    taken = make_submission(jpeg, {"name": "C:\\photos\\shelf.jpg", "email": "a@b.example"}, "key-1", Allowed())
    assert (taken.kind, taken.width, taken.height, taken.name) == ("jpeg", 480, 270, "shelf.jpg")
    assert (taken.key, taken.email, taken.submitted_by, len(taken.sha256)) == ("key-1", "a@b.example", "anybody", 32)


@pytest.mark.parametrize(
    ("picture", "answer"),
    [
        (b"", (422, "picture-empty")),
        (b"hello", (415, "picture-not-a-picture")),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", (415, "picture-not-a-picture")),
        (b"GIF89a" + b"\0" * 40, (415, "picture-not-a-picture")),
        (b"\xff\xd8\xff", (422, "picture-truncated")),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, (422, "picture-broken")),
        (PNG_HUGE, (422, "picture-too-large")),
        (b"\xff\xd8\xff" + b"\0" * MOST_PICTURE_BYTES, (413, "picture-too-large")),
    ],
    ids=["empty", "text", "svg", "gif", "cut", "no-size", "many-pixels", "many-bytes"],
)
def test_what_is_no_picture_for_us_is_refused(picture: bytes, answer: tuple[int, str]) -> None:
    assert refused(picture) == answer


@pytest.mark.parametrize(
    ("fields", "key", "code"),
    [
        ({}, "with space", "bad-key"),
        ({}, "", "bad-key"),
        ({}, "k" * 129, "bad-key"),
        ({"email": "nobody"}, None, "bad-email"),
        ({"email": "a@b.example\r\nBcc: c@d.example"}, None, "bad-email"),
        ({"email": "a@b.example,c@d.example"}, None, "bad-email"),
        ({"sender": "a/b"}, None, "bad-sender"),
        ({"sender": "x" * 200}, None, "bad-sender"),
        ({"callback": "http://127.0.0.1/"}, None, "callback-internal"),
        ({"callback": "nonsense"}, None, "callback-bad"),
    ],
)
def test_wishes_are_judged(fields: dict[str, str], key: str | None, code: str) -> None:
    assert refused(shelf(3, "Banana"), fields, key) == (422, code)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\shelf 1.jpg", "shelf 1.jpg"),
        ("gnp.\u202egpj.exe", "gnp.gpj.exe"),
        ("a\0b\r\nc\x1b[31m.jpg", "abc[31m.jpg"),
        ("<script>alert(1)</script>", "script>"),
        ("...", ""),
        ("", ""),
        ("é" * 500, "é" * 120),
        ("\ud800x.jpg", "x.jpg"),
    ],
)
def test_file_names_are_made_plain(given: str, shown: str) -> None:
    assert plain_name(given) == shown
