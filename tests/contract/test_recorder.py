"""The store's thread: group commit, alerts at once, and what a full disk costs: frames, counted, never an alert."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from agent.host.clock import SystemClock
from agent.ports import Draft, Lane, Stamp
from agent.store import recorder
from agent.store.inspect import look
from agent.store.recorder import WAITING_ITEMS, Recorder
from agent.store.writer import Limits, Writer

ONE_FRAME = {"frames:captured": 1, "frames:classified": 1}


def result(n: int = 0, size: int = 300) -> Draft:
    return Draft("result", Lane.RESULT, json.dumps({"n": n, "pad": "x" * size}).encode(), Stamp(n, n), "unsure")


def alert(n: int = 0) -> Draft:
    return Draft("alert", Lane.ALERT, json.dumps({"n": n}).encode(), Stamp(n, n), "unsure")


class Shop:
    """A recorder on a real file whose writer tells about every commit."""

    def __init__(self, folder: Path, interval_s: float, rows: int = 50) -> None:
        self.folder = folder
        self.writer = Writer(folder, Limits(), 1 << 20)
        self.writer.start_run("boot", 0, "test")
        self.commits: list[int] = []
        self.changed = threading.Condition()
        self.crashed = threading.Event()
        put = self.writer.put

        def counted(*arguments: object, **named: object) -> list[int]:
            try:
                return put(*arguments, **named)  # type: ignore[arg-type]
            finally:
                with self.changed:
                    self.commits.append(len(arguments[0]))  # type: ignore[arg-type]
                    self.changed.notify_all()

        self.writer.put = counted  # type: ignore[method-assign]
        self.recorder = Recorder(
            self.writer, SystemClock(), rows=rows, interval_s=interval_s, doorbell=folder / "bell",
            on_crash=self.crashed.set,
        )  # fmt: skip

    def wait(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, 20)

    def fill_disk(self) -> None:
        """Let the file grow no more: SQLite then says what it says on a full disk."""
        pages = self.writer._db.execute("PRAGMA page_count").fetchall()[0][0]
        self.writer._db.execute(f"PRAGMA max_page_count = {pages}")

    def free_disk(self) -> None:
        self.writer._db.execute("PRAGMA max_page_count = 1000000")

    def counters(self) -> dict[str, int]:
        return dict(look(self.folder).counters)


def picture(writer: Writer, n: int = 0) -> Draft:
    body = json.dumps({"n": n, "pad": "x" * 20_000}).encode()
    return Draft("frame", Lane.OFFLOAD, body, Stamp(n, n), "unsure", writer.spool.keep(b"jpeg"), 1)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "s", interval_s=30.0)


def test_a_group_is_committed_when_it_is_large_enough(shop: Shop) -> None:
    for n in range(50):
        shop.recorder.record([result(n)], ONE_FRAME)
    shop.recorder.start()
    shop.wait(lambda: shop.commits == [50])
    assert shop.recorder.stop()
    shop.writer.close()


def test_a_group_that_grows_while_it_is_collected_is_committed_when_it_is_large_enough(shop: Shop) -> None:
    shop.recorder.start()
    for n in range(120):
        shop.recorder.record([result(n)], ONE_FRAME)
    shop.wait(lambda: sum(shop.commits) >= 98)
    assert max(shop.commits) <= 50
    assert shop.recorder.stop()
    assert sum(shop.commits) == 120
    shop.writer.close()


def test_what_is_made_later_is_made_once_by_the_stores_thread_in_its_place(shop: Shop) -> None:
    made: list[str] = []

    def later() -> Draft:
        made.append(threading.current_thread().name)
        return result(1)

    shop.recorder.start()
    shop.recorder.record([alert(0), later], ONE_FRAME)
    shop.wait(lambda: shop.commits == [2])
    assert made == ["store"]
    assert shop.recorder.stop()
    shop.writer.close()
    db = apsw.Connection(str(shop.folder / "outbox.sqlite"))
    assert db.execute("SELECT kind FROM outbox ORDER BY seq").fetchall() == [("alert",), ("result",)]
    db.close()


def test_a_frame_that_the_store_cannot_take_costs_no_record(shop: Shop) -> None:
    made: list[int] = []
    for n in range(WAITING_ITEMS):
        assert shop.recorder.record([result(n)], ONE_FRAME)
    assert not shop.recorder.record([lambda: made.append(1) or result()], ONE_FRAME)  # type: ignore[func-returns-value]
    assert not made
    shop.recorder.start()
    assert shop.recorder.stop()
    shop.writer.close()


def test_a_group_is_committed_when_its_time_is_over(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "s", interval_s=0.05)
    shop.recorder.start()
    shop.recorder.record([result()], ONE_FRAME)
    shop.wait(lambda: shop.commits == [1])
    assert shop.recorder.stop()
    shop.writer.close()


def test_an_alert_does_not_wait_for_a_group(shop: Shop) -> None:
    shop.recorder.start()
    shop.recorder.record([alert(), result()], ONE_FRAME)
    shop.wait(lambda: shop.commits == [2])
    assert shop.recorder.stop()
    shop.writer.close()


def test_a_stop_commits_what_waits(shop: Shop) -> None:
    shop.recorder.start()
    for n in range(7):
        shop.recorder.record([result(n)], ONE_FRAME)
    assert shop.recorder.stop()
    assert shop.counters()["result:produced"] == 7
    shop.writer.close()


def test_a_store_that_is_behind_says_so_instead_of_blocking(shop: Shop) -> None:
    taken = [shop.recorder.record([result(n)], ONE_FRAME) for n in range(WAITING_ITEMS + 3)]
    assert taken == [True] * WAITING_ITEMS + [False] * 3
    shop.recorder.start()
    assert shop.recorder.stop()
    assert shop.counters()["frames:classified"] == WAITING_ITEMS
    shop.writer.close()


def test_a_full_disk_costs_frames_that_are_counted_and_no_alert(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "s", interval_s=0.01, rows=1)
    shop.fill_disk()
    shop.recorder.start()
    lost = 0
    while not shop.recorder.trouble:
        before = len(shop.commits)
        shop.recorder.record([result(lost, size=20_000)], ONE_FRAME)
        shop.wait(lambda before=before: len(shop.commits) > before)  # type: ignore[misc]
        lost += 1
        assert lost < 50
    before = len(shop.commits)
    shop.recorder.record([alert(), result(1, size=20_000)], ONE_FRAME, {"camera:a": "raised"})
    shop.wait(lambda: len(shop.commits) > before)
    assert not (shop.folder / "reserve").exists()
    shop.free_disk()
    before = len(shop.commits)
    shop.recorder.record([result(2)], ONE_FRAME)
    shop.wait(lambda: len(shop.commits) > before)
    assert shop.recorder.stop()
    counters = shop.counters()
    assert counters["alert:produced"] == 1
    assert shop.writer.fact("camera:a") == "raised"
    assert counters["frames:captured"] == lost + 2
    assert counters["frames:classified"] + counters["frames:dropped:disk-full"] == lost + 2
    assert counters["frames:dropped:disk-full"] >= 2
    assert counters["result:produced"] == counters["frames:classified"]
    assert not shop.crashed.is_set()
    shop.writer.close()


def test_pictures_that_the_disk_refuses_leave_neither_file_nor_room_taken(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "s", interval_s=0.01, rows=1)
    shop.fill_disk()
    shop.recorder.start()
    offered = 0
    while not shop.recorder.trouble:
        before = len(shop.commits)
        counts = {"frames:captured": 1, "frames:serverless": 1, "frames:copied:audit": 1}
        shop.recorder.record([picture(shop.writer, offered)], counts)
        shop.wait(lambda before=before: len(shop.commits) > before)  # type: ignore[misc]
        offered += 1
        assert offered < 50
    shop.free_disk()
    shop.recorder.record([result()], ONE_FRAME)
    assert shop.recorder.stop()
    counters = look(shop.folder).counters
    assert counters["frames:captured"] == offered + 1
    assert counters["frames:serverless"] == counters["frame:produced"] == counters["frames:copied:audit"]
    assert counters["frames:serverless"] + counters["frames:dropped:disk-full"] == offered
    assert len(list(shop.writer.spool.folder.iterdir())) == counters["pictures:files"]
    shop.writer.close()


def test_files_without_a_row_are_swept_when_vision_starts(shop: Shop) -> None:
    orphan = shop.writer.spool.keep(b"jpeg")
    file = shop.writer.spool.folder / orphan.name
    os.utime(file, (1, 1))
    shop.writer.spool.committed([orphan.name], 0)
    shop.recorder.start()
    assert shop.recorder.stop()
    assert not file.exists()
    shop.writer.close()


def hold(folder: Path) -> apsw.Connection:
    """Be another process that was halted in the middle of a transaction."""
    other = apsw.Connection(str(folder / "outbox.sqlite"))
    other.set_busy_timeout(10_000)  # the store's thread may be tidying up
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_store_that_another_process_holds_costs_nothing_that_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "PATIENCE_MS", 20)
    shop = Shop(tmp_path / "s", interval_s=0.01, rows=1)
    shop.recorder.start()
    other = hold(shop.folder)
    shop.recorder.record([alert(), picture(shop.writer)], {"frames:captured": 1, "frames:serverless": 1}, {"a": "b"})
    shop.wait(lambda: len(shop.commits) >= 3)
    assert "locked" in shop.recorder.trouble
    taken = [shop.recorder.record([result(n)], ONE_FRAME) for n in range(WAITING_ITEMS + 3)]
    assert taken == [True] * WAITING_ITEMS + [False] * 3, "what finds no room is for the caller to count"
    other.close()
    shop.wait(lambda: shop.commits.count(1) == WAITING_ITEMS)
    assert shop.recorder.stop()
    counters = shop.counters()
    assert counters["alert:produced"] == counters["frame:produced"] == counters["frames:serverless"] == 1
    assert counters["result:produced"] == counters["frames:classified"] == WAITING_ITEMS
    assert counters["frames:captured"] == WAITING_ITEMS + 1
    assert shop.writer.fact("a") == "b"
    assert len(list(shop.writer.spool.folder.iterdir())) == counters["pictures:files"] == 1
    assert not shop.crashed.is_set()
    assert not shop.recorder.trouble
    shop.writer.close()


def test_a_stop_does_not_wait_for_ever_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PATIENCE_MS", 20)
    shop = Shop(tmp_path / "s", interval_s=0.01, rows=1)
    shop.recorder.start()
    other = hold(shop.folder)
    shop.recorder.record([result()], ONE_FRAME)
    shop.wait(lambda: len(shop.commits) >= 2)
    assert not shop.recorder.stop(0.1)
    assert not shop.crashed.is_set()
    shop.writer.close()
    other.close()
    assert "frames:captured" not in shop.counters(), "records and counters are lost together"
