"""The function itself: a picture and what is known about it in, a verdict out. It knows no platform."""

import logging
import os
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import Field

from models.bundle import resolve
from models.classifier import Classifier, Worker
from models.picture import decode_picture, picture_size
from models.runtimes import cores
from wire import bounds
from wire.records import Label, LateMode, ModelName, Moment, Name, Part, Run, Score, Seq, Verdict

log = logging.getLogger(__name__)

MOST_PICTURE_BYTES = 4 * 1024 * 1024
"""Base64 of this fits into the 6 MB that AWS Lambda takes in one call."""
MOST_PICTURE_PIXELS = 25_000_000
KINDS = ("jpeg", "png", "webp")


class About(Part):
    """What comes with a picture: the frame's id, its camera, its time, and what the device itself made of it."""

    device: Name
    run: Run
    seq: Seq
    camera: Name
    captured_at: Moment
    frame: Annotated[int, Field(ge=1, le=bounds.SEQ_MAX)] | None = None
    local_label: Label | None = None
    top: Annotated[int, Field(ge=1, le=bounds.LABELS)] = 5
    mode: LateMode = "serverless"


class WrongKind(ValueError):
    """A picture of a kind that is not taken."""

    code = "picture-kind"
    hint = f"send one of: {', '.join(KINDS)}"


class Model:
    """An opened bundle with a worker for each thread that asks."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.name = ModelName.model_validate(
            {field: getattr(classifier.model, field) for field in ("name", "version", "release", "digest")}
        )
        self._mine = threading.local()

    @classmethod
    def open(cls, environment: Mapping[str, str] = os.environ) -> "Model":
        """Open $SHELFWIRE_BUNDLE (a shipped bundle's name or a folder) with $SHELFWIRE_RUNTIME.

        Each call computes on one core: platforms that let one process answer many calls at once run them side by
        side. Raises BundleError.
        """
        folder = resolve(environment.get("SHELFWIRE_BUNDLE") or "produce")
        classifier = Classifier.open(folder, environment.get("SHELFWIRE_RUNTIME") or "onnxruntime", workers=cores())
        for note in classifier.notes:
            log.warning("%s [%s]; cure: %s", note.message, note.code, note.hint)
        return cls(classifier)

    @property
    def worker(self) -> Worker:
        """The calling thread's worker."""
        worker: Worker | None = getattr(self._mine, "worker", None)
        if worker is None:
            worker = self._mine.worker = self.classifier.worker()
        return worker


def answer(model: Model, picture: bytes, about: About, now: datetime) -> Verdict:
    """Classify one picture of at most `MOST_PICTURE_BYTES` and `MOST_PICTURE_PIXELS`.

    The same picture and the same `about` give the same verdict, but for `inference_ms` and `answered_at`, which is
    `now`. Raises PictureError, `WrongKind`, and BundleError (model-output) for a model that gives no scores.
    """
    if len(picture) <= MOST_PICTURE_BYTES and (kind := picture_size(picture)[2]) not in KINDS:
        raise WrongKind(f"a {kind} file is not taken")
    pixels = decode_picture(picture, max_pixels=MOST_PICTURE_PIXELS, max_bytes=MOST_PICTURE_BYTES)
    seen = model.worker.classify(pixels, about.top)
    return Verdict(
        device=about.device,
        run=about.run,
        seq=about.seq,
        camera=about.camera,
        frame=about.frame,
        captured_at=about.captured_at,
        mode=about.mode,
        label=seen.label,
        labels=tuple(Score(label=label, score=score) for label, score in seen.top),
        model=model.name,
        runtime=model.classifier.runtime,
        inference_ms=seen.inference_ms,
        answered_at=now,
        agrees=None if about.local_label is None else about.local_label == seen.label,
    )
