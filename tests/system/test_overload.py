"""A real vision process at several times what it can answer: every frame has a fate, and every picture its file."""

import json
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_device import Box, stop
from waiting import wait_for

CAMERAS = 4
RATE_FPS = 120

SETTINGS = """
[model]
workers = 1
[cloud]
api = "http://127.0.0.1:9"
[privacy]
pictures = "frames"
[serverless]
per_hour = 100
burst = 20
[review]
below = 1.0
per_hour = 100
[batch]
keep_every = "500 ms"
[spool]
keep_free = "1 MiB"
"""


class Shop(Box):
    """A device whose frames may leave. There is no sync: the test speaks for it."""

    def __init__(self, folder: Path, more: str = "") -> None:
        super().__init__(folder, None, cameras=0)
        cameras = "".join(
            f'[[camera]]\nname = "cam-{n}"\nurl = "synthetic:{n}?width=160&height=90&loop=8"\nrate_fps = {RATE_FPS}\n'
            for n in range(CAMERAS)
        )
        self.config.write_text(self.config.read_text() + cameras + SETTINGS + more)

    @contextmanager
    def store(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(f"{(self.state / 'outbox.sqlite').as_uri()}?mode=rw", uri=True, timeout=20)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def counters(self) -> Counter[str]:
        """Give the store's counters; none before the process has made the store."""
        try:
            with self.store() as store:
                return Counter({str(name): int(n) for name, n in store.execute("SELECT name, n FROM counter")})
        except sqlite3.OperationalError:
            return Counter()

    def placement(self) -> dict[str, Any]:
        """Give what the process has reported last of the ways beside it."""
        placement: dict[str, Any] = self.status()["vision"]["placement"]
        return placement

    def say(self, health: str) -> None:
        """Say what sync would say of link and function."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        facts = {
            "sync": {"connected": True},
            "function": {"health": health, "reason": "", "usd_per_call": None, "at_boot_ns": now_ns},
        }
        with self.store() as store:
            store.executemany(
                "INSERT INTO fact(name, value) VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                [(name, json.dumps(value)) for name, value in facts.items()],
            )


def balance(shop: Shop) -> Counter[str]:
    """Check the books of frames, rows and files; gives the counters."""
    counters = shop.counters()
    dropped = sum(n for name, n in counters.items() if name.startswith("frames:dropped:"))
    elsewhere = counters["frames:serverless"] + counters["frames:deferred"]
    assert counters["frames:captured"] == counters["frames:classified"] + elsewhere + dropped, counters
    with shop.store() as store:
        rows = store.execute("SELECT lane, picture, picture_bytes, expires_ns, body FROM outbox WHERE kind = 'frame'")
        frames = rows.fetchall()
    copied = sum(n for name, n in counters.items() if name.startswith("frames:copied:"))
    assert len(frames) == elsewhere + copied == counters["frame:produced"]
    assert len([row for row in frames if row[0] == 3]) == counters["frames:serverless"]
    for lane, picture, size, expires_ns, body in frames:
        assert (shop.state / "spool" / picture).stat().st_size == size
        assert (expires_ns is not None) == (lane == 3)
        assert json.loads(body)["width"] == 160
    return counters


def test_at_several_times_its_capacity_every_frame_has_a_fate_and_every_picture_a_file(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "d")
    with shop.running("vision") as process:
        wait_for("frames for the night", lambda: shop.counters()["frames:deferred"] > 20)
        shop.say("up")
        wait_for("frames for the function", lambda: shop.counters()["frames:serverless"] > 5)
        shop.say("down")
        wait_for("it to be heard", lambda: shop.placement()["function"] == "function-down")
        counters = shop.counters()
        wait_for("more answers", lambda: shop.counters()["frames:classified"] > counters["frames:classified"] + 200)
        assert stop(process) == 0, shop.log()
    counters = balance(shop)
    assert counters["frames:classified"] > 200
    assert counters["frames:serverless"] <= 100
    assert counters["frames:copied:uncertain"] > 0
    assert counters["frames:copied:kept"] > 0
    with shop.store() as store:
        answered = dict(store.execute(
            "SELECT json_extract(CAST(body AS TEXT), '$.camera'), COUNT(*) FROM outbox WHERE kind = 'result' GROUP BY 1"
        ))  # fmt: skip
    assert len(answered) == CAMERAS
    assert min(answered.values()) > 0.6 * max(answered.values()), "each camera has its share"
    assert shop.placement()["function"] == "function-down"
    assert shop.placement()["night"] == ""
    assert {name.removeprefix("frames:dropped:") for name in counters if name.startswith("frames:dropped:")} <= {
        "encoder-busy", "stopping",
    }  # fmt: skip


def test_a_device_that_is_killed_forgets_no_budget_and_leaves_no_row_without_a_file(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "d")
    spent = 0.0
    for _ in range(2):
        with shop.running("vision") as process:
            wait_for("the process to report", lambda: shop.status().get("vision_runs"))
            shop.say("up")
            before = shop.counters()["frames:serverless"]
            wait_for("the hour's burst to be spent", lambda: "budget-hour" in json.dumps(shop.status()["vision"]))
            assert before == 0 or shop.counters()["frames:serverless"] - before < 10, "a restart refills nothing"
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        balance(shop)
        with shop.store() as store:
            (text,) = store.execute("SELECT value FROM fact WHERE name = 'budget'").fetchone()
        assert json.loads(text)["spent_usd"] >= spent
        spent = json.loads(text)["spent_usd"]
    assert spent > 0


@pytest.mark.parametrize(
    ("more", "reason"),
    [('[placement]\noverflow = "drop"\n', "superseded"), ('[placement]\noverflow = "night"\n', "encoder-busy")],
)
def test_the_policy_of_the_shop_is_kept(tmp_path: Path, more: str, reason: str) -> None:
    shop = Shop(tmp_path / "d", more)
    with shop.running("vision") as process:
        wait_for("the process to report", lambda: shop.status().get("vision_runs"))
        shop.say("up")
        wait_for("overload", lambda: shop.counters()[f"frames:dropped:{reason}"] + shop.counters()["frames:deferred"])
        wait_for("answers", lambda: shop.counters()["frames:classified"] > 100)
        assert stop(process) == 0, shop.log()
    counters = balance(shop)
    assert counters["frames:serverless"] == 0
    assert (counters["frames:deferred"] > 0) == (reason == "encoder-busy")


def test_without_permission_nothing_is_encoded(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "d")
    shop.config.write_text(shop.config.read_text().replace('pictures = "frames"', 'pictures = "thumbnails"'))
    with shop.running("vision") as process:
        wait_for("overload", lambda: shop.counters()["frames:dropped:superseded"] > 20)
        assert stop(process) == 0, shop.log()
    counters = balance(shop)
    assert counters["frame:produced"] == 0
    assert list((shop.state / "spool").iterdir()) == []
