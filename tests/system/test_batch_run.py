"""The batch as a command, killed and resumed; and on a Ray cluster that loses a node."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_nights import NIGHT, Silent, count, night, verdicts
from shard_files import DAY, rows, write

from cloud.batch.cluster import Ray
from cloud.batch.rows import Nights
from cloud.batch.run import Batch, Chosen
from cloud.batch.score import Done, Failed, Task, score
from cloud.objects import Objects, open_objects
from cloud.store import Store

LONG_S = 60.0


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return open_objects(tmp_path / "objects")


def command(dsn: str, objects: Objects, *arguments: str) -> list[str]:
    given = ["batch", *arguments, "--dsn", dsn, "--objects", objects.address]
    return [sys.executable, "-m", "cloud.cli", *given]


def run(dsn: str, objects: Objects, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        command(dsn, objects, *arguments, "--json"), capture_output=True, text=True, check=False, timeout=100
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def wait_until(true: Any, what: str) -> None:
    deadline = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)  # another process tells nobody


def descendants(pid: int) -> list[int]:
    """The children of a process and theirs; threads and processes may end while we look."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in (task / "children").read_text().split():
                    found += [int(child), *descendants(int(child))]
    return found


def is_worker(pid: int) -> bool:
    """Whether it scores; multiprocessing's own tracker of resources ends by itself, a moment after its parent."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_run_that_is_killed_is_resumed_and_every_frame_is_answered_once(
    store: Store, dsn: str, objects: Objects, tmp_path: Path
) -> None:
    night(store, objects, tmp_path, shards=5, frames=30)
    process = subprocess.Popen(command(dsn, objects, "run", DAY, "--workers", "1"), stderr=subprocess.DEVNULL)
    wait_until(lambda: count(store, "verdict") > 0, "nothing was kept")
    workers = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = count(store, "verdict")
    assert 0 < before < 150
    wait_until(lambda: all(gone(pid) for pid in workers), "workers outlive a run that was killed")
    code, told, _ = run(dsn, objects, "run", DAY)
    assert (code, told["shards"], told["failed"]) == (0, 5, [])
    assert told["new_verdicts"] == 150 - before
    assert [seq for seq, *_ in verdicts(store)] == list(range(1, 151))
    assert (count(store, "outbound"), count(store, "shard_score")) == (150, 5)


def test_a_run_that_is_told_to_stop_ends_its_workers_at_once(
    store: Store, dsn: str, objects: Objects, tmp_path: Path
) -> None:
    night(store, objects, tmp_path, shards=4, frames=30)
    process = subprocess.Popen(command(dsn, objects, "run", DAY, "--workers", "2"), stderr=subprocess.DEVNULL)
    wait_until(lambda: count(store, "verdict") > 0, "nothing was kept")
    workers = [pid for pid in descendants(process.pid) if is_worker(pid)]
    assert workers
    process.terminate()
    assert process.wait(20) == 130
    assert all(gone(pid) for pid in workers)


def test_the_command_tells_what_it_did(store: Store, dsn: str, objects: Objects, tmp_path: Path) -> None:
    code, told, _ = run(dsn, objects, "run", DAY)
    assert (code, told["shards"], told["rows"]) == (0, 0, 0)
    said = subprocess.run(command(dsn, objects, "run", DAY), capture_output=True, text=True, check=True, timeout=100)
    assert said.stdout == f"{DAY}: no shards have come in, so there is nothing to score.\n"
    first, _ = night(store, objects, tmp_path, shards=2, frames=10)
    objects.put(first.key, b"changed")
    code, told, stderr = run(dsn, objects, "run", DAY)
    assert code == 1
    assert (told["shards"], told["skipped"], told["rows"], told["answered"], told["unreadable"]) == (2, 0, 10, 10, 0)
    assert told["agreed"] <= told["compared"] == 10
    assert min(told["took_s"], told["pictures_per_s"], told["cpu_s"]) > 0
    assert [failed["code"] for failed in told["failed"]] == ["shard-changed"]
    assert f"error: {first.key}: " in stderr
    assert "  cure: " in stderr
    write(tmp_path / "whole", rows(10))
    listed = json.loads(subprocess.run(command(dsn, objects, "list", "--json"), capture_output=True, check=True).stdout)
    assert [(day["day"], day["shards"], day["frames"]) for day in listed] == [(DAY, 2, 20)]
    assert listed[0]["scored"][0]["frames"] == 10


@pytest.mark.parametrize(("arguments", "code"), [(("run",), "bad-day"), (("run", "2026-13-01"), "bad-day"),
                                                 (("run", DAY, "--bundle", "none"), "bundle-missing"),
                                                 (("run", DAY, "--workers", "0"), "bad-workers")])  # fmt: skip
def test_wrong_input_names_the_cure(dsn: str, objects: Objects, arguments: tuple[str, ...], code: str) -> None:
    status, told, stderr = run(dsn, objects, *arguments)
    assert (status, told["error"]["code"]) == (2, code)
    assert "cure: " in stderr


# -- Ray ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray's sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


@pytest.mark.timeout(240)
def test_a_cluster_that_loses_a_node_answers_every_frame_once(
    store: Store, dsn: str, objects: Objects, tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    import ray._private.services
    from ray.cluster_utils import Cluster

    # Ray looks for an address that other machines reach; this cluster listens on the loopback address alone.
    monkeypatch.setattr(ray._private.services, "resolve_ip_for_localhost", lambda host: host)
    monkeypatch.setenv("RAY_worker_niceness", "0")
    night(store, objects, tmp_path, shards=6, frames=15)
    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        doomed = cluster.add_node(**node)
        doomed_id, marks = doomed.node_id, str(tmp_path)
        ray.init(cluster.address, log_to_driver=False)

        def scoring(task: Task) -> Done | Failed:
            # Sent by value: the workers do not have the tests. The node that is to die waits for that, the others for
            # its having a shard.
            begun = Path(marks) / "begun"
            if ray.get_runtime_context().get_node_id() == doomed_id:
                begun.touch()
                time.sleep(300)
            deadline_s = time.monotonic() + 60
            while not begun.exists() and time.monotonic() < deadline_s:
                time.sleep(0.05)
            return score(task)

        lost = threading.Event()

        def lose(step: str) -> None:
            if step == "scored" and not lost.is_set():
                lost.set()
                wait_until((tmp_path / "begun").exists, "the node that is to die never got a shard")
                cluster.remove_node(doomed, allow_graceful=False)

        batch = Batch(Nights(store.pool, dsn), objects, Chosen.of("produce"), Ray(score=scoring), on_step=lose)
        outcome = batch.run(NIGHT, Silent())
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost.is_set()
    assert (outcome.failed, outcome.rows, outcome.new_verdicts) == ([], 90, 90)
    assert [seq for seq, *_ in verdicts(store)] == list(range(1, 91))
    assert count(store, "shard_score") == 6


@pytest.mark.timeout(240)
def test_ray_on_this_machine_is_started_and_left_clean(
    store: Store, dsn: str, objects: Objects, tmp_path: Path, short: Path
) -> None:
    night(store, objects, tmp_path, shards=2, frames=10)
    process = subprocess.Popen(
        [*command(dsn, objects, "run", DAY, "--engine", "ray", "--workers", "1", "--json")], stdout=subprocess.PIPE
    )
    seen: set[int] = set()
    while process.poll() is None:
        seen |= set(descendants(process.pid)) if not gone(process.pid) else set()
        threading.Event().wait(0.2)
    assert process.stdout is not None
    told = json.loads(process.stdout.read())
    assert (process.returncode, told["engine"], told["rows"], told["new_verdicts"]) == (0, "ray", 20, 20)
    assert len(seen) > 2
    wait_until(lambda: all(gone(pid) for pid in seen), "Ray left processes behind")
