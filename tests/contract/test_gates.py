"""The gates on real bad models: each is refused with its own code and numbers, and harms its own process alone."""

import os
import threading
from pathlib import Path

import bad_bundles
import pytest
import toy_bundles

from agent.core.gates import Terms
from agent.proof.bench import Bench, Refusal, Stopped, Trying
from models import Bundle
from models.setup import Setup

TERMS = Terms(deadline_ms=250.0, memory_bytes=512 << 20, compile_s=20.0, golden_s=20.0, answer_s=10.0)


def bench(bundle: Bundle, terms: Terms = TERMS, running: Bundle | None = None) -> Bench:
    trying = Trying(
        bundle.folder,
        running.folder if running is not None else None,
        Setup(runtime="openvino"),
        1,
        bundle.folder.parent / "compiled",
        bundle.manifest.limits.memory_bytes,
    )
    return Bench(trying, terms, threading.Event())


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def refusal(bundle: Bundle, terms: Terms = TERMS) -> Refusal:
    tried = bench(bundle, terms)
    try:
        with pytest.raises(Refusal) as error:
            for gate in (tried.compiled, tried.golden, tried.fast):
                gate()
    finally:
        tried.close()
    assert gone(tried.pid)
    return error.value


def test_a_good_model_passes_and_answers_pictures(tmp_path: Path) -> None:
    good = bad_bundles.with_golden(tmp_path / "good")
    tried = bench(good, running=toy_bundles.bundle(tmp_path / "running"))
    try:
        tried.compiled()
        tried.golden()
        tried.fast()
        seen = tried.ask(toy_bundles.plain(250, 0, 0, width=1280, height=720))
    finally:
        tried.close()
    assert seen is not None
    assert seen.label == "blueish"
    assert seen.score > 0.99
    assert tried.numbers["golden_inputs"] == 1
    assert 0 < tried.numbers["p95_ms"] < tried.numbers["limit_p95_ms"]
    assert tried.numbers["running_p95_ms"] > 0
    assert 50e6 < tried.numbers["memory_bytes"] < tried.numbers["limit_memory_bytes"]
    assert list((tmp_path / "compiled").iterdir())


def test_the_memory_of_whoever_tries_a_model_is_not_held_against_it(tmp_path: Path) -> None:
    """getrusage(2) would tell of the parent's: vision is large itself."""
    ballast = bytearray(os.urandom(1 << 20)) * 768
    tried = bench(bad_bundles.with_golden(tmp_path / "good"))
    try:
        tried.compiled()
        tried.golden()
    finally:
        tried.close()
    assert tried.numbers["memory_bytes"] < 400e6 < len(ballast)


def test_permuted_labels_fail_the_golden_pictures(tmp_path: Path) -> None:
    permuted = bad_bundles.with_golden(tmp_path / "permuted", labels=("reddish", "blueish", "greenish"))
    error = refusal(permuted)
    assert error.code == "update-golden"
    assert "red.png" in str(error)


def test_a_model_that_crashes_is_a_verdict(tmp_path: Path) -> None:
    error = refusal(bad_bundles.crashing(tmp_path / "crashing"))
    assert error.code == "update-crashed"
    assert "signal 11" in str(error)


def test_a_model_that_never_comes_back_is_a_verdict(tmp_path: Path) -> None:
    hanging = bad_bundles.looping(tmp_path / "hanging", bad_bundles.FOR_EVER)
    error = refusal(hanging, Terms(compile_s=20.0, golden_s=1.0))
    assert error.code == "update-hung"


def test_a_model_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    error = refusal(bad_bundles.hungry(tmp_path / "hungry"))
    assert error.code == "update-memory"
    assert error.numbers["memory_bytes"] > error.numbers["limit_memory_bytes"] == 512 << 20


def test_a_slow_model_is_measured(tmp_path: Path) -> None:
    slow = bad_bundles.looping(tmp_path / "slow", 1000)
    error = refusal(slow, Terms(deadline_ms=10.0, compile_s=20.0, golden_s=20.0))
    assert error.code == "update-slow"
    assert error.numbers["p95_ms"] > error.numbers["limit_p95_ms"] == 5.0


def test_a_file_that_is_no_model_does_not_compile(tmp_path: Path) -> None:
    folder = toy_bundles.bundle(tmp_path / "none").folder
    (folder / "model.onnx").write_bytes(b"\x08\x09" + os.urandom(64))
    from models import pack

    error = refusal(pack.refresh(folder))
    assert error.code in ("update-compile", "update-bundle")


def test_a_model_that_hangs_on_a_live_frame_is_ended(tmp_path: Path) -> None:
    import hanging_bundle

    folder = hanging_bundle.make(tmp_path / "red-hangs")
    tried = bench(Bundle.load(folder), Terms(answer_s=1.0))
    try:
        for gate in (tried.compiled, tried.golden, tried.fast):
            gate()
        assert tried.ask(toy_bundles.plain(250, 0, 0)) is not None
        with pytest.raises(Refusal) as error:
            tried.ask(toy_bundles.plain(0, 0, 250))
    finally:
        tried.close()
    assert error.value.code == "update-hung"
    assert gone(tried.pid)


def test_the_stop_ends_a_gate_at_once_and_decides_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    bundle = toy_bundles.bundle(tmp_path / "toy")
    tried = Bench(Trying(bundle.folder, None, Setup(runtime="openvino"), 1, tmp_path / "c"), TERMS, stop)
    stop.set()
    with pytest.raises(Stopped):
        tried.compiled()
    tried.close()
    assert gone(tried.pid)
