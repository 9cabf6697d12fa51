"""A network that learns from larger ones. Needs torch: `scripts/setup --dev --train`."""

from pathlib import Path

import conv_models
import numpy as np
import pytest
from conv_models import Net

torch = pytest.importorskip("torch", reason="training is an extra")

from training.learn import Learner, Lessons, Plan, normalise  # noqa: E402
from training.teacher import Teachers  # noqa: E402

PLAN = Plan(epochs=10, seconds=None, size_px=32, seed=4, bfloat16=False, batch=12, sides=((1.0, 1.0),), hard=0.0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def teachers(tmp_path: Path) -> Teachers:
    """Two that know the three colours, one at another side."""
    paths = []
    for side_px in (32, 48):
        paths.append(tmp_path / f"{side_px}.onnx")
        paths[-1].write_bytes(conv_models.content(Net(side_px=side_px)))
    return Teachers(paths, 3)


def lessons() -> Lessons:
    """Photos of three colours, every one of them under the same wrong label."""
    pictures = conv_models.pictures(60, seed=1)
    labels = np.zeros(len(pictures), np.int64)
    return Lessons([picture for picture, _ in pictures], labels, np.empty((0, 1, 1, 3), np.uint8), labels[:0], 0, 3)


def test_what_the_teachers_say_is_learnt_and_not_the_labels(teachers: Teachers, tmp_path: Path) -> None:
    learner = Learner(lessons(), PLAN, teachers)
    learner.run(lambda _: None, lambda _: None)
    first, last = learner.progress.history[0], learner.progress.history[-1]
    assert last["teacher"] < first["teacher"] / 2
    assert last["hints"] < first["hints"]

    pictures = np.stack([picture[:32, :32] for picture, _ in conv_models.pictures(30, seed=2)])
    with torch.no_grad():
        mine = learner.kept(normalise(pictures)).argmax(dim=1).numpy()
    wanted = teachers.ask(pictures).scores.argmax(axis=1)
    assert (mine == wanted).mean() > 0.8
    assert len(set(wanted)) == 3

    learner.save(tmp_path / "state.pt")
    again = Learner(lessons(), PLAN, teachers)
    again.load(tmp_path / "state.pt")
    assert again.progress == learner.progress
