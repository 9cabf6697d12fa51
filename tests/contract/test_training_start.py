"""A training that starts from somebody's network. Needs torch: `scripts/setup --dev --train`."""

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import conv_models
import numpy as np
import onnxruntime as ort
import pytest
import start_models

torch = pytest.importorskip("torch", reason="training is an extra")

from training import finishing, learn, start  # noqa: E402
from training.bundling import Measured  # noqa: E402
from training.errors import TrainError  # noqa: E402
from training.export import onnx_of  # noqa: E402
from training.learn import Learner, Lessons, Plan  # noqa: E402
from training.network import ShelfNet  # noqa: E402
from training.onnx_graph import Looks  # noqa: E402
from training.start import Backbone  # noqa: E402

LOOKS = Looks((120.0, 115.0, 105.0), (58.0, 57.0, 60.0), "rgb")
PLAN = Plan(epochs=6, seconds=None, size_px=32, seed=4, bfloat16=False, batch=12, sides=((1.0, 1.0),), rate=2e-2)
PYTHON = """
import torch
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Dropout(0.1), nn.Linear(8, 1000))

def extractor():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())

def nothing():
    return {}
"""


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with somebody.onnx and the module somebody_net."""
    (tmp_path / "somebody.onnx").write_bytes(start_models.classifier())
    (tmp_path / "somebody_net.py").write_text(PYTHON)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "somebody_net", raising=False)
    return tmp_path


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


def lessons() -> Lessons:
    pictures = conv_models.pictures(60, seed=1)
    labels = np.array([conv_models.LABELS.index(label) for _, label in pictures])
    return Lessons([picture for picture, _ in pictures], labels, np.empty((0, 1, 1, 3), np.uint8), labels[:0], 0, 3)


def backbones(folder: Path) -> list[Backbone]:
    return [
        Backbone(str(folder / "somebody.onnx"), LOOKS),
        Backbone("somebody_net:network", LOOKS),
        Backbone("somebody_net:extractor", LOOKS),
    ]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("which", [0, 1, 2])
def test_it_learns_goes_on_where_it_stopped_and_is_exported_as_it_is(named: Path, tmp_path: Path, which: int) -> None:
    backbone = backbones(named)[which]
    learner = start.learner(lessons(), PLAN, None, backbone)
    losses: list[float] = []
    learner.run(lambda now: losses.append(now.progress.history[-1]["labels"]), lambda _: None)
    assert losses[-1] < losses[0]

    learner.save(tmp_path / "state.pt")
    again = start.learner(lessons(), PLAN, None, backbone)
    again.load(tmp_path / "state.pt")
    assert all(torch.equal(a, b) for a, b in zip(again.kept.state_dict().values(),
                                                  learner.kept.state_dict().values(), strict=True))  # fmt: skip

    pictures = np.stack([picture[:32, :32] for picture, _ in conv_models.pictures(4, seed=2)])
    session = ort.InferenceSession(onnx_of(again.kept, 32), providers=["CPUExecutionProvider"])
    said = session.run(None, {"picture": pictures})[0]
    with torch.no_grad():
        mine = torch.softmax(again.kept(learn.normalise(pictures)), dim=1).numpy()
    assert np.abs(said - mine).max() < 1e-5


@pytest.mark.usefixtures("one_thread")
def test_weights_that_came_with_it_learn_slower_than_the_new_head(named: Path) -> None:
    learner = start.learner(lessons(), PLAN, None, backbones(named)[0])
    given = {id(weights) for weights in learner.network.given()}
    assert len(given) == 3  # the convolution's, the normalisation's scale and bias; the old head's are gone
    assert {id(weights) for weights in learner.network.parameters()} - given == {
        id(learner.network.head.weight), id(learner.network.head.bias)}  # fmt: skip


@pytest.mark.usefixtures("one_thread")
def test_the_network_of_our_own_still_keeps_its_state_as_before(tmp_path: Path) -> None:
    learner = Learner(lessons(), PLAN, None)
    learner.save(tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert set(state) == {"network", "kept", "hints", "optimiser", "torch", "cuda", "progress", "views"}
    assert [len(group["params"]) for group in state["optimiser"]["param_groups"]] == [23, 45]
    assert "stages.3.1.second.norm.weight" in state["network"]
    assert not ShelfNet(3).given()


@pytest.mark.usefixtures("one_thread")
def test_the_card_counts_the_views_of_every_training_that_its_weights_went_through(tmp_path: Path) -> None:
    first, second, third = (Learner(lessons(), PLAN, None) for _ in range(3))
    first.progress.step = 5
    first.save(tmp_path / "first.pt")
    second.start_from(tmp_path / "first.pt")
    second.progress.step = 2
    assert (second.earlier_views, second.views) == (60, 84)
    second.save(tmp_path / "second.pt")
    third.start_from(tmp_path / "second.pt")
    assert third.views == 84
    state = torch.load(tmp_path / "first.pt", weights_only=True)
    del state["views"]  # as versions before this one kept it
    torch.save(state, tmp_path / "old.pt")
    third.start_from(tmp_path / "old.pt")
    assert third.earlier_views == 60


@pytest.mark.usefixtures("one_thread")
def test_of_several_trainings_the_mean_is_taken(tmp_path: Path) -> None:
    paths = [tmp_path / "first.pt", tmp_path / "second.pt"]
    learners = [Learner(lessons(), replace(PLAN, seed=seed), None) for seed in (1, 2)]
    for learner, path, steps in zip(learners, paths, (5, 3), strict=True):
        learner.progress.step = steps
        learner.save(path)
    first, second = (learner.kept.state_dict() for learner in learners)
    third = Learner(lessons(), replace(PLAN, epochs=0), None)
    assert third.start_from(paths[0], paths[1], paths[1]) == []
    assert third.earlier_views == 60
    third.run(lambda _: pytest.fail("an epoch was learnt"), lambda _: pytest.fail("a step was learnt"))
    for name, value in third.kept.state_dict().items():
        if value.dtype.is_floating_point:
            assert torch.allclose(value, (first[name] + 2 * second[name]) / 3, atol=1e-6), name
    assert all(
        torch.equal(one, other) for one, other in zip(third.kept.parameters(), third.network.parameters(), strict=True)
    )


def test_what_cannot_be_started_from_is_refused_with_a_cure(named: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.onnx").write_bytes(start_models.classifier(operator="Softsign"))
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(LOOKS))
    torch.save({"kept": Path("anything")}, tmp_path / "objects.pt")
    own = Learner(lessons(), PLAN, None)
    wrong = [
        (lambda: start.named(["weights.pth"], LOOKS), "start-kind"),
        (lambda: start.named(["state.pt", "net.onnx"], LOOKS), "start-several"),
        (lambda: start.named(["one.onnx", "two.onnx"], LOOKS), "start-several"),
        (lambda: start.looks_of([0.5], [0.5], "rgb"), "start-scale"),
        (lambda: start.looks_of([1.0, 2.0], None, "rgb"), "start-scale"),
        (lambda: start.opened(Backbone(str(tmp_path / "odd.onnx"), LOOKS), 32, 1), "start-operator"),
        (lambda: start.opened(Backbone("somebody_net:absent", LOOKS), 32, 1), "start-function"),
        (lambda: start.opened(Backbone("somebody_net:nothing", LOOKS), 32, 1), "start-function"),
        (lambda: own.start_from(tmp_path / "pickled.pt"), "start-unsafe"),
        (lambda: own.start_from(tmp_path / "objects.pt"), "start-unsafe"),
    ]
    for ask, code in wrong:
        with pytest.raises(TrainError) as caught:
            ask()
        assert (caught.value.code, bool(caught.value.hint)) == (code, True)


def test_int8_is_left_out_where_it_has_forgotten_what_it_knew_and_not_for_a_photo_or_two() -> None:
    truths = np.arange(100) % 4
    right = np.eye(4)[truths]

    def wrong(count: int) -> Measured:
        return Measured(np.concatenate([np.roll(right[:count], 1, axis=1), right[count:]]), truths)

    assert finishing.lost_too_much(wrong(10), wrong(20))
    assert not finishing.lost_too_much(wrong(10), wrong(12))
    assert not finishing.lost_too_much(wrong(10), wrong(5))


def test_the_card_says_whose_weights_they_were(named: Path) -> None:
    backbone = backbones(named)[0]
    assert "somebody.onnx (SHA-256" in start.licence(backbone)
    assert "random weights" not in start.origin(backbone)
    assert start.origin(None) == "random weights"
