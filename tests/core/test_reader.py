"""The reader with a scripted source and a clock that the test owns: no thread, no network, no waiting."""

import logging
import queue
import random
import threading

import numpy as np
import pytest

from agent.camera.reader import MAX_HUNG, CameraReader, stop_all
from agent.config import Camera
from agent.errors import Rejected, Retryable
from agent.ports import Shot, Stamp

PICTURE = np.zeros((90, 160, 3), np.uint8)
AWAY = Retryable("camera-refused", "nothing listens", "switch it on")
WRONG = Rejected("camera-auth", "it refuses the login", "correct the password")


class FakeClock:
    """Stands still but for the waits; remembers them. An event set by hand ends a wait at once."""

    def __init__(self):
        self.boot_ns = 1_000_000_000_000
        self.waits_s = []

    def now(self):
        return Stamp(self.boot_ns + 10**18, self.boot_ns)

    def trust(self):
        return "synced"

    def wait(self, event, timeout_s):
        if not event.is_set():
            self.waits_s.append(timeout_s)
            self.pass_s(timeout_s)
        return event.is_set()

    def pass_s(self, seconds):
        self.boot_ns += round(seconds * 1e9)


class Inbox:
    """Stands in for the pipeline: keeps all frames offered, and which cameras have ended."""

    def __init__(self, names):
        self.frames = []
        self.ended = set()

    def offer(self, frame):
        self.frames.append(frame)

    def end(self, camera):
        self.ended.add(camera)


class Script:
    """A source that plays steps: an error is raised, a callable called, True is a picture, None the end."""

    live = True

    def __init__(self, opening, reading):
        self._opening = opening
        self._reading = reading
        self.closed = 0

    def open(self):
        if isinstance(self._opening, Exception):
            raise self._opening

    def read(self):
        step = self._reading.pop(0)
        step = step() if callable(step) else step
        if isinstance(step, Exception):
            raise step
        return None if step is None else Shot(PICTURE, "Banana")

    def close(self):
        self.closed += 1


class Recorded(Script):
    live = False


class Streamed(Script):
    """Sends a picture each 40 ms, as a camera of 25 frames a second does."""

    def __init__(self, clock, frames, reader):
        super().__init__(None, [])
        self._clock, self._frames, self._reader = clock, frames, reader
        self.retrieved = 0

    def grab(self):
        self._clock.pass_s(0.04)
        self._frames -= 1
        if self._frames < 0:
            self._reader[0].ask_to_stop()

    def retrieve(self):
        self._clock.pass_s(0.005)
        self.retrieved += 1
        return Shot(PICTURE)


def make(sources, **settings):
    """Give a reader over these sources (the last one stops it) with its clock and mailboxes."""
    camera = Camera(name="door", url="rtsp://10.0.0.9/", **settings)
    clock, boxes = FakeClock(), Inbox(["door"])
    left = list(sources)
    holder = []

    def next_source():
        if len(left) == 1:
            holder[0].ask_to_stop()
        return left.pop(0)

    holder.append(CameraReader(camera, next_source, boxes, clock, random.Random(5)))
    return holder[0], clock, boxes


STOP = Script(None, [])


def test_a_recording_is_paced_stamped_numbered_and_ends():
    source = Recorded(None, [True, True, True, None])
    reader, clock, boxes = make([source, STOP], rate_fps=4.0)
    frames = boxes.frames
    began_ns = clock.boot_ns
    reader.run()
    assert [(f.number, f.captured.boot_ns - began_ns) for f in frames] == [(1, 0), (2, 250_000_000), (3, 500_000_000)]
    assert {f.truth for f in frames} == {"Banana"}
    state = reader.state()
    assert (state.phase, state.captured, state.width, state.height) == ("ended", 3, 160, 90)
    assert boxes.ended == {"door"}
    assert source.closed == 1


def test_a_stream_is_drained_and_only_the_frames_that_are_due_are_decoded():
    holder = []
    clock, boxes = FakeClock(), Inbox(["door"])
    source = Streamed(clock, 250, holder)
    camera = Camera(name="door", url="rtsp://10.0.0.9/", rate_fps=5.0)
    holder.append(CameraReader(camera, lambda: source, boxes, clock, random.Random(1)))
    holder[0].run()
    assert 45 <= source.retrieved <= 53
    assert 4.5 < holder[0].state().rate_fps < 5.5
    newest = boxes.frames[-1]
    assert newest.captured.boot_ns % 1_000_000 == 0


def test_the_stamp_is_taken_at_the_grab_not_after_the_decoding():
    holder = []
    clock, boxes = FakeClock(), Inbox(["door"])
    source = Streamed(clock, 1, holder)
    began_ns = clock.boot_ns
    camera = Camera(name="door", url="rtsp://10.0.0.9/", rate_fps=25.0)
    holder.append(CameraReader(camera, lambda: source, boxes, clock, random.Random(1)))
    holder[0].run()
    assert boxes.frames[-1].captured.boot_ns - began_ns == 85_000_000  # 40 + 5 (first decoded) + 40


def test_a_camera_that_is_away_is_tried_again_with_growing_waits():
    reader, clock, _ = make([Script(AWAY, []) for _ in range(12)] + [STOP])
    reader.run()
    windows = [min(60.0, 2.0**i) for i in range(12)]
    assert len(clock.waits_s) == 12
    assert all(0 <= wait <= window for wait, window in zip(clock.waits_s, windows, strict=True))
    assert max(clock.waits_s) > 10
    state = reader.state()
    assert (state.phase, state.code, state.message, state.hint) == (
        "failed", "camera-refused", "nothing listens", "switch it on",
    )  # fmt: skip


def test_what_a_person_must_mend_is_tried_at_the_ceiling_for_ever():
    reader, clock, _ = make([Script(WRONG, []) for _ in range(5)] + [STOP])
    reader.run()
    assert len(clock.waits_s) == 5
    assert min(clock.waits_s) >= 30


def test_a_camera_that_streamed_well_is_reopened_soon_and_one_that_flaps_is_not():
    flapping = [Script(None, [True, AWAY]) for _ in range(8)]
    reader, clock, _ = make([*flapping, STOP], rate_fps=1.0)
    reader.run()
    assert max(clock.waits_s) > 5, "one frame does not make a good camera"

    steady = [Script(None, [True] * 12 + [AWAY]) for _ in range(8)]
    reader, clock, _ = make([*steady, STOP], rate_fps=1.0)
    reader.run()
    assert max(clock.waits_s) <= 1.0
    assert reader.state().reconnects == 8


def test_every_source_is_closed_also_after_a_failed_open():
    sources = [Script(AWAY, []), Script(None, [AWAY]), Recorded(None, [True, None])]
    reader, _, _ = make([*sources, STOP])
    reader.run()
    assert [s.closed for s in sources] == [1, 1, 1]


def test_silence_is_a_stall_seen_from_another_thread_while_the_read_hangs():
    seen = []

    def hang():
        for _ in range(4):
            clock.pass_s(2.0)
            seen.append((reader.state().phase, reader.state().code))
        return True

    def look():
        seen.append((reader.state().phase, reader.state().code))
        return

    reader, clock, _ = make([Script(None, [True, hang, look]), STOP], stall_timeout="5 s", rate_fps=2.0)
    reader.run()
    assert seen[:4] == [("streaming", None), ("streaming", None), ("stalled", "camera-stalled"),
                        ("stalled", "camera-stalled")]  # fmt: skip
    assert seen[4] == ("streaming", None)


def test_a_camera_that_opens_and_never_sends_is_stalled():
    states = []

    def silent():
        clock.pass_s(6.0)
        states.append(reader.state())
        return AWAY

    reader, clock, _ = make([Script(None, [silent]), STOP])
    reader.run()
    assert (states[0].phase, states[0].code, states[0].last_frame_age_s) == ("stalled", "camera-stalled", None)


def test_a_camera_asked_for_a_picture_a_minute_is_not_stalled_between():
    phases = []

    def look():
        phases.append(reader.state().phase)
        return True

    reader, _, _ = make([Script(None, [True, look, look, None]), STOP], rate_fps=1 / 60)
    reader.run()
    assert phases == ["streaming", "streaming"]


def test_the_state_does_not_flicker_while_a_dead_camera_is_tried_again():
    phases = []

    class Watched(Script):
        def open(self):
            phases.append(reader.state().phase)
            super().open()

    reader, _, _ = make([Watched(AWAY, []) for _ in range(4)] + [STOP])
    reader.run()
    assert phases == ["opening", "failed", "failed", "failed"]


def test_one_log_line_per_change_of_state(caplog):
    caplog.set_level(logging.INFO)
    sources = [Script(AWAY, []), Script(AWAY, []), Script(None, [True] * 50 + [AWAY]), Script(WRONG, []),
               Recorded(None, [True, None])]  # fmt: skip
    reader, _, _ = make([*sources, STOP])
    reader.run()
    lines = [r.getMessage() for r in caplog.records if "camera door" in r.getMessage()]
    assert [line.split(": ")[1].split(",")[0].split(":")[0] for line in lines] == [
        "failed [camera-refused]", "streaming", "failed [camera-refused]", "failed [camera-auth]", "streaming", "ended",
    ]  # fmt: skip


def test_a_source_that_cannot_even_be_made_is_an_error_of_the_camera():
    boxes, clock = Inbox(["door"]), FakeClock()
    tries = []

    def refuse():
        tries.append(1)
        if len(tries) == 3:
            reader.ask_to_stop()
        raise Rejected("camera-address", "no address", "correct it")

    reader = CameraReader(Camera(name="door", url="rtsp:///"), refuse, boxes, clock, random.Random(1))
    reader.run()
    assert reader.state().code == "camera-address"


class Hanging(Script):
    """Hangs in read, as a native decoder does, until the test lets it go."""

    def __init__(self, release):
        super().__init__(None, [])
        self.entered = threading.Event()
        self._release = release

    def read(self):
        self.entered.set()
        self._release.wait(20)
        return Shot(PICTURE, "late")


class StandingClock(FakeClock):
    """For real threads: waits really end only when the event is set; time passes only by hand."""

    def wait(self, event, timeout_s):
        return event.wait(20) if timeout_s > 0 else event.is_set()


def test_reads_that_hang_are_given_up_replaced_bounded_and_their_late_frames_thrown_away():
    clock, boxes, release = StandingClock(), Inbox(["door"]), threading.Event()
    made, fresh = [], queue.SimpleQueue()

    def make_source():
        made.append(Hanging(release))
        fresh.put(made[-1])
        return made[-1]

    camera = Camera(name="door", url="rtsp://10.0.0.9/", stall_timeout="1 s")
    reader = CameraReader(camera, make_source, boxes, clock, random.Random(1))
    reader.start()
    for count in range(1, MAX_HUNG + 1):
        assert fresh.get(timeout=5).entered.wait(5)
        clock.pass_s(4.0)
        reader.check()
        assert reader.state().hung == count
        assert reader.state().code == "camera-hung"
    clock.pass_s(100.0)
    reader.check()
    assert len(made) == MAX_HUNG, "no more are started while these hang"
    release.set()
    for thread in list(reader._hung):
        thread.join(5)
    assert not boxes.frames, "late frames are thrown away"
    assert [s.closed for s in made] == [1, 1, 1]
    reader.check()
    assert fresh.get(timeout=5).entered.wait(5), "a new one is started when there is room"
    assert reader.state().hung == 0
    reader.ask_to_stop()
    assert reader.join(5)


def test_stopping_does_not_wait_for_a_read_that_hangs():
    clock, boxes, release = StandingClock(), Inbox(["door"]), threading.Event()
    source = Hanging(release)
    reader = CameraReader(Camera(name="door", url="rtsp://10.0.0.9/"), lambda: source, boxes, clock, random.Random(1))
    reader.start()
    assert source.entered.wait(5)
    assert not reader.stop(0.05)
    release.set()
    assert stop_all([reader])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_reading_thread_is_seen_by_the_owner():
    boxes = Inbox(["door"])
    bug = ZeroDivisionError("a bug")
    camera = Camera(name="door", url="rtsp://10.0.0.9/")
    reader = CameraReader(camera, lambda: Script(None, [bug]), boxes, StandingClock(), random.Random(1))
    reader.start()
    assert reader._attempt.thread is not None
    reader._attempt.thread.join(5)
    assert reader.crashed is bug
    assert reader.state().code == "camera-crashed"
    assert reader.stop()
