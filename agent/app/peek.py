"""A camera's pictures while vision does not run, from a process of their own: opening one may hang in a library.

`python -m agent.app.peek` is that process. It prints ``SIZE\\n`` and a sighting of that many bytes, again and again,
and at the end of it perhaps ``error CODE\\n`` with message and cure on lines of their own.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from agent import config
from agent.camera.showing import MOST_BYTES, Sighting, Wish, sighting_of
from agent.camera.sources import open_source
from agent.config import Camera, Config
from agent.core.pace import Pace
from agent.errors import Broken, Rejected, Retryable, ShelfwireError
from agent.host.clock import SystemClock
from agent.ports import Frame
from models import BundleError, Classifier, Worker, resolve

GRACE_S = 2.0
"""What the process may take to begin, over the camera's own limit."""

UNPACED = ("file", "folder", "snapshot", "synthetic")
"""Kinds that give a picture whenever they are asked; the others set their own pace."""

KINDS: dict[str, type[ShelfwireError]] = {"Retryable": Retryable, "Rejected": Rejected, "Broken": Broken}


class Peek:
    """Reads one camera through a process of its own; use it as a context."""

    def __init__(self, config_path: Path, camera: Camera, wanted: Wish, *, classify: bool) -> None:
        self._camera = camera
        self._limit_s = 2 * camera.open_timeout + camera.stall_timeout + GRACE_S + (10.0 if classify else 0.0)
        words = [str(config_path), camera.name, str(wanted.width), str(wanted.pace_s), str(int(classify))]
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "agent.app.peek", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip
        self._came: queue.SimpleQueue[Sighting | ShelfwireError | None] = queue.SimpleQueue()
        threading.Thread(target=self._pump, name="peek", daemon=True).start()

    def __enter__(self) -> "Peek":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(1.0)  # one that hangs in the kernel cannot be waited for

    def sightings(self) -> Iterator[Sighting]:
        """Give pictures until the camera ends. Raises what its source raises, `Retryable` (``camera-hung``)."""
        while True:
            try:
                came = self._came.get(timeout=self._limit_s)
            except queue.Empty:
                text = f"camera {self._camera.name}: opening and reading it did not come back in {self._limit_s:.0f} s"
                raise Retryable("camera-hung", text, "switch the camera off and on, then try again") from None
            if came is None:
                return
            if isinstance(came, ShelfwireError):
                raise came
            yield came

    def _pump(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as stream:
            for item in _parse(stream):
                self._came.put(item)
        if self._child.wait() != 0:
            text = f"camera {self._camera.name}: the process that opened it crashed"
            self._came.put(Broken("camera-crashed", text, "report it with a support bundle"))
        self._came.put(None)


def _parse(stream: IO[bytes]) -> Iterator[Sighting | ShelfwireError]:
    while line := stream.readline(200):
        words = line.decode("utf-8", "replace").split()
        if words[0] == "error":
            message, hint = (stream.readline(4000).decode("utf-8", "replace").strip() for _ in range(2))
            yield KINDS[words[1]](words[2], message, hint)
            return
        with contextlib.suppress(ValueError):
            yield Sighting.from_bytes(stream.read(min(MOST_BYTES, int(words[0]))))


def main(words: list[str]) -> None:
    """Be the process."""
    path, name, width, pace_s, classify = words
    out = sys.stdout.buffer
    try:
        whole = config.load(Path(path))
        camera = next(c for c in whole.camera if c.name == name)
        for seen in _look(whole, camera, Wish(int(width), float(pace_s)), classify=classify == "1"):
            content = seen.as_bytes()
            out.write(f"{len(content)}\n".encode() + content)
            out.flush()
    except ShelfwireError as error:
        kind = next(kind for kind, cls in KINDS.items() if isinstance(error, cls))
        one_line = [" ".join(text.split()) for text in (str(error), error.hint)]
        out.write("\n".join([f"error {kind} {error.code}", *one_line, ""]).encode())
        out.flush()
    os._exit(0)  # threads that hang in a library would hold up an ordinary exit


def _look(config: Config, camera: Camera, wanted: Wish, *, classify: bool) -> Iterator[Sighting]:
    clock = SystemClock()
    source = open_source(camera, clock)
    source.open()
    worker = _worker(config) if classify else None
    pace = Pace(1 / wanted.pace_s)
    nobody = threading.Event()
    number = 0
    while (shot := source.read()) is not None:
        captured = clock.now()
        if not pace.take(captured.boot_ns):
            continue
        number += 1
        answer = worker.classify(shot.picture, config.model.top) if worker is not None else None
        yield sighting_of(camera, Frame(camera.name, number, shot.picture, captured, shot.truth), wanted.width, answer)
        if camera.kind_of() in UNPACED:
            clock.wait(nobody, pace.wait_s(clock.now().boot_ns))


def _worker(config: Config) -> Worker:
    try:
        return Classifier.open(resolve(config.model.bundle), config.model.setup).worker()
    except BundleError as error:
        raise Broken(error.code, str(error), error.hint) from None


if __name__ == "__main__":
    main(sys.argv[1:])
