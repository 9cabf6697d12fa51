"""The night's batch, measured for `scripts/bench batch`: its engines beside a plain loop over the same shards.

The loop reads a shard, decodes and classifies its pictures, and does nothing else: no digest, no answers written. It
runs in as many processes as the engine has workers, each with its share of the shards. Both sides start cold.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import arro3.io
from arro3.core import Array, DataType, RecordBatch, Table

from cloud.batch.cluster import Ray
from cloud.batch.engines import Local
from cloud.batch.run import Chosen, output_of
from cloud.batch.score import Done, Failed, Task
from cloud.function.handler import Model
from cloud.objects import open_objects
from cloud.shards.form import open_shard
from models.picture import decode_picture

import cv2  # isort: skip - after ours, which set the decoder's limits

DAY = datetime(2026, 1, 31, tzinfo=UTC).date()
SHARDS_PER_WORKER = 4
SAMPLE_S = 0.1

_ARROW = {
    "frame_id": "utf8", "device": "utf8", "store": "utf8", "run": "utf8", "seq": "int64", "camera": "utf8",
    "frame": "int64", "captured_at": "time", "dated_by": "utf8", "day": "utf8", "reason": "utf8", "width": "int32",
    "height": "int32", "label": "utf8", "score": "float64", "labels": "utf8", "model_name": "utf8",
    "model_version": "utf8", "model_digest": "utf8", "model_release": "int32", "truth": "utf8", "picture": "binary",
    "picture_sha256": "utf8",
}  # fmt: skip


@dataclass(frozen=True)
class Took:
    """Wall-clock and processor seconds of one run, children included."""

    wall_s: float
    cpu_s: float


def write_shard(part: int, jpegs: Sequence[bytes], frames: int) -> bytes:
    """A shard as a device writes it."""
    rows = []
    for n in range(frames):
        picture, seq = jpegs[n % len(jpegs)], part * frames + n + 1
        rows.append({
            "frame_id": f"bench/00000000000000aa/{seq}", "device": "bench", "store": "bench",
            "run": "00000000000000aa", "seq": seq, "camera": "camera-1", "frame": seq,
            "captured_at": datetime(2026, 1, 31, 12, tzinfo=UTC) + timedelta(seconds=seq), "dated_by": "device",
            "day": DAY.isoformat(), "reason": "kept", "width": 1280, "height": 720, "label": "Banana", "score": 0.5,
            "labels": "[]", "model_name": "produce", "model_version": "0.1.0", "model_digest": "0" * 64,
            "model_release": 1, "truth": None, "picture": picture,
            "picture_sha256": hashlib.sha256(picture).hexdigest(),
        })  # fmt: skip
    kinds = {name: kind for name, kind in _ARROW.items() if kind != "time"}
    columns = {name: Array([row[name] for row in rows], type=getattr(DataType, kind)()) for name, kind in kinds.items()}
    moments = [int(row["captured_at"].timestamp() * 1_000_000) for row in rows]
    columns["captured_at"] = Array(moments, type=DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
    manifest = {
        "version": 1, "device": "bench", "store": "bench", "day": DAY.isoformat(), "part": part + 1, "rows": frames,
    }  # fmt: skip
    with tempfile.TemporaryFile() as file:
        table = Table.from_batches([RecordBatch.from_pydict(columns)])
        arro3.io.write_parquet(
            table, file, max_row_group_size=100, key_value_metadata={"shelfwire": json.dumps(manifest)}
        )
        file.seek(0)
        return file.read()


def make_tasks(folder: Path, jpegs: Sequence[bytes], workers: int, frames: int) -> list[Task]:
    """Put shards into a place for objects; gives what an engine is asked to do."""
    objects, chosen = open_objects(folder / "objects"), Chosen.of("produce")
    tasks = []
    for part in range(SHARDS_PER_WORKER * workers):
        content = write_shard(part, jpegs, frames)
        digest = hashlib.sha256(content).hexdigest()
        key = f"shards/day={DAY}/store=bench/device=bench/part-{part + 1:04}-{digest[:16]}.parquet"
        objects.put(key, content)
        output = output_of(key, DAY, chosen.model.digest)
        tasks.append(Task(key, digest, frames, output, objects.address, chosen.bundle, chosen.model.digest, again=True))
    return tasks


def plain_share(tasks: Sequence[Task]) -> None:
    """One process's share of the plain loop, on one core as a worker of the engine."""
    cv2.setNumThreads(1)
    worker = Model.open({"SHELFWIRE_BUNDLE": tasks[0].bundle}).worker
    for task in tasks:
        file = b"".join(open_objects(task.objects).get(task.shard))
        for batch in open_shard(file).batches():
            for picture in batch["picture"].to_pylist():
                worker.classify(decode_picture(picture))


def run_plain(tasks: Sequence[Task], workers: int) -> None:
    """The plain loop."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=plain_share, args=(tasks[n::workers],)) for n in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit("the plain loop failed")


def run_local(tasks: Sequence[Task], workers: int) -> None:
    """The local engine."""
    drain(Local(workers).run(tasks))


def run_ray(tasks: Sequence[Task], workers: int) -> None:
    """Ray on this machine, started and stopped."""
    drain(Ray(workers).run(tasks))


def run_ray_idle(tasks: Sequence[Task], workers: int) -> None:
    """The same, but no task has anything to do."""

    def nothing(task: Task) -> Done:
        return Done(task.shard, task.output, made=False)

    drain(Ray(workers, score=nothing).run(tasks[:workers]))


SIDES = {"plain": run_plain, "local": run_local, "ray": run_ray, "ray idle": run_ray_idle}


def drain(outcomes: Iterable[Done | Failed]) -> None:
    """Take every outcome; none may have failed."""
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            raise SystemExit(f"a shard failed: {outcome.detail}")


def timed(side: str, tasks: Sequence[Task], workers: int) -> Took:
    """Run one side in a process of its own. Ray reaps its workers in silence, so processor time is sampled."""
    process = multiprocessing.get_context("spawn").Process(target=SIDES[side], args=(tasks, workers))
    began = time.monotonic()
    process.start()
    assert process.pid is not None
    cpu_s: dict[int, float] = {}
    while process.is_alive():
        for pid in (process.pid, *descendants(process.pid)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                cpu_s[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        process.join(SAMPLE_S)
    if process.exitcode:
        raise SystemExit(f"{side} failed")
    return Took(time.monotonic() - began, sum(cpu_s.values()))


def descendants(pid: int) -> Iterator[int]:
    """The children of a process and theirs; some may end while we look."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield int(child)
                yield from descendants(int(child))


def bench(jpegs: Sequence[bytes], workers: int, frames: int, rounds: int) -> dict[str, Any]:
    """Measure; `frames` are those of one shard."""
    taken: dict[str, list[Took]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="sw-", ignore_cleanup_errors=True) as name:  # Ray's sockets need it short
        os.environ["RAY_TMPDIR"] = name
        tasks = make_tasks(Path(name), jpegs, workers, frames)
        for n in range(rounds):
            for side in SIDES if n % 2 else reversed(SIDES):
                taken[side].append(timed(side, tasks, workers))
            told = ", ".join(f"{side} {t[-1].wall_s:.1f} s ({t[-1].cpu_s:.1f} of CPU)" for side, t in taken.items())
            print(f"  round {n + 1}: {told}", file=sys.stderr, flush=True)
    ratios = [plain.wall_s / local.wall_s for plain, local in zip(taken["plain"], taken["local"], strict=True)]
    ray_ratios = [plain.wall_s / ray.wall_s for plain, ray in zip(taken["plain"], taken["ray"], strict=True)]
    ratio = statistics.median(ratios)
    return {
        "shards": len(tasks),
        "frames": len(tasks) * frames,
        "workers": workers,
        "local_pictures_per_s": round(len(tasks) * frames / statistics.median(t.wall_s for t in taken["local"]), 1),
        "local_over_plain_each": [round(value, 3) for value in ratios],
        "local_over_plain": round(ratio, 3),
        "local_over_plain_cpu": round(_cpu(taken["local"]) / _cpu(taken["plain"]), 3),
        "ray_over_plain": round(statistics.median(ray_ratios), 3),
        "ray_fixed_s": round(statistics.median(t.wall_s for t in taken["ray idle"]), 1),
        "ray_fixed_cpu_s": round(_cpu(taken["ray idle"]), 1),
        "ray_more_cpu_s": round(_cpu(taken["ray"]) - _cpu(taken["plain"]), 1),
        "goal": "the local engine's pictures/s >= 0.9 of a plain loop's on the same cores; what Ray costs is stated",
        "met": ratio >= 0.9,
    }


def _cpu(taken: Sequence[Took]) -> float:
    return statistics.median(took.cpu_s for took in taken)


def main() -> None:
    """Measure with the JPEGs in a folder and print the figures. Arguments: folder, workers, frames, rounds."""
    folder, workers, frames, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    jpegs = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    print(json.dumps(bench(jpegs, workers, frames, rounds)))


if __name__ == "__main__":
    main()
