"""Give pictures to the cloud for an answer, beside the cameras; vision and sync may run meanwhile, and need not.

Each picture is put into the outbox like a camera's frame and sent when sync can. Its frame id is printed at once; with
--wait also the cloud's answer. Exit code 3 when that did not come in time: the pictures are on their way all the same.
"""

import argparse
import json
import re
import sys
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.cli.common import add_config, add_json, load_config, table
from agent.config import NAME, Config
from agent.core.records import Origin, frame_body
from agent.errors import Broken, Rejected, Retryable
from agent.host.clock import SystemClock, boot_id
from agent.link.doorbell import ring
from agent.ports import Draft, Lane, Spooled, Stamp
from agent.store.database import BUSY_ERRORS, DISK_ERRORS
from agent.store.inspect import look
from agent.store.verdicts import Kept, VerdictStore
from agent.store.writer import Limits, Writer

CAMERA = "submitted"
REASON = "submitted"
WAIT_S = 60.0
LOOK_EVERY_S = 0.2
MOST_PICTURES = 1000
MOST_AS_IT_IS_BYTES = 4 << 20
"""A JPEG up to here is sent as it is when it is small enough; anything else is made into one."""


@dataclass(frozen=True, slots=True)
class _Jpeg:
    file: Path
    data: bytes
    width: int
    height: int


@dataclass(slots=True)
class _Submitted:
    file: Path
    frame_id: str
    run_id: str
    seq: int
    answer: Kept | None = None
    refused: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("picture", nargs="+", type=Path, metavar="PICTURE", help="JPEG, PNG, WebP or BMP file")
    add_config(parser)
    parser.add_argument(
        "--camera", default=CAMERA, metavar="NAME", help="name to keep the answers under (default: %(default)s)"
    )
    parser.add_argument(
        "--wait", nargs="?", type=float, const=WAIT_S, metavar="S",
        help=f"wait for the answers, at most so many seconds (without a number: {WAIT_S:g})",
    )  # fmt: skip
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Submit, and wait if told to; gives the exit code."""
    config = load_config(options)
    _check(config, options)
    jpegs = [_read(path, config) for path in options.picture]
    submitted = submit(config, jpegs, options.camera)
    ring(config.device.runtime_dir)
    if not options.json:
        for item in submitted:
            print(f"{item.file}  {item.frame_id}", flush=True)
        if not look(config.device.state_dir).sync_runs:
            print("sync does not run: they are sent when it does", file=sys.stderr)
    missing = 0
    if options.wait is not None:
        missing = await_answers(config.device.state_dir, submitted, options.wait)
        if not options.json:
            print(_as_text(submitted))
    if options.json:
        print(json.dumps({"pictures": [_as_json(item) for item in submitted]}, indent=2))
    _complain(submitted, missing, options)
    return 0


def _check(config: Config, options: argparse.Namespace) -> None:
    if config.cloud.api is None:
        raise Rejected("pictures-stay", "no picture can leave this device: it has no address for them",
                       'set api = "https://..." in the [cloud] section')  # fmt: skip
    if not config.frames_may_leave:
        raise Rejected(
            "pictures-stay",
            f'no picture may leave this device: [privacy] pictures = "{config.privacy.pictures}"',
            'set pictures = "frames" in the [privacy] section, if the shop agrees',
        )
    if not re.fullmatch(NAME, options.camera):
        raise Rejected("camera-name", f'"{options.camera}" cannot be a camera\'s name',
                       "use letters, digits, dot, dash and underscore, at most 64")  # fmt: skip
    if options.wait is not None and not 0 <= options.wait <= 86_400:
        raise Rejected("bad-wait", "the time to wait is out of bounds", "give seconds, from 0 to 86400")
    if len(options.picture) > MOST_PICTURES:
        raise Rejected(
            "too-many", f"{len(options.picture)} pictures; the limit is {MOST_PICTURES}", "give them in parts"
        )


def _read(path: Path, config: Config) -> _Jpeg:
    """Read a picture and see that it is one. Raises `Rejected` with the picture's code and the name of the file."""
    from agent.camera.encode import to_jpeg
    from models import PictureError
    from models.picture import MOST_PICTURE_BYTES, decode_picture, picture_size

    try:
        with path.open("rb") as file:
            data = file.read(MOST_PICTURE_BYTES + 1)
    except OSError as error:
        raise Rejected("picture-unreadable", f"{path}: {error.strerror}", "check the path and its rights") from None
    try:
        picture = decode_picture(data)
        kind = picture_size(data)[2]
    except PictureError as error:
        raise Rejected(error.code, f"{path}: {error}", error.hint) from None
    height, width = picture.shape[:2]
    if kind == "jpeg" and max(width, height) <= config.spool.max_side and len(data) <= MOST_AS_IT_IS_BYTES:
        return _Jpeg(path, data, width, height)
    return _Jpeg(path, *to_jpeg(picture, config.spool.quality, config.spool.max_side))


def submit(config: Config, jpegs: list[_Jpeg], camera: str) -> list[_Submitted]:
    """Put pictures into the outbox, all in one transaction and in a run of their own.

    Raises `Broken`: ``spool-full``, ``disk-full``, ``spool-folder``, and what opening the store raises;
    `Retryable` (``store-busy``).
    """
    limits = Limits(
        config.outbox.max_rows,
        config.outbox.max_bytes,
        pictures_max_bytes=config.spool.max_bytes,
        keep_free_bytes=config.spool.keep_free,
    )
    writer = Writer(config.device.state_dir, limits, config.outbox.reserve, role="submit")
    clock = SystemClock()
    kept: list[Spooled] = []
    try:
        kept.extend(writer.spool.keep(jpeg.data) for jpeg in jpegs)
        now = clock.now()
        run_id = writer.start_run(boot_id(), now.wall_ns, version("shelfwire"))
        drafts = [
            _draft(n, jpeg, picture, camera, now, clock)
            for n, (jpeg, picture) in enumerate(zip(jpegs, kept, strict=True), 1)
        ]
        seqs = writer.put(drafts, {"submitted:pictures": len(drafts)})
    except BaseException as error:
        writer.spool.remove(picture.name for picture in kept)
        if isinstance(error, DISK_ERRORS):
            raise Broken("disk-full", f"the store cannot be written: {error}", "free disk space") from None
        if isinstance(error, BUSY_ERRORS):
            raise Retryable("store-busy", f"the store is in use: {error}", "run this again") from None
        raise
    finally:
        writer.close()
    return [
        _Submitted(jpeg.file, f"{config.device.id}/{run_id}/{seq}", run_id, seq)
        for jpeg, seq in zip(jpegs, seqs, strict=True)
    ]


def _draft(number: int, jpeg: _Jpeg, picture: Spooled, camera: str, now: Stamp, clock: SystemClock) -> Draft:
    body = frame_body(
        Origin(camera, number, now.wall_ns, now.boot_ns, clock.trust()),
        size=(jpeg.width, jpeg.height),
        reason=REASON,
        answer=None,
        truth=None,
    )
    return Draft("frame", Lane.REVIEW, body, now, clock.trust(), picture)


def await_answers(state_dir: Path, submitted: list[_Submitted], wait_s: float) -> int:
    """Fill in the answers as they come; gives how many are still missing when the time is over."""
    store = VerdictStore(state_dir)
    until_s = time.monotonic() + wait_s
    pause = threading.Event()
    try:
        while True:
            for item in submitted:
                if item.answer is None and item.refused is None:
                    item.answer = store.answer(item.run_id, item.seq)
                    item.refused = store.refused(item.seq) if item.answer is None else None
            missing = sum(item.answer is None and item.refused is None for item in submitted)
            left_s = until_s - time.monotonic()
            if not missing or left_s <= 0:
                return missing
            pause.wait(min(LOOK_EVERY_S, left_s))
    finally:
        store.close()


def _complain(submitted: list[_Submitted], missing: int, options: argparse.Namespace) -> None:
    refused = [item for item in submitted if item.refused is not None]
    options.json = False  # what there is to print as JSON is printed
    if refused:
        raise Rejected("picture-refused", f"the cloud refused {len(refused)} pictures: {refused[0].refused}",
                       "see this device's log; save the picture again, or update cloud or agent")  # fmt: skip
    if missing:
        raise Retryable(
            "no-answer-yet",
            f"{missing} of {len(submitted)} answers did not come in {options.wait:g} s",
            "the pictures are on their way all the same: see shelfwire-agent status, and that sync runs",
        )


def _as_json(item: _Submitted) -> dict[str, Any]:
    shown: dict[str, Any] = {"file": str(item.file), "frame": item.frame_id, "answer": None}
    if item.refused is not None:
        shown["refused"] = item.refused
    if item.answer is not None:
        verdict = item.answer.verdict
        shown["answer"] = {
            **verdict.model_dump(mode="json", include={"label", "labels", "mode", "model", "answered_at"}),
            "score": verdict.labels[0].score,
            "age_s": _age_s(item.answer),
        }
    return shown


def _as_text(submitted: list[_Submitted]) -> str:
    rows = [("file", "label", "score", "mode", "after")]
    for item in submitted:
        if item.answer is None:
            rows.append((str(item.file), f"refused: {item.refused}" if item.refused else "no answer yet", "", "", ""))
        else:
            verdict = item.answer.verdict
            rows.append((str(item.file), verdict.label, f"{verdict.labels[0].score:.3f}", verdict.mode,
                         f"{_age_s(item.answer):.1f} s"))  # fmt: skip
    return table(rows)


def _age_s(answer: Kept) -> float:
    """From the submission until the answer was here."""
    return round(max(0.0, answer.received_ns / 1e9 - answer.verdict.captured_at.timestamp()), 3)
