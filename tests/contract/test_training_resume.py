"""A training that is stopped and gone on with. Needs torch: `scripts/setup --dev --train`."""

import signal
from dataclasses import replace
from pathlib import Path

import conv_models
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training is an extra")

from training import run  # noqa: E402
from training.errors import TrainError  # noqa: E402
from training.learn import Learner, Lessons, Plan  # noqa: E402

PLAN = Plan(epochs=2, seconds=None, size_px=32, seed=4, bfloat16=False, batch=12, sides=((1.0, 1.0),))


class _StoppedError(Exception):
    """Raised after a step, as a stop asks for it."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def learner(plan: Plan = PLAN) -> Learner:
    pictures = conv_models.pictures(36, seed=1)
    labels = np.array([conv_models.LABELS.index(label) for _, label in pictures])
    photos = [picture for picture, _ in pictures]
    return Learner(Lessons(photos, labels, np.empty((0, 1, 1, 3), np.uint8), labels[:0], 0, 3), plan, None)


def taught(stops: tuple[int, ...], state: Path) -> Learner:
    """A learner at its end, which was stopped after each of `stops` and each time begun anew from `state`."""
    for stop in (*stops, None):
        one = learner()
        if state.exists():
            one.load(state)

        def after_step(now: Learner, stop: int | None = stop) -> None:
            if now.progress.step == stop:
                now.save(state)
                raise _StoppedError

        try:
            one.run(lambda _: None, after_step)
        except _StoppedError:
            continue
    return one


def without_time(one: Learner) -> list[dict[str, float]]:
    return [{name: value for name, value in figures.items() if name != "seconds"} for figures in one.progress.history]


def test_stopped_anywhere_it_ends_with_the_same_weights_and_figures(tmp_path: Path) -> None:
    whole = learner()
    whole.run(lambda _: None, lambda _: None)
    stopped = taught((2, 3), tmp_path / "state.pt")
    assert whole.progress.step == stopped.progress.step == 6
    assert without_time(whole) == without_time(stopped)
    for name, value in whole.kept.state_dict().items():
        assert torch.equal(value, stopped.kept.state_dict()[name]), name


def test_pictures_that_grow_within_an_epoch_are_told_with_the_side_they_have() -> None:
    plan = replace(PLAN, epochs=3, size_px=64, sides=((0.5, 0.5), (1.0, 1.0)))
    one = learner(plan)
    seen: list[float] = []
    one.run(lambda _: None, lambda now: seen.extend(step["side"] for step in now.progress.losses[-1:]))
    assert set(seen) == {32, 64}
    assert [figures["side"] for figures in one.progress.history] == [32, 64, 64]


def test_a_state_that_was_kept_before_is_gone_on_from(tmp_path: Path) -> None:
    learner().save(tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["cuda"]
    torch.save(state | {"progress": (5, 60.0, [{"epoch": 1.0}])}, tmp_path / "old.pt")
    one = learner()
    one.load(tmp_path / "old.pt")
    assert (one.progress.step, one.progress.seconds, one.progress.losses) == (5, 60.0, [])


def test_a_damaged_state_is_refused_with_its_cure(tmp_path: Path) -> None:
    learner().save(tmp_path / "state.pt")
    content = (tmp_path / "state.pt").read_bytes()
    for broken in (b"", b"no state", content[: len(content) // 2]):
        (tmp_path / "state.pt").write_bytes(broken)
        with pytest.raises(TrainError, match="cannot be gone on from") as refused:
            learner().load(tmp_path / "state.pt")
        assert (refused.value.code, "--fresh" in refused.value.hint) == ("train-state", True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_means_now(number: signal.Signals) -> None:
    class _NowError(Exception):
        """What the program did with a signal before."""

    def now(_number: int, _frame: object) -> None:
        raise _NowError

    before = signal.signal(number, now)
    try:
        stop = run.Stop()
        with stop:
            signal.raise_signal(number)
            assert stop.asked
            with pytest.raises(_NowError):
                signal.raise_signal(number)
        assert signal.getsignal(number) is now
    finally:
        signal.signal(number, before)
