"""What maps the scoring over shards: processes of this machine, or a Ray cluster."""

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from typing import Final, Protocol

from cloud.batch.score import Done, Failed, Task, score

ATTEMPTS: Final = 3
"""A shard whose worker dies is tried so often; the others go on."""

Score = Callable[[Task], Done | Failed]


class Engine(Protocol):
    """Scores shards side by side."""

    name: str

    def run(self, tasks: Sequence[Task]) -> Iterator[Done | Failed]:
        """Score all, and give each outcome as soon as it is there. Closing the iterator stops the workers."""


class Local:
    """One process per core by default, started anew when it dies.

    Each worker is a pool of its own: the death of one process breaks its whole pool, and here that is one shard.
    """

    name = "local"

    def __init__(self, workers: int, score: Score = score) -> None:
        self._workers = workers
        self._score = score

    def run(self, tasks: Sequence[Task]) -> Iterator[Done | Failed]:
        """See Engine."""
        waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        for task in tasks:
            waiting.put(task)
        outcomes: queue.SimpleQueue[Done | Failed | BaseException] = queue.SimpleQueue()
        lanes = [_Lane(self._score, waiting, outcomes, n) for n in range(min(self._workers, len(tasks)))]
        try:
            for lane in lanes:
                lane.thread.start()
            for _ in tasks:
                outcome = outcomes.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:
            for lane in lanes:
                lane.stop()


class _Lane:
    """A thread with one worker process."""

    def __init__(
        self,
        score: Score,
        waiting: "queue.SimpleQueue[Task]",
        outcomes: "queue.SimpleQueue[Done | Failed | BaseException]",
        number: int,
    ) -> None:
        self._score = score
        self._waiting = waiting
        self._outcomes = outcomes
        self._stopping = threading.Event()
        self._pool: ProcessPoolExecutor | None = None
        self._pid = 0
        self.thread = threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)

    def stop(self) -> None:
        """End the worker, in the middle of a shard if need be: nothing of it is written then."""
        self._stopping.set()
        if self.thread.is_alive() and self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        if self.thread.ident is not None:
            self.thread.join()

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                self._outcomes.put(self._try(self._waiting.get_nowait()))
        except queue.Empty:
            pass
        except BaseException as error:  # noqa: BLE001 - whoever waits for the outcomes is told
            self._outcomes.put(error)
        finally:
            if self._pool is not None:
                self._pool.shutdown()

    def _try(self, task: Task) -> Done | Failed:
        for _ in range(ATTEMPTS):
            try:
                worker = self._worker()
                if self._stopping.is_set():  # told so while the worker started: nobody could end it then
                    break
                return worker.submit(self._score, task).result()
            except BrokenProcessPool:
                if self._pool is not None:
                    self._pool.shutdown(wait=False)
                self._pool = None
                if self._stopping.is_set():
                    break
        return crashed(task)

    def _worker(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin)
            self._pid = self._pool.submit(os.getpid).result()
        return self._pool


def crashed(task: Task) -> Failed:
    """What is said of a shard whose workers all died."""
    return Failed(
        task.shard, "shard-crashed", f"{ATTEMPTS} workers died over this shard",
        "look for a lack of memory in the system's log; a picture in it may crash the decoder",
    )  # fmt: skip


def _begin() -> None:
    """Prepare a worker: Ctrl-C is its parent's to answer, and it ends when its parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="follow-parent", daemon=True).start()
