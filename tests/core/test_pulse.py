"""When the watchdog may be petted, and the sentence for the service manager."""

from agent.core.pulse import Pulse, link_words, sync_sentence, vision_sentence


def test_threads_that_turn_without_a_frame_are_a_pause() -> None:
    pulse = Pulse()
    assert pulse.beats((1, 1), 0, waiting=False)
    assert pulse.beats((2, 5), 0, waiting=False)


def test_one_thread_that_hangs_is_enough_to_stop_it() -> None:
    pulse = Pulse()
    assert pulse.beats((10, 10), 7, waiting=True)
    assert not pulse.beats((10, 40), 30, waiting=True)
    assert not pulse.beats((10, 90), 80, waiting=False)
    assert pulse.beats((11, 91), 81, waiting=False), "it came back"


def test_frames_that_wait_while_nobody_answers_any_stop_it() -> None:
    pulse = Pulse()
    assert pulse.beats((1,), 5, waiting=True)
    assert not pulse.beats((2,), 5, waiting=True)
    assert not pulse.beats((3,), 5, waiting=True)
    assert pulse.beats((4,), 6, waiting=True)


def test_slow_frames_beat_when_they_are_done() -> None:
    pulse = Pulse()
    assert pulse.beats((1,), 0, waiting=False)
    assert not pulse.beats((1,), 0, waiting=False)
    assert pulse.beats((2,), 1, waiting=True)


def camera(phase: str = "streaming", code: str | None = None, rate_fps: float = 6.2) -> dict[str, object]:
    return {"name": "till-1", "phase": phase, "code": code, "rate_fps": rate_fps}


MODEL = {"name": "produce", "version": "1.4.0"}


def test_the_sentence_of_vision() -> None:
    said = vision_sentence([camera(), camera()], MODEL, 0, "broker ok")
    assert said == "12.4 fps · produce 1.4.0 · outbox 0 · broker ok"


def test_what_is_wrong_comes_first() -> None:
    ill = camera("failed", "camera-auth", 0.0)
    said = vision_sentence([ill], MODEL, 3, "sync does not run", "old configuration kept")
    assert said.startswith("old configuration kept · camera till-1: camera-auth · 0.0 fps")
    assert vision_sentence([camera("ended", None, 0.0)], MODEL, 0, "x").startswith("all sources have ended")


def test_words_for_the_connection_and_the_sentence_of_sync() -> None:
    assert link_words({}) == "broker not tried yet"
    assert link_words({"connected": True, "code": ""}) == "broker ok"
    assert link_words({"connected": True, "code": "cloud-away"}) == "broker cloud-away"
    assert link_words({"connected": False, "code": ""}) == "broker not connected"
    assert sync_sentence("broker ok", 12, 340) == "broker ok · outbox 12 · 340 delivered"
