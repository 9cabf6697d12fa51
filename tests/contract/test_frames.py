"""The carrier's side of the outbox: frames are lent, delivered, given back, refused or handed to the night."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_outbox import books_balance, frame

from agent.ports import Lane, Row
from agent.store import frames as module
from agent.store.database import open_database
from agent.store.frames import FrameSender, defer_expired
from agent.store.inspect import look
from agent.store.sender import REFUSALS_BEFORE_DEAD
from agent.store.writer import Limits, Writer

BOOT = "boot-1"


class Shop:
    """A writer and a carrier's side on one folder; the books are looked at when it closes."""

    def __init__(self, folder: Path, limits: Limits = Limits()) -> None:  # noqa: B008
        self.folder = folder
        self.writer = Writer(folder, limits, 0)
        self.run_id = self.writer.start_run(BOOT, 0, "test")
        self.frames = FrameSender(folder, self.writer.spool)

    def put(self, n: int = 1, lane: Lane = Lane.OFFLOAD, expires_ns: int | None = 1000) -> list[int]:
        return self.writer.put([frame(self.writer, i, lane, expires_ns) for i in range(n)])

    def one(self, lane: Lane = Lane.OFFLOAD, now_ns: int = 0) -> Row:
        (row,) = self.frames.lease(lane, now_ns, 1)
        return row

    def files(self) -> int:
        return len(list(self.writer.spool.folder.iterdir()))

    def counter(self, name: str) -> int:
        return look(self.folder).counters[name]

    def restart(self) -> None:
        self.frames.close()
        self.frames = FrameSender(self.folder, self.writer.spool)

    def close(self) -> None:
        self.frames.close()
        self.writer.close()
        books_balance(self.folder)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path / "state")
    yield made
    made.close()


def seqs(rows: list[Row]) -> list[int]:
    return [row.seq for row in rows]


def test_frames_are_lent_once_oldest_first_with_their_pictures(shop: Shop) -> None:
    shop.put(3)
    rows = shop.frames.lease(Lane.OFFLOAD, 0, 2)
    assert seqs(rows) == [1, 2]
    assert seqs(shop.frames.lease(Lane.OFFLOAD, 0, 9)) == [3]
    assert shop.frames.lease(Lane.OFFLOAD, 0, 9) == []
    assert rows[1].picture is not None
    assert shop.writer.spool.read(rows[1].picture) == b"picture 1 " * 10
    assert (rows[0].run_id, rows[0].boot_id, rows[0].kind, rows[0].expires_ns) == (shop.run_id, BOOT, "frame", 1000)


def test_lanes_do_not_mix_and_the_nights_are_left_to_the_night(shop: Shop) -> None:
    for lane in (Lane.OFFLOAD, Lane.REVIEW, Lane.BATCH):
        shop.put(1, lane)
    assert seqs(shop.frames.lease(Lane.REVIEW, 0, 9)) == [2]
    assert seqs(shop.frames.lease(Lane.OFFLOAD, 0, 9)) == [1]


def test_what_is_delivered_goes_with_its_picture(shop: Shop) -> None:
    shop.put(3)
    shop.frames.delivered(shop.frames.lease(Lane.OFFLOAD, 0, 2))
    assert (shop.counter("frame:delivered"), shop.counter("frame:produced"), shop.files()) == (2, 3, 1)


def test_what_is_given_back_waits_for_its_time_and_goes_before_newer_ones(shop: Shop) -> None:
    shop.put(2)
    shop.frames.give_back(shop.one(), 50)
    assert seqs(shop.frames.lease(Lane.OFFLOAD, 49, 9)) == [2]
    shop.put(1)
    assert seqs(shop.frames.lease(Lane.OFFLOAD, 50, 9)) == [1, 3]


def test_leases_are_void_after_a_restart(shop: Shop) -> None:
    shop.put(2)
    shop.frames.lease(Lane.OFFLOAD, 0, 9)
    shop.restart()
    assert seqs(shop.frames.lease(Lane.OFFLOAD, 0, 9)) == [1, 2]


def test_five_refusals_set_a_frame_aside_and_keep_its_picture_to_be_looked_at(shop: Shop) -> None:
    shop.put(1)
    told = [shop.frames.refuse(shop.one(now_ns=n), "picture-broken", n + 1) for n in range(REFUSALS_BEFORE_DEAD)]
    assert told == [False] * (REFUSALS_BEFORE_DEAD - 1) + [True]
    assert shop.frames.lease(Lane.OFFLOAD, 999, 9) == []
    snapshot = look(shop.folder)
    assert (snapshot.dead, snapshot.dead_frames, shop.files()) == (1, 1, 1)


def test_refused_pictures_do_not_fill_the_spool(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEAD_PICTURES", 2)
    shop.put(5, Lane.REVIEW)
    for now_ns in range(1, 5 * REFUSALS_BEFORE_DEAD + 1):
        shop.frames.refuse(shop.one(Lane.REVIEW, now_ns), "bad", now_ns)
    assert (look(shop.folder).dead, shop.files(), shop.counter("pictures:files")) == (5, 2, 2)


def test_a_buried_frame_says_why_and_lets_its_picture_go(shop: Shop) -> None:
    shop.put(1)
    shop.frames.bury(shop.one(), "picture-lost")
    db = open_database(shop.folder)
    assert db.execute("SELECT state, error, picture FROM outbox").fetchall() == [(2, "picture-lost", None)]
    db.close()
    assert shop.files() == 0


def test_what_expires_becomes_the_nights(shop: Shop) -> None:
    shop.put(2, expires_ns=100)
    shop.put(1, expires_ns=200)
    assert shop.frames.defer_expired(99, BOOT) == 0
    assert shop.frames.defer_expired(100, BOOT) == 2
    assert shop.counter("frames:expired") == 2
    assert (shop.counter("rows:3"), shop.counter("rows:5")) == (1, 2)
    assert look(shop.folder).for_the_night == 2
    assert seqs(shop.frames.lease(Lane.OFFLOAD, 0, 9)) == [3]
    assert shop.files() == 3


def test_a_frame_of_another_boot_cannot_be_timed_and_has_expired(shop: Shop) -> None:
    shop.put(1, expires_ns=10**18)
    shop.writer.start_run("boot-2", 0, "test")
    shop.put(1, expires_ns=10**18)
    assert shop.frames.defer_expired(0, "boot-2") == 1
    assert seqs(shop.frames.lease(Lane.OFFLOAD, 0, 9)) == [2]


def test_a_frame_under_way_is_not_handed_to_the_night_before_it_comes_back(shop: Shop) -> None:
    shop.put(2, expires_ns=100)
    row = shop.one()
    assert shop.frames.defer_expired(500, BOOT) == 1
    shop.frames.give_back(row, 600)
    assert shop.frames.defer_expired(500, BOOT) == 1
    assert shop.frames.lease(Lane.OFFLOAD, 10**9, 9) == []


def test_many_expire_in_small_transactions(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEFER_AT_ONCE", 3)
    shop.put(10, expires_ns=1)
    assert shop.frames.defer_expired(2, BOOT) == 10


def test_the_night_may_do_it_when_sync_does_not_run(shop: Shop) -> None:
    shop.put(2, expires_ns=1)
    db = open_database(shop.folder)
    assert defer_expired(db, 2, BOOT) == 2
    db.close()


def test_a_frame_evicted_on_its_way_that_arrives_counts_as_delivered(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "s", Limits(max_rows=10))
    shop.put(40)
    rows = shop.frames.lease(Lane.OFFLOAD, 0, 40)
    assert shop.writer.evict() >= 30
    shop.frames.delivered(rows)
    assert (shop.counter("frame:delivered"), shop.counter("frame:dropped:evicted"), shop.files()) == (40, 0, 0)
    shop.close()


def test_an_evicted_frame_is_neither_refused_nor_buried_nor_tried_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "s", Limits(max_rows=1))
    shop.put(3)
    rows = shop.frames.lease(Lane.OFFLOAD, 0, 40)
    shop.writer.evict()
    for row in rows:
        assert not shop.frames.refuse(row, "bad", 1)
        shop.frames.bury(row, "picture-lost")
    assert shop.frames.lease(Lane.OFFLOAD, 10, 40) == []
    shop.close()
