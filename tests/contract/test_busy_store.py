"""Another process was halted in the middle of a transaction: who waits for the store dies of nothing, and goes on."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import numpy as np
import pytest

from agent.app import Stop
from agent.app.sync import Sync
from agent.camera.encode import to_jpeg
from agent.cli import main
from agent.config import load
from agent.errors import Retryable
from agent.ports import Draft, Lane, Stamp
from agent.store import database
from agent.store.inspect import look
from agent.store.writer import Limits, Writer

CONFIG = """
[device]
id = "till-3"
state_dir = "{folder}/state"
runtime_dir = "{folder}/run"
[cloud]
broker = "mqtt://127.0.0.1:9"
api = "http://127.0.0.1:9"
[privacy]
pictures = "frames"
[spool]
keep_free = "0 B"
"""
MAIN = "the store is in use by another process that does not let go"


class Told(logging.Handler):
    """Wakes a test when something is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.changed:
            self.lines.append(record.getMessage())
            self.changed.notify_all()

    def wait(self, *beginnings: str) -> None:
        def holds() -> bool:
            return all(any(line.startswith(beginning) for line in self.lines) for beginning in beginnings)

        with self.changed:
            assert self.changed.wait_for(holds, 20), self.lines


class Shop:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "shelfwire.toml"
        self.path.write_text(CONFIG.format(folder=folder))
        self.config = load(self.path)
        self.state = folder / "state"
        writer = Writer(self.state, Limits(), 0)
        writer.start_run("another boot", 0, "test")
        writer.put(
            [Draft("frame", Lane.OFFLOAD, b"{}", Stamp(0, 0), "synced", writer.spool.keep(b"jpeg"), expires_ns=1)]
        )
        writer.close()
        self.other = apsw.Connection(str(self.state / "outbox.sqlite"))

    def hold(self) -> None:
        self.other.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        self.other.execute("ROLLBACK")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 30)
    made = Shop(tmp_path)
    yield made
    made.other.close()


@pytest.fixture
def told() -> Iterator[Told]:
    handler = Told()
    logging.getLogger("agent").addHandler(handler)
    yield handler
    logging.getLogger("agent").removeHandler(handler)


def eventually(holds: Callable[[], bool]) -> None:
    """Another process's file tells nobody that it changed: look again and again."""
    pause = threading.Event()
    for _ in range(400):
        if holds():
            return
        pause.wait(0.05)
    raise AssertionError


def test_sync_outlives_it_says_it_once_and_goes_on(shop: Shop, told: Told) -> None:
    stop = Stop()
    sync = Sync(shop.config, stop)
    shop.hold()
    running = threading.Thread(target=sync.run)
    running.start()
    told.wait(MAIN, "the store cannot be written")
    eventually(lambda: sync._uplink.progress > 3)
    assert sum(line.startswith(MAIN) for line in told.lines) == 1
    assert look(shop.state).sync == {}
    shop.let_go()
    eventually(lambda: bool(look(shop.state).sync) and bool(look(shop.state).function))
    eventually(lambda: look(shop.state).for_the_night == 1)
    stop.event.set()
    running.join(30)
    assert not running.is_alive()
    assert not stop.crashed


def test_sync_can_be_stopped_meanwhile(shop: Shop, told: Told) -> None:
    stop = Stop()
    sync = Sync(shop.config, stop)
    shop.hold()
    running = threading.Thread(target=sync.run)
    running.start()
    told.wait(MAIN)
    stop.event.set()
    running.join(30)
    assert not running.is_alive()
    assert not stop.crashed


def test_who_starts_meanwhile_is_told_to_come_again(shop: Shop) -> None:
    shop.hold()
    with pytest.raises(Retryable) as told:
        Writer(shop.state, Limits(), 0)
    assert told.value.code == "store-busy"
    shop.let_go()
    Writer(shop.state, Limits(), 0).close()


def test_a_picture_is_not_submitted_meanwhile(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(to_jpeg(np.zeros((8, 8, 3), np.uint8), 85, 640)[0])
    shop.hold()
    assert main(["submit", str(picture), "-c", str(shop.path)]) == 3
    assert "store-busy" in capsys.readouterr().err
