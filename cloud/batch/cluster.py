"""The scoring mapped over a Ray cluster: one task per shard, repeated by Ray where a node dies.

Ray Data is not used: a shard is read, answered and written by one task, so there is nothing to stream between nodes.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from cloud.batch.engines import ATTEMPTS, Score, crashed
from cloud.batch.score import Done, Failed, Task, score
from cloud.errors import Broken, Retryable


class Ray:
    """A cluster at $RAY_ADDRESS, or one of this machine for as long as the run takes.

    Every node needs this package, the place for objects and its AWS_* variables, and the bundle.
    """

    name = "ray"

    def __init__(self, workers: int | None = None, address: str | None = None, score: Score = score) -> None:
        self._workers = workers
        self._address = address
        self._score = score

    def run(self, tasks: Sequence[Task]) -> Iterator[Done | Failed]:
        """See Engine. Raises `Broken` (``ray-missing``), `Retryable` (``ray-away``)."""
        ray = _import()
        ours = not ray.is_initialized()
        if ours:
            self._start(ray)
        try:
            # max_retries is Ray's own answer to a node or a worker that dies; what the scoring finds is a value.
            # A shard keeps a core busy for seconds: it goes to the next free node, not to the one that has the driver.
            remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS, scheduling_strategy="SPREAD")(self._score)
            under_way = {remote.remote(task): task for task in tasks}
            while under_way:
                ready, _ = ray.wait(list(under_way), num_returns=1)
                task = under_way.pop(ready[0])
                try:
                    yield ray.get(ready[0])
                except ray.exceptions.RayError:
                    yield crashed(task)
        finally:
            if ours:
                ray.shutdown()

    def _start(self, ray: Any) -> None:
        # Ray's workers run at nice 15, which starves them on a machine that does anything else.
        os.environ.setdefault("RAY_worker_niceness", "0")
        given: dict[str, Any] = {"address": self._address or "local", "log_to_driver": False, "logging_level": "ERROR"}
        if self._address is None:
            given |= {"num_cpus": self._workers, "include_dashboard": False}
        try:
            ray.init(**given)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            said = " ".join(str(error).split())[:300]
            raise Retryable(
                "ray-away", f"the Ray cluster {self._address or 'of this machine'} does not start: {said}",
                "correct RAY_ADDRESS, or leave it out for one of this machine",
            ) from error  # fmt: skip


def _import() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise Broken(
            "ray-missing", f"Ray is not installed: {error}", "install shelfwire[ray], or use --engine local"
        ) from error
    return ray
