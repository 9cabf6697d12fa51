"""Which setups are tried, which one is taken from their figures, and when the figures do not hold any more."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.setups import (
    FAIR_ROUNDS,
    Agreement,
    Figures,
    Key,
    Possible,
    candidates,
    decide,
    faults,
    is_faster,
    is_hopeless,
    stale,
)
from models.setup import Setup

BOTH = {"openvino": ("fp32", "int8"), "onnxruntime": ("fp32", "int8")}
USUAL = Setup("openvino", "cpu", "fp32", 2, "graph")
ONE_STREAM = dataclasses.replace(USUAL, streams=1)
INT8 = dataclasses.replace(USUAL, precision="int8")
ONNX = dataclasses.replace(USUAL, runtime="onnxruntime")
ALL_SAME = Agreement(6, 6, 0.001)


def figures(setup: Setup, *rounds_fps: float, golden: Agreement | None = ALL_SAME, **more: object) -> Figures:
    return Figures(setup, rounds_fps, golden=golden, **more)  # type: ignore[arg-type]


def test_what_is_used_without_a_choice_comes_first_and_everything_possible_follows() -> None:
    found = candidates(Possible(BOTH, workers=4, cores=2), Setup())
    assert found[0] == USUAL
    assert len(found) == len(set(found)) == 8
    assert {(s.runtime, s.precision, s.streams) for s in found} == {
        (r, p, s) for r in ("openvino", "onnxruntime") for p in ("fp32", "int8") for s in (1, 2)
    }


def test_one_worker_has_one_stream_and_a_model_without_arithmetic_one_place_for_it() -> None:
    assert {setup.streams for setup in candidates(Possible(BOTH, workers=1, cores=8), Setup())} == {1}
    plain = candidates(Possible(BOTH, 1, 1), Setup())
    assert {setup.preprocess for setup in plain} == {"graph"}
    with_arithmetic = candidates(Possible(BOTH, 1, 1, arithmetic=True), Setup())
    assert {(s.runtime, s.preprocess) for s in with_arithmetic} == {
        ("openvino", "graph"), ("openvino", "host"), ("onnxruntime", "graph"), ("onnxruntime", "host")
    }  # fmt: skip


def test_what_is_configured_is_not_tried_otherwise() -> None:
    found = candidates(Possible(BOTH, 4, 4), Setup(runtime="onnxruntime", precision="int8", streams=3))
    assert [(s.runtime, s.precision, s.streams) for s in found] == [("onnxruntime", "int8", 3)]


def test_an_accelerator_is_tried_with_the_runtime_that_can_use_it() -> None:
    found = candidates(Possible(BOTH, 2, 2, devices={"openvino": ["gpu"], "onnxruntime": []}), Setup())
    assert {(s.runtime, s.device) for s in found if s.device != "cpu"} == {("openvino", "gpu")}


def test_the_clearly_faster_one_is_taken_and_the_reason_says_by_how_much() -> None:
    decision = decide([figures(USUAL, 100, 100, 100, 100), figures(INT8, 180, 178, 182, 180)])
    assert decision is not None
    assert decision.setup == INT8
    assert decision.reason == (
        "INT8 on OpenVINO: 1.8 times the frames of FP32 on OpenVINO, answers agree on 6 of 6 golden pictures"
    )


def test_on_a_busy_device_processor_time_decides() -> None:
    usual = figures(USUAL, 30, 200, 25, 160, rounds_cpu_ms=(8.0, 8.2, 7.9, 8.0))
    int8 = figures(INT8, 160, 20, 120, 30, rounds_cpu_ms=(4.0, 4.1, 4.0, 3.9))
    alike = figures(dataclasses.replace(INT8, streams=1), 1, 1, 1, 1, rounds_cpu_ms=(4.0, 4.1, 4.0, 3.9))
    assert decide([usual, int8], others=0.1).setup == USUAL  # type: ignore[union-attr]
    decision = decide([usual, int8, alike], others=0.6)
    assert decision is not None
    assert decision.setup == INT8
    assert decision.reason.endswith("; by processor time, for the device was busy")


@pytest.mark.parametrize("rival", [INT8, ONNX])
def test_what_is_alike_goes_to_the_safer(rival: Setup) -> None:
    decision = decide([figures(USUAL, 100, 100, 100, 100), figures(rival, 104, 103, 104, 104)])
    assert decision is not None
    assert decision.setup == USUAL
    assert "nothing is clearly faster" in decision.reason


def test_a_lead_that_comes_and_goes_is_no_lead() -> None:
    usual = figures(USUAL, 100, 100, 100, 100, 100)
    assert decide([usual, figures(INT8, 200, 200, 200, 90, 95)]).setup == USUAL  # type: ignore[union-attr]
    assert decide([usual, figures(INT8, 200, 200, 200, 200, 95)]).setup == INT8  # type: ignore[union-attr]


def test_of_streams_that_are_alike_the_fewer_are_taken_else_the_faster() -> None:
    usual = figures(USUAL, 100, 100, 100, 100)
    assert decide([usual, figures(ONE_STREAM, 98, 99, 98, 99)]).setup == ONE_STREAM  # type: ignore[union-attr]
    assert decide([usual, figures(ONE_STREAM, 90, 90, 90, 90)]).setup == USUAL  # type: ignore[union-attr]


def test_wrong_answers_are_no_speed() -> None:
    wrong = figures(INT8, 180, 180, 180, 180, golden=Agreement(4, 6, 0.7))
    wrong = dataclasses.replace(wrong, trouble=faults(wrong))
    decision = decide([figures(USUAL, 100, 100, 100, 100), wrong])
    assert decision is not None
    assert decision.setup == USUAL
    assert decision.reason == (
        "FP32 on OpenVINO: INT8 on OpenVINO is 1.8 times as fast, "
        "but it answers 2 of 6 golden pictures otherwise than FP32"
    )


@pytest.mark.parametrize(("right", "good"), [(90, True), (89, True), (88, False)])
def test_on_labelled_pictures_at_most_one_of_a_hundred_may_be_lost(right: int, good: bool) -> None:
    counted = Agreement(95, 100, 0.4, right=right, fp32_right=90)
    assert (faults(figures(INT8, 1.0, pictures=counted)) == "") is good


def test_where_nothing_runs_nothing_is_chosen_and_where_one_runs_it_is() -> None:
    broken = Figures(USUAL, trouble="cannot be loaded [model-load]")
    assert decide([broken]) is None
    decision = decide([broken, figures(ONNX, 50, 50, 50)])
    assert decision is not None
    assert decision.setup == ONNX
    assert "nothing else can run this model here" in decision.reason


def test_what_is_far_behind_is_measured_no_further_but_what_all_are_compared_with_is() -> None:
    usual, slow = figures(USUAL, *[30] * FAIR_ROUNDS), figures(ONNX, *[100] * FAIR_ROUNDS)
    assert not is_hopeless(usual, [usual, slow])
    assert is_hopeless(dataclasses.replace(usual, setup=INT8), [slow, usual])


@settings(deadline=None)
@given(st.lists(st.floats(1, 1000), min_size=1, max_size=12), st.lists(st.floats(1, 1000), min_size=1, max_size=12))
def test_two_cannot_both_be_the_faster(one: list[float], other: list[float]) -> None:
    a, b = figures(USUAL, *one), figures(INT8, *other)
    assert not (is_faster(a, b) and is_faster(b, a))


FPS = st.floats(1, 1000)


@settings(deadline=None)
@given(st.lists(st.tuples(FPS, FPS, FPS, FPS, st.sampled_from(["", "wrong"])), min_size=1, max_size=8))
def test_whatever_is_measured_no_setup_with_a_fault_is_taken(
    drawn: list[tuple[float, float, float, float, str]],
) -> None:
    setups = candidates(Possible(BOTH, 4, 2), Setup())
    measured = [figures(setup, *rounds, trouble=fault) for setup, (*rounds, fault) in zip(setups, drawn, strict=False)]
    decision = decide(measured)
    good = {each.setup for each in measured if not each.trouble}
    assert (decision is None) == (not good)
    assert decision is None or decision.setup in good


def test_figures_come_back_from_json_as_they_were() -> None:
    given_ = Figures(INT8, (1.5, 2.25), (3.125,), (2.5,), ALL_SAME, Agreement(3, 4, 0.5, 2, 3), "a fault")
    assert Figures.from_json(json.loads(json.dumps(given_.to_json()))) == given_


KEY = Key("d" * 64, "AMD EPYC #12345678", 2, "openvino 2026.4", 4, str(Setup()))


@pytest.mark.parametrize("change", [field.name for field in dataclasses.fields(Key)])
def test_a_choice_is_stale_when_anything_changed_that_it_was_made_for(change: str) -> None:
    other = dataclasses.replace(KEY, **{change: 3 if change in ("cores", "workers") else "other"})
    assert stale(KEY, KEY) == ()
    assert len(stale(KEY, other)) == 1
    assert Key.from_json(json.loads(json.dumps(KEY.to_json()))) == KEY
