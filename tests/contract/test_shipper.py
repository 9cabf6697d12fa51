"""The night's files on their way: whatever is cut, refused or damaged, the cloud gets each once or a person is told."""

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Any

import pytest
from nights import NIGHT_NS, NOON_NS, ZONE, Device, Sealer, night
from shard_server import ShardCloud, serving
from world import FakeClock

from agent.app.shipping import Shipping
from agent.config import parse
from agent.core.backlog import Backlog
from agent.core.shards import Owner
from agent.errors import Retryable
from agent.host.clock import SystemClock
from agent.link.upload import Uploads
from agent.night_ports import Shard
from agent.ports import Lane
from agent.shipper import IDLE_WAIT_S, MOST_LIVE_BACKLOG, Shipper
from agent.store.batch import BatchFolder
from agent.store.sender import REFUSALS_BEFORE_DEAD
from agent.store.shards import LIVE_LANES, Shards, listing, summary

HOUR_S = 3600.0


@dataclass
class Line:
    """A device with sealed files, the shipper, and a cloud on a real socket. Time is the test's."""

    device: Device
    sealer: Sealer
    cloud: ShardCloud
    shards: Shards
    shipper: Shipper
    clock: FakeClock

    def seal(self, frames: int = 3, *, day: int = 0, size: int = 900, now: bool = False) -> list[Shard]:
        self.device.capture(frames, wall_ns=NOON_NS - day * 86_400 * 10**9, size=size)
        return self.sealer.nightly.run(night(), today_too=now).sealed

    def turn(self) -> float:
        return self.shipper.turn(threading.Event())

    def turns(self, n: int, every_s: float = HOUR_S / 60) -> None:
        for _ in range(n):
            self.turn()
            self.clock.advance(every_s)

    def path(self, shard: Shard) -> Path:
        return self.device.state / "batch" / shard.file.name

    def all_there(self, shards: list[Shard]) -> None:
        """The cloud has each once, and nothing of them is left here."""
        received = [d["sha256"] for d in self.cloud.received]
        assert sorted(received) == sorted(s.file.sha256 for s in shards)
        assert self.device.counter("frame:delivered") == sum(s.rows for s in shards)
        assert listing(self.device.state) == []
        assert self.device.batch_files() == []
        assert self.device.spooled() == 0
        self.device.books_balance()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    device = Device(tmp_path / "state")
    sealer = Sealer(device.state)
    clock = FakeClock()
    clock.wall_ns = NIGHT_NS
    with serving() as cloud:
        shards = Shards(device.state)
        shipper = Shipper(
            shards,
            BatchFolder(device.state),
            Uploads(cloud.url),
            clock,
            random.Random(1),
            window=(time(1), time(6)),
            bytes_per_second=100_000_000,
            zone=ZONE,
        )
        yield Line(device, sealer, cloud, shards, shipper, clock)
        shards.close()
    sealer.close()
    device.close()


# -- the good way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absolute", [False, True])
def test_a_file_goes_as_announced_and_is_deleted_when_the_cloud_has_it(line: Line, absolute: bool) -> None:
    line.cloud.absolute = absolute
    [shard] = line.seal(150)
    content = line.path(shard).read_bytes()
    assert line.turn() == 0.0
    assert line.cloud.asked == ["announce", "put", "done"]
    assert line.cloud.received == [
        {
            "device": "shop-1",
            "store": "store-12",
            "day": "2026-11-24",
            "part": 1,
            "rows": 150,
            "bytes": len(content),
            "sha256": shard.file.sha256,
        }
    ]
    assert line.cloud.objects[shard.file.sha256] == content
    headers = line.cloud.headers[0]
    assert headers["x-signed"] == "yes"
    assert headers["content-length"] == str(len(content))
    assert "transfer-encoding" not in headers
    assert headers["host"] in line.cloud.url
    line.all_there([shard])
    assert line.turn() == IDLE_WAIT_S


def test_a_shop_that_got_another_name_meanwhile_is_announced_as_its_file_says(line: Line) -> None:
    old = line.seal()
    line.sealer.rename(Owner("shop-1", "Harbour Street"))
    new = line.seal()
    line.turns(2)
    assert [d["store"] for d in line.cloud.received] == ["store-12", "Harbour Street"]
    line.all_there(old + new)


def test_what_the_cloud_has_already_is_not_sent_again(line: Line) -> None:
    [shard] = line.seal()
    line.cloud.fail("done", "hang-up")
    line.turn()
    line.cloud.received.append(line.cloud.announced[shard.file.sha256])
    line.clock.advance(HOUR_S / 60)
    line.turn()
    assert line.cloud.asked == ["announce", "put", "done", "announce"]
    line.all_there([shard])


def test_the_oldest_goes_first(line: Line) -> None:
    shards = line.seal(2, day=3) + line.seal(2, day=2) + line.seal(2)
    line.turns(3)
    assert [d["day"] for d in line.cloud.received] == [s.day for s in shards]
    line.all_there(shards)


# -- when it may go ------------------------------------------------------------------------------------------


def test_outside_the_window_nothing_leaves_unless_it_was_asked_for(line: Line) -> None:
    [waits] = line.seal()
    at = datetime(2026, 11, 25, 0, 59, 59, tzinfo=ZONE)
    line.clock.wall_ns = int(at.timestamp()) * 10**9
    assert line.turn() == IDLE_WAIT_S
    line.clock.advance(5 * HOUR_S + 1)  # 06:00:00, where the window ends
    assert line.turn() == IDLE_WAIT_S
    assert line.cloud.asked == []
    line.sealer.nightly.run(night(), today_too=True)  # --now, with nothing new to seal
    line.turn()
    assert len(line.cloud.received) == 1
    line.all_there([waits])
    [later] = line.seal()
    assert line.turn() == IDLE_WAIT_S
    line.clock.advance(20 * HOUR_S)  # 02:00 of the next night
    line.turn()
    line.all_there([waits, later])


def test_live_records_go_first(line: Line) -> None:
    [shard] = line.seal()
    db = line.shards._db
    db.execute("INSERT INTO counter VALUES ('rows:1', ?)", (MOST_LIVE_BACKLOG + 1,))
    assert line.turn() == IDLE_WAIT_S
    assert line.cloud.asked == []
    db.execute("UPDATE counter SET n = 0 WHERE name = 'rows:1'")
    line.turn()
    line.all_there([shard])


def test_the_line_is_not_used_faster_than_allowed(line: Line) -> None:
    rate = 50_000
    slow = Shipper(
        line.shards, BatchFolder(line.device.state), Uploads(line.cloud.url), line.clock, random.Random(1),
        window=(time(1), time(6)), bytes_per_second=rate, zone=ZONE,
    )  # fmt: skip
    [shard] = line.seal(20, size=50_000)
    before_ns = line.clock.boot_ns
    slow.turn(threading.Event())
    took_s = (line.clock.boot_ns - before_ns) / 1e9
    assert took_s == pytest.approx(shard.file.size_bytes / rate, rel=0.3)
    assert max(line.cloud.pieces) <= 1 << 20
    line.all_there([shard])


def test_a_stop_ends_an_upload_in_the_middle_and_the_next_start_sends_it_whole(line: Line) -> None:
    [shard] = line.seal(20, size=50_000)
    stop = threading.Event()
    line.cloud.hold = threading.Event()
    ended: list[float] = []
    thread = threading.Thread(target=lambda: ended.append(line.shipper.turn(stop)))
    thread.start()
    assert line.cloud.sent.wait(10)
    stop.set()
    line.cloud.hold.set()
    thread.join(10)
    assert ended == [0.0]
    line.cloud.hold = None
    if not line.cloud.received:  # all of it may have been in the socket's buffers when the stop came
        line.turn()
    line.all_there([shard])


# -- bad days ------------------------------------------------------------------------------------------------


FAULTS = [500, 503, 429, 408, 425, 401, 403, 404, "hang-up", "redirect"]
TROUBLE = [(kind, fault) for kind in ("announce", "put", "done") for fault in FAULTS]


@pytest.mark.parametrize(("kind", "fault"), [*TROUBLE, ("announce", "garbage"), ("done", "garbage")])
def test_trouble_on_the_way_costs_time_and_nothing_else(line: Line, kind: str, fault: Any) -> None:
    [shard] = line.seal()
    line.cloud.fail(kind, fault)
    line.turn()
    assert line.cloud.received == []
    assert line.path(shard).exists()
    [waiting] = listing(line.device.state)
    assert waiting.refusals == 0
    assert waiting.error
    assert line.shipper.trouble
    line.device.books_balance()
    line.clock.advance(HOUR_S)
    line.turn()
    assert line.shipper.trouble == ""
    line.all_there([shard])


def test_an_upload_cut_in_the_middle_begins_again(line: Line) -> None:
    [shard] = line.seal(40, size=50_000)
    line.cloud.fail("put", "cut")
    line.turn()
    assert line.cloud.asked == ["announce", "put"]
    line.clock.advance(HOUR_S / 60)
    line.turn()
    assert line.cloud.objects[shard.file.sha256]
    line.all_there([shard])


def test_a_file_that_got_lost_on_the_way_is_sent_again(line: Line) -> None:
    [shard] = line.seal()
    line.cloud.fail("put", "lose")
    line.turns(2)
    assert line.cloud.asked == ["announce", "put", "done"] * 2
    line.all_there([shard])


def test_a_cloud_that_asks_for_time_gets_it(line: Line) -> None:
    [shard] = line.seal()
    line.cloud.fail("announce", (503, 120))
    line.turn()
    line.clock.advance(119)
    assert line.turn() == IDLE_WAIT_S
    assert line.cloud.asked == ["announce"]
    line.clock.advance(2)
    line.turn()
    line.all_there([shard])


def test_a_cloud_that_is_away_is_asked_less_and_less(line: Line) -> None:
    [shard] = line.seal()
    line.cloud.fail("announce", *[500] * 1000)
    line.turns(4 * 3600, every_s=1.0)
    assert 30 < len(line.cloud.asked) < 200
    line.cloud.faults["announce"].clear()
    line.turns(700, every_s=1.0)
    line.all_there([shard])


def test_one_file_in_trouble_holds_up_no_other(line: Line) -> None:
    bad, good = line.seal(2, day=2) + line.seal(2)
    line.cloud.fail("announce", 422)
    line.turns(2, every_s=0.1)
    assert [d["sha256"] for d in line.cloud.received] == [good.file.sha256]
    assert [s.number for s in listing(line.device.state)] == [bad.number]


def test_a_sound_file_that_the_cloud_refuses_is_set_aside_after_some_tries(line: Line) -> None:
    [shard] = line.seal(5)
    content = line.path(shard).read_bytes()
    line.cloud.fail("done", *[422] * REFUSALS_BEFORE_DEAD)
    for refusals in range(1, REFUSALS_BEFORE_DEAD):
        line.turn()
        assert [s.refusals for s in listing(line.device.state)] == [refusals]
        line.turn()
        assert line.cloud.asked.count("done") == refusals
        line.clock.advance(HOUR_S / 10)
    line.turn()
    assert listing(line.device.state) == []
    assert (line.device.state / "batch" / "aside" / shard.file.name).read_bytes() == content
    assert line.device.rows("SELECT DISTINCT error, state, shard FROM outbox") == [("code-422", 2, None)]
    assert line.device.counter("frame:delivered") == 0
    line.device.books_balance()


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_file_is_found_before_it_is_sent_and_its_pictures_are_counted_as_lost(
    line: Line, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    [shard] = line.seal(5)
    path = line.path(shard)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-100])
    else:
        content[1000] ^= 1
        path.write_bytes(content)
    line.turn()
    assert line.cloud.asked == ["announce"]
    assert line.device.rows("SELECT DISTINCT error, state FROM outbox") == [("shard-lost", 2)]
    assert listing(line.device.state) == []
    assert "5 pictures are lost" in caplog.text
    assert (line.device.state / "batch" / "aside" / shard.file.name).exists() == (damage != "missing")
    line.device.books_balance()
    [next_] = line.seal(1)
    line.turn()
    assert [d["sha256"] for d in line.cloud.received] == [next_.file.sha256]


def test_a_file_damaged_while_it_is_sent_is_not_refused_five_times_but_lost_at_once(line: Line) -> None:
    [shard] = line.seal(20, size=50_000)
    path = line.path(shard)

    class Api(Uploads):
        def put(self, *args: Any) -> Any:
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
            return super().put(*args)

    line.shipper._api = Api(line.cloud.url)
    line.turn()
    assert line.cloud.asked == ["announce", "put", "done"]
    assert line.device.rows("SELECT DISTINCT error, state FROM outbox") == [("shard-lost", 2)]


@pytest.mark.parametrize(
    ("api", "url"),
    [("https://cloud.example", "http://cloud.example/x"), ("http://cloud.example", "file:///etc/passwd"),
     ("http://cloud.example", "ftp://cloud.example/x")],
)  # fmt: skip
def test_an_address_that_is_not_safe_is_not_used(api: str, url: str) -> None:
    with pytest.raises(Retryable, match="not safe") as caught:
        Uploads(api).put(url, {}, [b"x"], 1)
    assert caught.value.code == "upload-url"


def test_a_kill_after_the_receipt_and_before_the_file_is_gone_leaves_a_file_that_is_swept(line: Line) -> None:
    [shard] = line.seal()
    line.shards.deliver(shard.number)
    assert line.path(shard).exists()
    line.turns(3, every_s=HOUR_S / 4)
    assert line.device.batch_files() == []


def test_a_day_that_has_not_been_yet_is_kept_until_a_clock_is_mended(line: Line) -> None:
    [shard] = line.seal()
    line.cloud.fail("announce", *[(422, "shard-day")] * 10)
    line.turns(10, every_s=HOUR_S / 10)
    [waiting] = listing(line.device.state)
    assert waiting.refusals == 0
    assert "[shard-day]" in waiting.error
    line.clock.advance(23 * HOUR_S)
    line.turn()
    line.all_there([shard])


def test_a_line_that_hardly_works_does_not_hold_the_night_for_ever(line: Line) -> None:
    [shard] = line.seal(20, size=50_000)
    clock = line.clock

    class Slow(BatchFolder):
        def pieces(self, *args: Any) -> Iterator[bytes]:
            for piece in super().pieces(*args):
                clock.advance(200)
                yield piece

    line.shipper._files = Slow(line.device.state)
    line.turn()
    assert line.shipper.trouble == "upload-slow"
    line.shipper._files = BatchFolder(line.device.state)
    line.clock.advance(HOUR_S)
    line.turn()
    line.all_there([shard])


# -- as sync runs it -----------------------------------------------------------------------------------------


def test_sync_runs_it_on_a_thread_that_stops_when_told(line: Line) -> None:
    shards = line.seal(3, now=True)
    config = parse(
        f'[device]\nid = "shop-1"\nstore = "store-12"\nstate_dir = "{line.device.state}"\n'
        f'[cloud]\napi = "{line.cloud.url}"\n[privacy]\npictures = "frames"\n'
    )
    crashed = threading.Event()
    shipping = Shipping(config, SystemClock(), random.Random(1), crashed.set)
    assert shipping.backlog.files == 1
    shipping.start()
    pause = threading.Event()
    for _ in range(200):
        if summary(line.device.state).files == 0:
            break
        pause.wait(0.05)
    shipping.stop()
    assert not shipping._thread.is_alive()
    assert not crashed.is_set()
    assert shipping.counts["delivered"] == 1
    assert shipping.backlog == Backlog()
    line.all_there(shards)


def test_without_leave_there_is_no_shipper(line: Line) -> None:
    config = parse(f'[device]\nid = "shop-1"\nstate_dir = "{line.device.state}"\n[cloud]\napi = "{line.cloud.url}"\n')
    with pytest.raises(ValueError):
        Shipping(config, SystemClock(), random.Random(1), lambda: None)


def test_lanes_that_count_as_live() -> None:
    assert set(LIVE_LANES) == {Lane.ALERT, Lane.RESULT, Lane.RECEIPT}
