"""A larger network's opinion of fixed crops: probabilities that a small one can learn from."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from training import crops
from training.errors import TrainError
from training.photos import SIDE_PX, Photos

BATCH = 32
VIEWS = 16
"""Crops per photo that the teacher is asked about."""


def ask(
    model: Path, photos: Photos, seed: int, views: int, cache_dir: Path, progress: Callable[[int, int], None]
) -> npt.NDArray[np.float16]:
    """What `model` says about `views` crops of every photo: probabilities (count, views, classes).

    The model takes RGB, x / 127.5 - 1, float32 (N, 3, S, S), and gives (N, classes), logits or
    probabilities. Answers are kept in `cache_dir`. Raises TrainError when the model is no such thing.
    """
    if not model.is_file():
        raise TrainError(
            "teacher-missing", f"{model} does not exist", "leave --teacher away to learn from labels alone"
        )
    digest = hashlib.sha256(model.read_bytes() + photos.labels.tobytes()).hexdigest()[:16]
    kept = cache_dir / f"teacher-{digest}-{seed}-{views}.npy"
    if kept.exists():
        return np.asarray(np.load(kept), dtype=np.float16)
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    size_px = int(entry.shape[2])
    wanted = [(photo, view) for photo in range(len(photos)) for view in range(views)]
    said: list[npt.NDArray[np.float16]] = []
    for start in range(0, len(wanted), BATCH):
        batch = np.stack([_input(photos, seed, photo, view, size_px) for photo, view in wanted[start : start + BATCH]])
        said.append(_probabilities(session.run(None, {entry.name: batch})[0]).astype(np.float16))
        progress(min(start + BATCH, len(wanted)), len(wanted))
    answers = np.concatenate(said).reshape(len(photos), views, -1)
    half = kept.with_suffix(".half.npy")
    np.save(half, answers)
    half.replace(kept)
    return answers


def _input(photos: Photos, seed: int, photo: int, view: int, size_px: int) -> npt.NDArray[np.float32]:
    picture = crops.cut(photos.pictures[photo], crops.plan(seed, photo, view, SIDE_PX), size_px)
    rgb = picture[..., ::-1].astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def _probabilities(given: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Softmax of `given`, unless its rows already are probabilities."""
    if given.min() >= 0 and np.allclose(given.sum(axis=1), 1, atol=1e-3):
        return given
    powers = np.exp(given - given.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
