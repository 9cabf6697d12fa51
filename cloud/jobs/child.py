"""The process that looks at pictures: bounded in memory and time, with nothing in reach that a bad picture could take.

It speaks over one socket pair: a picture in, one JSON object and a thumbnail out. When it dies, its parent starts
another.
"""

import argparse
import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from models import MOST_PIXELS, Bundle, Classifier, PictureError, Worker, decode_picture

import cv2  # isort: skip
import numpy as np
import numpy.typing as npt

assert MOST_PIXELS  # importing `models` first has set OpenCV's own limit

ROOM_BYTES = 768 * 1024 * 1024
"""Address space beyond what the open model takes: a picture of 25 million pixels needs 75 MB, a few times over."""

THUMBNAIL_SIDE = 512
THUMBNAIL_QUALITY = 82
TOP = 5
MOST_MESSAGE_BYTES = 64 * 1024 * 1024


def main() -> None:
    """Serve until the parent closes its end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--limit-s", type=float, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    parent = Connection(options.fd)
    cv2.setNumThreads(1)
    bundle = Bundle.load(options.bundle)
    # As many workers as cores: each has one thread, and more throughput comes from more children.
    with Classifier.open(bundle, "onnxruntime", workers=os.cpu_count() or 1) as classifier:
        for note in classifier.notes:
            sys.stderr.write(f"warning: {note.message} [{note.code}]; cure: {note.hint}\n")
        worker = classifier.worker()
        worker.classify(np.zeros((64, 64, 3), np.uint8))
        _limit_memory()
        model = {name: getattr(classifier.model, name) for name in ("name", "version", "release", "digest")}
        parent.send_bytes(json.dumps({"model": model, "runtime": classifier.runtime}).encode())
        while True:
            try:
                picture = parent.recv_bytes(MOST_MESSAGE_BYTES)
            except EOFError:
                return
            signal.setitimer(signal.ITIMER_REAL, options.limit_s)  # also ends a child whose parent was killed
            said, thumbnail = look(picture, worker)
            signal.setitimer(signal.ITIMER_REAL, 0)
            parent.send_bytes(json.dumps(said).encode())
            parent.send_bytes(thumbnail)


def look(picture: bytes, worker: Worker) -> tuple[dict[str, object], bytes]:
    """Classify one picture; gives ({"result": ...} or {"code", "detail", "hint"}, thumbnail as JPEG or nothing)."""
    try:
        bgr = decode_picture(picture)
        answer = worker.classify(bgr, TOP)
    except PictureError as error:
        return {"code": error.code, "detail": str(error), "hint": error.hint}, b""
    result = {
        "label": answer.label,
        "known": answer.known,
        "score": answer.score,
        "top": [{"label": label, "score": score} for label, score in answer.top],
        "prepare_ms": answer.prepare_ms,
        "inference_ms": answer.inference_ms,
    }
    return {"result": result}, make_thumbnail(bgr)


def make_thumbnail(bgr: npt.NDArray[np.uint8]) -> bytes:
    """Scale a picture, (H, W, 3), into a square of THUMBNAIL_SIDE, never up, as JPEG."""
    height, width = bgr.shape[:2]
    part = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = (max(1, round(width * part)), max(1, round(height * part)))
    small = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY])
    return bytes(jpeg.tobytes())


def _limit_memory() -> None:
    """Bound the address space from what the open model takes; no core files."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
