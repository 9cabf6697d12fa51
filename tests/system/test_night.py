"""A night from end to end: real nightly, real sync, the cloud's real intake; killed, cut off and asked to hurry."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from nights import Device
from waiting import PATIENCE_S, wait_for
from web_shop import serving

from agent.ports import Lane
from agent.store.shards import summary
from cloud.broker import Broker
from cloud.objects import Objects, open_objects
from cloud.store import Store

DEVICE = "shop-1"


def days_ago(days: float) -> int:
    """Wall time in nanoseconds: these tests go by the machine's own clock."""
    return time.time_ns() - int(days * 86_400) * 10**9


class Shop:
    """A device that has pictures for the night, its processes, and the cloud that takes them."""

    def __init__(self, folder: Path, broker: Broker, api: str, objects: Objects, dsn: str) -> None:
        self.folder = folder
        self.objects = objects
        self.dsn = dsn
        self.device = Device(folder / "state")
        self.config = folder / "device.toml"
        self._head = (
            f'[device]\nid = "{DEVICE}"\nstore = "Harbour Street"\nstate_dir = "{folder / "state"}"\n'
            f'runtime_dir = "{folder / "run"}"\n[privacy]\npictures = "frames"\n'
            f'[cloud]\nbroker = "mqtt://127.0.0.1:{broker.port}"\nusername = "{DEVICE}"\n'
            f'password_file = "{broker.password_file(DEVICE)}"\napi = "{api}"\n'
        )
        self.configure("")

    def configure(self, batch: str) -> None:
        self.config.write_text(f"{self._head}[batch]\n{batch}\n")

    def nightly(self, *words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "agent.cli", "nightly", "--json", "--config", str(self.config), *words]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        report: dict[str, Any] = json.loads(answer.stdout)
        return report

    @contextmanager
    def syncing(self) -> Iterator["subprocess.Popen[bytes]"]:
        command = [sys.executable, "-m", "agent.cli", "sync", "--config", str(self.config)]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE_S)

    def waiting(self) -> int:
        return summary(self.device.state).files

    def in_cloud(self) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute("SELECT sha256, rows, state FROM shard ORDER BY sha256").fetchall()


@pytest.fixture
def shop(broker: Broker, store: Store, dsn: str, tmp_path: Path) -> Iterator[Shop]:
    objects = open_objects(tmp_path / "objects")
    with serving(store, objects=objects) as served:
        made = Shop(tmp_path / "shop", broker, served.url, objects, dsn)
        yield made
        made.device.close()


def test_the_day_is_in_the_cloud_and_nothing_of_it_is_left_here(shop: Shop, tmp_path: Path) -> None:
    shop.device.capture(230, wall_ns=days_ago(1), size=4000)
    with shop.syncing() as sync:
        report = shop.nightly("--now")
        assert report["rows"] == 230
        wait_for("the upload", lambda: shop.waiting() == 0)
        sync.send_signal(signal.SIGTERM)
        assert sync.wait(PATIENCE_S) == 0
    assert shop.in_cloud() == sorted((s["sha256"], s["rows"], "received") for s in report["sealed"])
    pictures: dict[int, bytes] = {}
    for path in sorted((tmp_path / "objects").rglob("*.parquet")):
        table = pq.read_table(path)
        pictures |= dict(zip(table["seq"].to_pylist(), table["picture"].to_pylist(), strict=True))
    assert pictures == shop.device.jpegs
    assert shop.device.counter("frame:delivered") == 230
    assert (shop.device.batch_files(), shop.device.spooled()) == ([], 0)
    shop.device.books_balance()


def test_sync_killed_in_the_middle_of_an_upload_sends_the_file_again_and_once(shop: Shop) -> None:
    shop.configure('bytes_per_second = "300 kB"')
    shop.device.capture(40, wall_ns=days_ago(2), size=60_000)
    shop.nightly("--now")
    for pause_s in (2.0, 1.0):
        with shop.syncing() as sync:
            wait_for("the upload to begin", shop.in_cloud)
            time.sleep(pause_s)
            sync.kill()
            sync.wait()
        assert shop.waiting() == 1
    shop.configure('bytes_per_second = "100 MB"')
    with shop.syncing():
        wait_for("the upload", lambda: shop.waiting() == 0)
    assert [(rows, state) for _, rows, state in shop.in_cloud()] == [(40, "received")]
    assert shop.device.counter("frame:delivered") == 40
    shop.device.books_balance()


def test_sealed_outside_the_window_it_waits(shop: Shop) -> None:
    hour = time.localtime().tm_hour
    shop.configure(f'window = "{(hour + 3) % 24:02}:00-{(hour + 4) % 24:02}:00"')
    shop.device.capture(3, wall_ns=days_ago(2))
    shop.nightly()
    with shop.syncing():
        wait_for("sync to be connected", lambda: "connected to the broker" in (shop.folder / "log").read_text())
        time.sleep(3)
        assert shop.waiting() == 1
        assert shop.in_cloud() == []
        shop.nightly("--now")
        wait_for("the upload", lambda: shop.waiting() == 0)
    assert [rows for _, rows, _ in shop.in_cloud()] == [3]


def test_frames_that_expired_while_sync_is_dead_are_the_nights(shop: Shop) -> None:
    shop.device.capture(5, lane=Lane.OFFLOAD, boot="another boot", wall_ns=days_ago(1))
    assert shop.nightly("--now")["rows"] == 5
    assert shop.device.counter("frames:expired") == 5
    assert shop.device.spooled() == 0
