"""What comes with POST /jobs: a picture, bounded while it is read, and judged from its header before it is kept."""

import hashlib
import re
import unicodedata
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus

from fastapi import Request
from python_multipart.exceptions import ParseError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cloud import frame
from cloud.errors import Rejected
from cloud.function.exchange import FRAME
from cloud.jobs import callback
from cloud.jobs.rows import Submission
from cloud.web.problems import ApiProblem
from models import PictureError, picture_size
from wire import bounds

MOST_PICTURE_BYTES = 20 * 1024 * 1024
MOST_PIXELS = 25_000_000
MOST_AROUND_BYTES = 64 * 1024
"""What a form may add to its picture: names, addresses and boundaries."""
MOST_FIELD_BYTES = 2048
MOST_NAME = 120
ANYBODY = "anybody"

_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_FIELDS = ("callback", "email", "sender", "name")


async def read_submission(
    request: Request, wishes: Mapping[str, str | None], key: str | None, allowed: callback.Allowed, now: datetime
) -> Submission:
    """Read a job from a request that came `now`; `wishes` stand in its address and go before those of a form.

    Raises `ApiProblem`, and `Rejected` for its callback and for what a device says of its frame.
    """
    frame_id = request.headers.get(FRAME)
    sent = None if frame_id is None else frame.read(request.headers, frame_id, now)
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields = {name: value for name, value in wishes.items() if value is not None}
    if said == "multipart/form-data":
        picture, of_form = await _read_form(request)
        fields = {**of_form, **fields}
    elif said.startswith("image/"):
        picture = b"".join([part async for part in bounded(request, MOST_PICTURE_BYTES)])
    else:
        raise ApiProblem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "picture-content-type",
            f"the content type is {said[:80] or 'missing'}, not that of a picture",
            "send the picture as the body with Content-Type: image/jpeg (or png, webp, bmp), or as the field `picture` "
            "of a form (multipart/form-data)",
        )
    given = make_submission(picture, fields, key, allowed)
    return given if sent is None else _of_frame(given, sent)


def make_submission(picture: bytes, fields: dict[str, str], key: str | None, allowed: callback.Allowed) -> Submission:
    """Judge a picture from its header, and what its sender wishes. Raises `ApiProblem`, `Rejected`."""
    width, height, kind = _judge_picture(picture)
    if key is not None and not _KEY.fullmatch(key):
        raise _wrong("bad-key", "the Idempotency-Key is not 1 to 128 plain characters", "use a UUID, for example")
    sender = fields.get("sender") or ANYBODY
    if not re.fullmatch(bounds.NAME, sender):
        raise _wrong("bad-sender", "the sender's name is not plain", "use letters, digits, dots and dashes")
    email = fields.get("email") or None
    if email is not None and (len(email) > 200 or not _EMAIL.fullmatch(email)):
        raise _wrong("bad-email", "this is no e-mail address", "give one such as shop@example.com")
    target = fields.get("callback") or None
    if target is not None:
        try:
            callback.check_url(target, allowed)
        except Rejected as error:
            raise _wrong(error.code, str(error), error.hint) from error
    return Submission(
        picture, hashlib.sha256(picture).digest(), kind, width, height, sender, key, plain_name(fields.get("name", "")),
        target, email,
    )  # fmt: skip


def _of_frame(given: Submission, sent: frame.Sent) -> Submission:
    """Tie a job to the frame that a device asks about. Raises `ApiProblem` (``bad-sender``, ``bad-sha256``)."""
    if given.submitted_by != sent.about.device:
        raise _wrong(
            "bad-sender",
            f"the frame is one of {sent.about.device}, the sender is {given.submitted_by}",
            "name the frame's device as the sender: /v1/jobs?sender=DEVICE",
        )
    if sent.sha256 is not None and bytes.fromhex(sent.sha256) != given.sha256:
        raise _wrong("bad-sha256", "the body is not the one that X-Shelfwire-Sha256 speaks of", "send it again")
    return replace(given, about=sent.about, name=given.name or f"{sent.about.camera}, frame {sent.about.frame}")


def plain_name(text: str) -> str:
    """A file's name for people: no folders, nothing that cannot be seen or turns the reading direction."""
    last = re.split(r"[/\\]", text)[-1]
    visible = "".join(c for c in last if unicodedata.category(c)[0] != "C")
    return " ".join(visible.split()).strip(". ")[:MOST_NAME]


def refuse_foreign_pages(request: Request) -> None:
    """Refuse a change that a browser asks for on behalf of another site's page. Programs send neither header."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if (site is not None and site not in ("same-origin", "none")) or (origin is not None and origin != own):
        raise ApiProblem(
            HTTPStatus.FORBIDDEN,
            "foreign-page",
            "a page of another site asked for this",
            "use the pages of this server, or a program without the headers Origin and Sec-Fetch-Site",
        )


def _wrong(code: str, detail: str, hint: str) -> ApiProblem:
    return ApiProblem(HTTPStatus.UNPROCESSABLE_ENTITY, code, detail, hint)


def _too_large(most_bytes: int) -> ApiProblem:
    return ApiProblem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "picture-too-large",
        f"the picture has more than {most_bytes // 2**20} MiB",
        "save it smaller or at a lower quality",
    )


def _judge_picture(picture: bytes) -> tuple[int, int, str]:
    if len(picture) > MOST_PICTURE_BYTES:
        raise _too_large(MOST_PICTURE_BYTES)
    try:
        width, height, kind = picture_size(picture)
    except PictureError as error:
        unknown = error.code == "picture-not-a-picture"
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE if unknown else HTTPStatus.UNPROCESSABLE_ENTITY
        raise ApiProblem(status, error.code, str(error), error.hint) from error
    if width * height > MOST_PIXELS:
        raise _wrong(
            "picture-too-large",
            f"the picture has {width} x {height} pixels, at most {MOST_PIXELS // 1_000_000} million are taken",
            "scale it down before it is sent",
        )
    return width, height, kind


async def bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body, given up as soon as it is too long. Raises `ApiProblem` (``picture-too-large``)."""
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most_bytes:
        raise _too_large(most_bytes)
    count = 0
    async for part in request.stream():
        count += len(part)
        if count > most_bytes:
            raise _too_large(most_bytes)
        yield part


async def _read_form(request: Request) -> tuple[bytes, dict[str, str]]:
    body = bounded(request, MOST_PICTURE_BYTES + MOST_AROUND_BYTES)
    parser = MultiPartParser(
        request.headers, body, max_files=1, max_fields=len(_FIELDS), max_part_size=MOST_FIELD_BYTES
    )
    broken = _wrong(
        "bad-form", "the form cannot be read", "send one file in the field `picture`, and plain text in the others"
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ParseError, KeyError, ValueError) as error:
        raise broken from error
    try:
        picture = form.get("picture")
        if not isinstance(picture, UploadFile):
            raise _wrong(
                "picture-missing", "the form has no file in the field `picture`", "curl -F picture=@shelf.jpg URL"
            )
        fields = {name: value for name in _FIELDS if isinstance(value := form.get(name), str)}
        fields.setdefault("name", picture.filename or "")
        return await picture.read(), fields
    finally:
        await form.close()
