"""The cloud's answers from end to end: a device's outbox, real sync, server, function, worker, courier and broker."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from test_gateway import Hosted, hosting
from test_ingest import Start, rows, up
from test_jobs import Worker
from waiting import wait_for
from web_shop import serving, shelf

from agent.core.records import Origin, frame_body
from agent.host.clock import SystemClock, boot_id
from agent.ports import Draft, Lane, Stamp
from agent.store.database import open_database
from agent.store.inspect import Snapshot, look
from agent.store.writer import Limits, Writer
from cloud.broker import CLOUD, Broker
from cloud.courier import Courier
from cloud.store import Store

pytestmark = pytest.mark.broker

DEVICE = "shop-1"
PATIENCE_S = 60.0
LABELS = ("Banana", "Lemon", "Orange", "Avocado")


class Shop:
    """A device whose cameras this test plays, with the real sync and the real commands beside."""

    def __init__(self, folder: Path, broker: Broker, api: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "device.toml"
        self.config.write_text(
            f'[device]\nid = "{DEVICE}"\nstate_dir = "{self.state}"\nruntime_dir = "{folder / "run"}"\n'
            f'[cloud]\nbroker = "mqtt://127.0.0.1:{broker.port}"\nusername = "{DEVICE}"\n'
            f'password_file = "{broker.password_file(DEVICE)}"\napi = "{api}"\n'
            '[privacy]\npictures = "frames"\n[spool]\nkeep_free = "0 B"\n[serverless]\nexpire = "60 s"\n'
        )
        self.clock = SystemClock()
        self.writer = Writer(self.state, Limits(), 0)
        self.run_id = self.writer.start_run(boot_id(), time.time_ns(), "test")
        self.frames = 0

    def capture(self, n: int, expire_s: float = 60.0) -> list[int]:
        """Leave frames to the function, as vision does; gives their sequence numbers."""
        drafts = []
        for _ in range(n):
            self.frames += 1
            now = self.clock.now()
            picture = self.writer.spool.keep(shelf(self.frames, LABELS[self.frames % len(LABELS)], 320, 180))
            body = frame_body(
                Origin("door", self.frames, now.wall_ns, now.boot_ns, "unsure"),
                size=(320, 180), reason="displaced", answer=None, truth=None,
            )  # fmt: skip
            stamp = Stamp(now.wall_ns, now.boot_ns)
            expires_ns = now.boot_ns + int(expire_s * 1e9)
            drafts.append(Draft("frame", Lane.OFFLOAD, body, stamp, "unsure", picture, expires_ns))
        return self.writer.put(drafts, {"frames:captured": n, "frames:serverless": n})

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "agent.cli", *words, "--config", str(self.config)]

    @contextmanager
    def syncing(self) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(self.command("sync"), stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE_S)

    def once(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            self.command(*words, "--json"), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def look(self) -> Snapshot:
        return look(self.state)

    def answers(self) -> dict[int, str]:
        db = open_database(self.state, check=False)
        found = dict(db.execute("SELECT seq, label FROM verdict WHERE run_id = ?", (self.run_id,)).fetchall())
        db.close()
        return found

    def spooled(self) -> int:
        return len(list(self.writer.spool.folder.iterdir()))

    def log(self) -> str:
        return (self.folder / "log").read_text()


class House:
    """A shop, and the cloud with every way to an answer."""

    def __init__(self, shop: Shop, store: Store, function: Hosted) -> None:
        self.shop = shop
        self.store = store
        self.function = function

    def verdicts(self) -> dict[int, str]:
        found = rows(self.store.dsn, "SELECT seq, label FROM verdict WHERE device = %s AND run = %s", DEVICE,
                     self.shop.run_id)  # fmt: skip
        return {int(str(seq)): str(label) for seq, label in found}


@pytest.fixture
def house(broker: Broker, store: Store, ingest: Start, tmp_path: Path) -> Iterator[House]:
    crashes: list[BaseException] = []
    with ExitStack() as stack:
        function = stack.enter_context(hosting("cloud.function.aws.lambda_handler"))
        served = stack.enter_context(serving(store, function=function.url))
        up(ingest())
        courier = Courier(
            store, broker.options(CLOUD, "courier"), registry=CollectorRegistry(), on_crash=crashes.append
        )
        courier.start()
        stack.callback(courier.stop)
        shop = Shop(tmp_path / "shop", broker, served.url)
        stack.callback(shop.writer.close)
        yield House(shop, store, function)
    assert not crashes


def outbound(store: Store) -> int:
    ((count,),) = rows(store.dsn, "SELECT count(*) FROM outbound")
    return int(str(count))


def all_answered(shop: Shop) -> Callable[[], bool]:
    return lambda: shop.look().frames.unanswered == 0 and shop.look().waiting == 0


def test_frames_that_the_device_cannot_take_are_answered_by_the_function(house: House) -> None:
    shop = house.shop
    seqs = shop.capture(12)
    with shop.syncing() as sync:
        wait_for("every answer", all_answered(shop))
        wait_for("every receipt", lambda: outbound(house.store) == 0)
        status = shop.once("status")
        sync.send_signal(signal.SIGTERM)
        assert sync.wait(PATIENCE_S) == 0
    assert sorted(shop.answers()) == seqs
    assert shop.answers() == house.verdicts()
    assert (status["frames"]["serverless"], status["answers"]["serverless"], status["unanswered"]) == (12, 12, 0)
    assert (status["function"]["health"], status["pictures"]["delivered"], shop.spooled()) == ("up", 12, 0)
    assert status["function"]["usd_per_call"] > 0
    assert status["function"]["latency_ms"] > 0
    # The status that sync told in between lies in the cloud.
    with_frames = rows(house.store.dsn, "SELECT status->'frames'->>'serverless' FROM device WHERE device = %s", DEVICE)
    assert with_frames == [("12",)]


def test_sync_killed_again_and_again_loses_no_frame_and_counts_none_twice(house: House) -> None:
    shop = house.shop
    seqs = []
    for least in (3, 9, 15, 21):
        seqs += shop.capture(8)
        with shop.syncing() as sync:
            wait_for("some answers", lambda least=least: len(shop.answers()) >= least)  # type: ignore[misc]
            sync.kill()
            sync.wait()
    with shop.syncing():
        wait_for("every answer", all_answered(shop))
    counters = shop.look().counters
    assert sorted(shop.answers()) == sorted(house.verdicts()) == seqs
    assert (counters["frames:answered"], counters["answers:serverless"], counters["frame:delivered"]) == (32, 32, 32)
    assert (shop.spooled(), counters["pictures:bytes"]) == (0, 0)


def test_a_submitted_picture_is_answered_by_a_job(house: House, tmp_path: Path) -> None:
    picture = tmp_path / "shelf.jpg"
    picture.write_bytes(shelf(5, "Banana"))
    worker = Worker(house.store.dsn)
    try:
        worker.ready()
        with house.shop.syncing():
            told = house.shop.once("submit", str(picture), "--wait", "40")
    finally:
        worker.kill()
    (shown,) = told["pictures"]
    assert shown["answer"], house.shop.log()
    assert shown["answer"]["mode"] == "asynchronous"
    assert shown["answer"]["label"] == "Banana"
    assert shown["frame"].startswith(f"{DEVICE}/")
    assert house.shop.look().counters["submitted:answered"] == 1


def test_without_a_function_frames_wait_for_the_night_and_the_device_says_why(
    broker: Broker, store: Store, tmp_path: Path
) -> None:
    with serving(store) as served:
        shop = Shop(tmp_path / "shop", broker, served.url)
        with shop.syncing():
            wait_for("sync to be there before their time is over", lambda: shop.look().sync.get("connected"))
            shop.capture(4, expire_s=2.0)
            wait_for("the night to have them", lambda: shop.look().for_the_night == 4)
            wait_for("sync to say so", lambda: shop.look().function.get("health") != "up")
        snapshot = shop.look()
    assert snapshot.counters["frames:expired"] == 4
    assert snapshot.frames.unanswered == 4
    assert snapshot.dead == 0, shop.log()
    assert shop.spooled() == 4
    shop.writer.close()
