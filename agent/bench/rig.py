"""The device's own pipeline, recorder and outbox on a temporary folder, with any way to get frames: to be measured."""

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.camera.encode import lower_priority
from agent.camera.last import LastPictures
from agent.core.decide import Standing
from agent.drafts import Policy
from agent.host.clock import SystemClock
from agent.host.metrics import Metrics
from agent.pipeline import Offload, Pipeline, Witness, Worker
from agent.ports import Frames
from agent.standing import CameraState
from agent.store.inspect import look
from agent.store.recorder import Recorder
from agent.store.writer import Limits, Writer
from models import Classifier

CONFIRM_FRAMES, TOP = 3, 3
STOP_S = 5.0


class Rig:
    """Everything between a frame and its committed result. `start` it, `finish` it in any case.

    `make_offload` makes what frames for the cloud need; without it none may leave. `wrap` may put something around
    each thread's way to the model.
    """

    def __init__(
        self,
        classifier: Classifier,
        frames: Frames,
        clock: SystemClock,
        cameras: Sequence[str],
        workers: int,
        make_offload: Callable[[Writer, SystemClock], Offload] | None = None,
        witness: Witness | None = None,
        wrap: Callable[[Worker], Worker] = lambda worker: worker,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shelfwire-bench-"))
        self.clock = clock
        self.crashed = threading.Event()
        self.writer = Writer(self.folder / "state", Limits(), 8 << 20)
        self.writer.start_run("bench", 0, "bench")
        self.recorder = Recorder(
            self.writer, clock, rows=50, interval_s=0.05, doorbell=self.folder / "doorbell", on_crash=self.crashed.set
        )
        self.pictures = LastPictures(self.folder / "pictures", 1.0, allowed=True)
        ref = classifier.model
        model = {"name": ref.name, "version": ref.version, "release": ref.release, "digest": ref.digest}
        self.offload = make_offload(self.writer, clock) if make_offload is not None else None
        self.pipeline = Pipeline(
            frames,
            Policy(classifier.threshold, CONFIRM_FRAMES, TOP, (), model, classifier.runtime),
            self.recorder,
            self.pictures,
            clock,
            {camera: CameraState(Standing(), {}) for camera in cameras},
            Metrics(0, lambda: ()).answered,
            self.offload,
            witness,
        )
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._work, args=(wrap(classifier.worker()),), name=f"inference-{n}", daemon=True)
            for n in range(workers)
        ]
        if self.offload is not None:
            self.threads.append(threading.Thread(target=self._spill, name="spool", daemon=True))

    def _work(self, worker: Worker) -> None:
        self.pipeline.work(worker, self.stop)

    def _spill(self) -> None:
        lower_priority()
        self.pipeline.spill()

    def start(self) -> None:
        """Start every thread."""
        self.recorder.start()
        self.pictures.start()
        for thread in self.threads:
            thread.start()

    def finish(self) -> Counter[str]:
        """Stop, and give what was counted."""
        self.stop.set()
        self.pipeline.close(3.0)
        for thread in self.threads:
            thread.join(STOP_S)
        self.pictures.stop()
        self.recorder.record([], +self.pipeline.collect_counts())
        self.recorder.stop()
        counters = look(self.folder / "state").counters
        self.writer.close()
        shutil.rmtree(self.folder)
        return counters
