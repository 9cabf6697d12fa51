"""Rendered shelves as training pictures: one set of cameras to learn from, another to check with."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.camera import synthetic, synthetic_sprites
from agent.camera.synthetic import PRODUCTS, Scene

import cv2  # isort: skip

SIDE_PX = 320
"""Rendered pictures are kept as squares of this side."""

TRAIN_SEEDS = range(10_000, 10_060)
CHECK_SEEDS = range(20_000, 20_020)
"""Cameras of the two sets; the seeds below 10,000 are left for users' own."""


def frames(seed: int) -> list[tuple[npt.NDArray[np.uint8], str]]:
    """One frame of every product as camera `seed` sees it, in full size, at moments drawn from the seed."""
    scene = Scene(seed)
    rng = np.random.default_rng((seed, 9))
    moments = [turn * scene.dwell_frames + int(rng.integers(scene.dwell_frames)) for turn in range(len(PRODUCTS))]
    return [scene.render(moment) for moment in moments]


def training_set(
    labels: tuple[str, ...], cache_dir: Path, progress: Callable[[int, int], None], seeds: range = TRAIN_SEEDS
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pictures (count, SIDE_PX, SIDE_PX, 3) of the cameras `seeds` and their numbers in `labels`."""
    renderer = b"".join(Path(part.__file__).read_bytes() for part in (synthetic, synthetic_sprites))
    mark = hashlib.sha256(renderer + repr((seeds, SIDE_PX)).encode()).hexdigest()[:16]
    kept = cache_dir / f"scenes-{mark}.npz"
    if not kept.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        pictures, names = [], []
        for number, seed in enumerate(seeds):
            for frame, truth in frames(seed):
                pictures.append(_square(frame))
                names.append(truth)
            progress(number + 1, len(seeds))
        half = kept.with_suffix(".half.npz")
        np.savez(half, pictures=np.stack(pictures), names=np.array(names))
        half.replace(kept)
    with np.load(kept) as stored:
        numbers = np.array([labels.index(str(name)) for name in stored["names"]], np.int64)
        return stored["pictures"], numbers


def _square(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = frame.shape[:2]
    left = (width - height) // 2
    square = frame[:, left : left + height]
    return np.asarray(cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)
