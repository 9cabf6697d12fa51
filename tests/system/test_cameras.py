"""Cameras that freeze, die, come back and lie, read by real threads; and a process that ends although a read hangs."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from camera_servers import PASSWORD, USER, free_port, http_camera, rtsp_camera

from agent.camera import reader as reader_page
from agent.camera.mailboxes import Mailboxes
from agent.camera.reader import CameraReader, stop_all
from agent.camera.sources import open_source
from agent.config import Camera
from agent.host.clock import SystemClock

ROOT = Path(__file__).parents[2]
CLOCK = SystemClock()


class Changes(logging.Handler):
    """Lets a test wait for a log line, which there is one of per change of a camera's state."""

    def __init__(self):
        super().__init__()
        self.lines = []
        self._came = threading.Condition()

    def emit(self, record):
        with self._came:
            self.lines.append(record.getMessage())
            self._came.notify_all()

    def wait_for(self, text, seen=0, timeout_s=10.0):
        """Wait for a line with this text after the first `seen` lines; give how many lines there are then."""
        with self._came:
            came = self._came.wait_for(lambda: any(text in line for line in self.lines[seen:]), timeout_s)
            assert came, f"no {text!r} in {self.lines[seen:]}"
            return seen + 1 + next(i for i, line in enumerate(self.lines[seen:]) if text in line)


@pytest.fixture
def changes():
    log, handler = logging.getLogger("agent.camera"), Changes()
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Reconnect in a tenth of the time: the waits themselves are tested with a clock of the test's own."""
    monkeypatch.setattr(reader_page, "BACKOFF_BASE_S", 0.1)
    monkeypatch.setattr(reader_page, "BACKOFF_CEILING_S", 0.4)


class Inbox(Mailboxes):
    """Mailboxes where the pipeline would be."""

    def offer(self, frame):
        self.put(frame)


@contextmanager
def reading(*cameras):
    """Read these cameras until the block ends; every thread must have ended by then, without a bug."""
    boxes = Inbox([c.name for c in cameras])
    readers = [
        CameraReader(c, lambda c=c: open_source(c, CLOCK), boxes, CLOCK, random.Random(number))
        for number, c in enumerate(cameras)
    ]
    for reader in readers:
        reader.start()
    try:
        yield (boxes, *readers)
    finally:
        began_s = time.monotonic()
        stopped = stop_all(readers, 2.0)
        took_s = time.monotonic() - began_s
        boxes.close()
    assert stopped
    assert took_s < 2.0
    assert [r.crashed for r in readers] == [None] * len(readers)


def take(boxes, count, timeout_s=5.0):
    frames = []
    while len(frames) < count:
        frame = boxes.take(timeout_s)
        assert frame is not None, f"only {len(frames)} of {count} frames came"
        frames.append(frame)
        boxes.done(frame)
    return frames


def network_camera(name, url, **settings):
    quick = {"open_timeout": "1 s", "stall_timeout": "600 ms", "rate_fps": 50}
    return Camera(name=name, url=url, **{**quick, **settings})


@pytest.mark.parametrize(
    ("make", "url"), [(http_camera, "http://127.0.0.1:{}/mjpeg"), (rtsp_camera, "rtsp://127.0.0.1:{}/stream")]
)
def test_a_camera_that_freezes_dies_and_comes_back_is_followed_all_the_way(make, url, changes):
    port = free_port()
    with reading(network_camera("door", url.format(port))) as (boxes, reader):
        seen = changes.wait_for("failed [camera-refused]")
        assert reader.state().phase == "failed"
        with make(port) as server:
            seen = changes.wait_for("streaming, 320 x 240", seen)
            take(boxes, 3)
            assert reader.state().phase == "streaming"
            server.behaviour.frozen.set()
            seen = changes.wait_for("stalled [camera-stalled]", seen)
            state = reader.state()
            assert (state.phase, state.code) == ("stalled", "camera-stalled")
            assert state.last_frame_age_s > 0.5
            server.behaviour.frozen.clear()
            seen = changes.wait_for("streaming", seen)
            server.die()
        seen = changes.wait_for("failed [camera-", seen)
        seen = changes.wait_for("failed [camera-refused]", seen - 1)
        with make(port):
            changes.wait_for("streaming", seen)
            frames = take(boxes, 3)
        assert reader.state().reconnects >= 2
        assert reader.state().hung == 0
        numbers = [f.number for f in frames]
        assert numbers == sorted(numbers), "frames are numbered on across reconnects"
    counts = boxes.counts()["door"]
    assert counts.put == counts.served + counts.displaced + counts.dropped + counts.waiting
    assert len(changes.lines) < 20, "a line per change, none per frame or try"


def test_a_wrong_password_is_told_and_mended_without_a_restart(changes, tmp_path):
    password = tmp_path / "password"
    password.write_text("hunter2")
    with rtsp_camera() as server:
        server.behaviour.auth = "digest"
        url = f"rtsp://127.0.0.1:{server.port}/stream"
        with reading(network_camera("door", url, username=USER, password_file=password)) as (boxes, reader):
            seen = changes.wait_for("failed [camera-auth]")
            assert "password_file" in reader.state().hint
            password.write_text(PASSWORD)
            changes.wait_for("streaming", seen)
            take(boxes, 1)
    assert not any("hunter2" in line or PASSWORD in line for line in changes.lines)


def test_a_fast_stream_is_read_at_the_configured_rate_and_never_old(changes):
    with (
        http_camera() as server,
        reading(network_camera("door", f"http://127.0.0.1:{server.port}/mjpeg", rate_fps=10)) as (boxes, reader),
    ):
        changes.wait_for("streaming")
        frames = take(boxes, 12)
        # The 12 frames of one camera at 50 frames a second, 10 a second taken, are 11 intervals of 100 ms apart.
        span_s = (frames[-1].captured.boot_ns - frames[0].captured.boot_ns) / 1e9
        assert 0.9 < span_s < 1.8
        assert 5 < reader.state().rate_fps < 12


def test_cameras_of_every_kind_are_read_side_by_side(changes, tmp_path):
    from camera_servers import jpeg

    (tmp_path / "one.jpg").write_bytes(jpeg(1))
    with http_camera() as web, rtsp_camera() as stream:
        cameras = [
            network_camera("mjpeg", f"http://127.0.0.1:{web.port}/mjpeg"),
            network_camera("snapshot", f"http://127.0.0.1:{web.port}/snapshot.jpg"),
            network_camera("rtsp", f"rtsp://127.0.0.1:{stream.port}/stream"),
            network_camera("folder", str(tmp_path), loop=True),
            network_camera("synthetic", "synthetic:5?width=320&height=180"),
            network_camera("away", f"rtsp://127.0.0.1:{free_port()}/stream"),
        ]
        with reading(*cameras) as (boxes, *readers):
            for camera in cameras[:-1]:
                changes.wait_for(f"camera {camera.name}: streaming")
            frames = take(boxes, 60)
            phases = {r.state().name: r.state().phase for r in readers}
    assert {f.camera for f in frames} == {"mjpeg", "snapshot", "rtsp", "folder", "synthetic"}
    assert phases == {**{c.name: "streaming" for c in cameras[:-1]}, "away": "failed"}
    for name in {f.camera for f in frames}:
        numbers = [f.number for f in frames if f.camera == name]
        assert numbers == sorted(set(numbers))


def test_a_folder_ends_and_with_it_the_work(changes, tmp_path):
    from camera_servers import jpeg

    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    with reading(Camera(name="shelf", url=str(tmp_path), rate_fps=20)) as (boxes, reader):
        changes.wait_for("ended")
        assert reader.state().phase == "ended"
        while not boxes.finished:
            take(boxes, 1)
        assert boxes.take(5) is None
    assert boxes.counts()["shelf"].put == 3


HUNG = """
import random, threading
from agent.app import Stop
from agent.camera.mailboxes import Mailboxes
from agent.camera.reader import CameraReader
from agent.config import Camera
from agent.host.clock import SystemClock

class Hanging:
    live = True
    def open(self): pass
    def read(self):
        print("hanging", flush=True)
        threading.Event().wait()
    def close(self): pass

clock, boxes = SystemClock(), Mailboxes(["door"])
reader = CameraReader(Camera(name="door", url="rtsp://h/"), Hanging, boxes, clock, random.Random(1))
stop = Stop()
stop.listen()
reader.start()
stop.event.wait()
print("stopped in time:", reader.stop(0.2), flush=True)
"""


def test_a_read_that_hangs_does_not_keep_the_process_from_ending():
    with subprocess.Popen([sys.executable, "-c", HUNG], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "hanging\n"
            os.kill(process.pid, signal.SIGTERM)
            rest, _ = process.communicate(timeout=10)
        finally:
            process.kill()
    assert rest == "stopped in time: False\n"
    assert process.returncode == 0
