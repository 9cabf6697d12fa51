"""What is open beside the device: what sync says counts only while it is fresh, and what is chosen is paid for."""

import json

import numpy as np
import pytest
from world import FakeClock

from agent.core.budget import Budget
from agent.core.placement import Load, Where
from agent.ports import Frame, Picture, Spooled
from agent.ways import FACT_STALE_S, LEAST_ROOM_BYTES, PROBE_EVERY_S, Terms, Ways

PICTURE: Picture = np.zeros((90, 160, 3), np.uint8)
BUSY = Load(9, 1, 100.0)


class Spool:
    def __init__(self) -> None:
        self.room = 1 << 30

    def room_bytes(self) -> int:
        return self.room

    def keep(self, jpeg: bytes) -> Spooled:
        raise NotImplementedError


class Bench:
    def __init__(self, per_hour: int = 3600) -> None:
        self.clock = FakeClock()
        self.spool = Spool()
        budget = Budget(per_hour, 60, 1.0, 0.00001, self.clock.boot_ns)
        self.ways = Ways(Terms(True, "auto", {"shelf": 250.0}, 1280), budget, self.spool, "boot", lambda: "synced")

    def hear(self, health: str = "up", *, connected: bool = True, usd: float | None = None) -> None:
        told = {"health": health, "reason": "", "usd_per_call": usd, "latency_ms": None}
        self.ways.heed(
            json.dumps({**told, "at_boot_ns": self.clock.boot_ns}), json.dumps({"connected": connected, "code": ""})
        )

    def place(self, picture: Picture = PICTURE, *, has_room: bool = True) -> tuple[Where, str]:
        frame = Frame("shelf", 1, picture, self.clock.now())
        placed = self.ways.place(frame, BUSY, self.clock.now(), displaced=True, has_room=lambda _: has_room)
        return placed.where, placed.reason


def test_before_sync_has_spoken_frames_wait_for_the_night() -> None:
    assert Bench().place() == (Where.DEFERRED, "link-down")


@pytest.mark.parametrize("function", [None, "no json", "[]", "{}", '{"health": "splendid", "at_boot_ns": 1}'])
def test_what_cannot_be_read_counts_as_down(function: str | None) -> None:
    bench = Bench()
    bench.ways.heed(function, json.dumps({"connected": True}))
    assert bench.place() == (Where.DEFERRED, "function-down")


def test_the_function_is_used_while_sync_says_that_it_is_up() -> None:
    bench = Bench()
    bench.hear()
    assert bench.place() == (Where.SERVERLESS, "displaced")
    bench.clock.advance(FACT_STALE_S)
    assert bench.place() == (Where.SERVERLESS, "displaced")
    bench.clock.advance(1)
    assert bench.place() == (Where.DEFERRED, "function-down"), "sync has died"
    bench.hear("down")
    assert bench.place() == (Where.DEFERRED, "function-down")
    bench.hear(connected=False)
    assert bench.place() == (Where.DEFERRED, "link-down")


def test_a_function_that_is_probed_gets_a_frame_now_and_then() -> None:
    bench = Bench()
    bench.hear("probing")
    assert bench.place()[0] is Where.SERVERLESS
    assert bench.place() == (Where.DEFERRED, "function-down")
    bench.clock.advance(PROBE_EVERY_S)
    assert bench.place()[0] is Where.SERVERLESS


def test_what_is_chosen_is_paid_for() -> None:
    bench = Bench(per_hour=6)
    bench.hear()
    assert [bench.place()[1] for _ in range(4)] == ["displaced"] * 3 + ["budget-hour"]
    bench.hear(usd=2.0)
    assert bench.place()[1] == "budget-day"
    assert bench.ways.describe(bench.clock.now())["function"] == "budget-day"
    assert bench.ways.describe(bench.clock.now())["night"] == ""


def test_room_is_asked_for_the_picture_at_hand() -> None:
    bench = Bench()
    bench.hear()
    bench.spool.room = LEAST_ROOM_BYTES
    assert bench.place()[0] is Where.SERVERLESS
    assert bench.place(np.zeros((720, 1280, 3), np.uint8)) == (Where.DROP, "spool-full")
    assert bench.place(has_room=False) == (Where.DROP, "encoder-busy")
