"""`status` and what sync tells the cloud of the device, from real stores: for a person, for programs, for the wire."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.app import Stop
from agent.app.sync import Sync
from agent.cli import main, status_text
from agent.cli.run import may_leave
from agent.config import load
from agent.host.clock import boot_id
from agent.ports import Draft, Lane, Stamp
from agent.store.database import open_database, transaction
from agent.store.frames import FrameSender
from agent.store.inspect import look
from agent.store.sender import REFUSALS_BEFORE_DEAD, Sender
from agent.store.writer import Limits, Writer
from wire.records import FramesStatus, NightStatus

CONFIG = """
[device]
id = "till-3"
store = "zurich-12"
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
PLACED = {
    "frames:captured": 1300, "frames:classified": 1000, "frames:serverless": 200, "frames:deferred": 90,
    "frames:dropped:spool-full": 7, "frames:dropped:superseded": 3, "frames:answered": 195, "frames:expired": 4,
    "frames:copied:uncertain": 2, "answers:serverless": 190, "answers:asynchronous": 2, "answers:batch": 5,
}  # fmt: skip
UP = {"health": "up", "reason": "", "usd_per_call": 2.1e-6, "latency_ms": 213.4, "at_boot_ns": 1}
DOWN = {**UP, "health": "down", "reason": "api-refused"}
LINK = {"connected": True, "broker": "127.0.0.1:9", "code": "", "message": "", "hint": ""}


def camera(name: str, phase: str = "streaming") -> dict[str, object]:
    ill = phase == "stalled"
    return {
        "name": name, "kind": "rtsp", "phase": phase, "code": "camera-silent" if ill else "",
        "message": "no frame for 12 s" if ill else "", "hint": "check the cable" if ill else "",
        "captured": 1300, "dropped": 10, "rate_fps": 4.9, "last_frame_age_s": 0.1,
    }  # fmt: skip


def report(
    *cameras: dict[str, object], closed: str = "", trouble: str = "", age_s: int = 0, pid: int | None = None
) -> str:
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - age_s * 10**9
    return json.dumps(
        {"pid": pid or os.getpid(), "stopped": False, "boot": boot_id(), "boot_ns": boot_ns,
         "model": {"name": "produce", "version": "0.1.0", "release": 1, "digest": "0" * 64}, "runtime": "openvino",
         "store_trouble": trouble, "placement": {"function": closed}, "cameras": cameras or (camera("door"),)}
    )  # fmt: skip


class Shop:
    """A device whose vision runs, and whose sync does when told so: as far as the store can tell."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "shelfwire.toml"
        self.config.write_text(CONFIG.format(folder=folder))
        self.state = folder / "state"
        self.writer = Writer(self.state, Limits(), 0)
        self.writer.start_run(boot_id(), time.time_ns(), "test")
        self.put(vision=report())

    def put(self, *drafts: Draft, counts: dict[str, int] | None = None, **facts: str) -> None:
        self.writer.put(drafts, counts, facts)

    def frame(self, lane: Lane) -> Draft:
        picture = self.writer.spool.keep(b"x" * 1000)
        return Draft("frame", lane, b"{}", Stamp(time.time_ns(), 0), "synced", picture)

    def change(self, old: str, new: str) -> None:
        assert old in self.config.read_text()
        self.config.write_text(self.config.read_text().replace(old, new))

    def see(self, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
        code = main(["status", "-c", str(self.config)])
        return code, capsys.readouterr().out

    def read(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        main(["status", "--json", "-c", str(self.config)])
        status: dict[str, Any] = json.loads(capsys.readouterr().out)
        return status


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.writer.close()


@pytest.fixture
def sender(shop: Shop) -> Iterator[Sender]:
    """Somebody holds sync's lock: sync runs."""
    made = Sender(shop.state, 0)
    shop.put(sync=json.dumps(LINK), function=json.dumps(UP))
    yield made
    made.close()


def test_a_fallback_of_the_model_is_told_with_its_cure(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    note = {"code": "device-missing", "message": "no GPU here", "hint": "set device to cpu"}
    shop.put(vision=json.dumps({**json.loads(report()), "setup": "openvino (cpu, fp32)", "notes": [note]}))
    assert "model-fallback" in codes(shop.read(capsys))
    screen = " ".join(shop.see(capsys)[1].split())
    assert "on openvino (cpu, fp32)" in screen
    assert "asked for: no GPU here" in screen
    assert "cure: set device to cpu" in screen


def codes(status: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in status["warnings"] if warning["code"] != "clock-unsure"]


def block(screen: str, name: str) -> list[list[str]]:
    """The words of a part of the screen, line by line."""
    lines = screen.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(name + " "))
    found = [lines[first].removeprefix(name).split()]
    for line in lines[first + 1 :]:
        if not line.startswith(" "):
            break
        found.append(line.split())
    return found


@pytest.mark.usefixtures("sender")
def test_every_way_to_an_answer_is_counted_on_the_screen(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.put(*(shop.frame(lane) for lane in (Lane.OFFLOAD, Lane.REVIEW, Lane.BATCH)), counts=PLACED)
    code, screen = shop.see(capsys)
    assert code == 0
    assert block(screen, "state") == [["all", "is", "well"]]
    assert [line[0] for line in block(screen, "frames")] == ["1,300", "1,000", "200", "90", "10"]
    assert "(spool-full 7, superseded 3)" in screen
    assert [line[0] for line in block(screen, "answers")] == ["1,000", "190", "2", "5", "95"]
    assert [line[0] for line in block(screen, "pictures")] == ["2", "1", "0", "3.0"]
    assert "function  ready, 213 ms per call, 0.0021 USD per 1,000 calls" in screen


def test_for_programs_the_same_in_numbers(shop: Shop, sender: Sender, capsys: pytest.CaptureFixture[str]) -> None:
    shop.put(*(shop.frame(lane) for lane in (Lane.OFFLOAD, Lane.REVIEW, Lane.BATCH)), counts=PLACED)
    frames = FrameSender(shop.state, shop.writer.spool)
    frames.bury(frames.lease(Lane.REVIEW, 0, 1)[0], "picture-lost")
    frames.close()
    assert sender.dead_frames() == 1
    status = shop.read(capsys)
    assert status["frames"] == {
        "captured": 1300, "classified": 1000, "serverless": 200, "deferred": 90, "expired": 4,
        "dropped": {"spool-full": 7, "superseded": 3}, "copied": {"uncertain": 2},
    }  # fmt: skip
    assert status["answers"] == {"real-time": 1000, "serverless": 190, "asynchronous": 2, "batch": 5}
    assert status["unanswered"] == 95
    assert status["pictures"] == {
        "produced": 3, "delivered": 0, "waiting": 1, "for_the_night": 1, "dead": 1, "dropped": {},
    }  # fmt: skip
    assert status["spool"]["bytes"] == 2000
    assert status["spool"]["room_bytes"] <= status["spool"]["max_bytes"] - 2000
    nothing = {"files": 0, "rows": 0, "bytes": 0, "oldest_day": None, "unsealed": 1, "error": ""}
    assert status["night"] == nothing
    assert status["function"] == UP
    assert codes(status) == ["frames-refused"]


@pytest.mark.usefixtures("sender")
def test_a_device_that_answers_all_by_itself_is_not_asked_about_pictures(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.change('pictures = "frames"', 'pictures = "none"')
    shop.put(counts={"frames:captured": 5, "frames:classified": 5})
    _, screen = shop.see(capsys)
    assert not any(screen.count(f"\n{part} ") for part in ("answers", "pictures", "function"))


@pytest.mark.usefixtures("sender")
def test_pictures_that_wait_and_may_not_leave_say_what_they_need(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.put(shop.frame(Lane.REVIEW))
    shop.change('pictures = "frames"', 'pictures = "thumbnails"')
    _, screen = shop.see(capsys)
    assert 'NONE LEAVES this device: that needs [cloud] api and [privacy] pictures = "frames"' in screen
    assert "function  not asked: pictures may not leave" in screen
    assert codes(shop.read(capsys)) == []


@pytest.mark.usefixtures("sender")
def test_a_function_that_does_not_answer_is_a_warning_and_no_failure(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.put(function=json.dumps(DOWN))
    code, screen = shop.see(capsys)
    assert code == 0
    assert "state     1 THING NEEDS YOU, see below: function-down" in screen
    assert "function  DOES NOT ANSWER [api-refused]\n" in screen
    assert "\nWARNING: the cloud's function does not answer (api-refused)" in screen
    assert "\n  cure: check [cloud] api" in screen


@pytest.mark.usefixtures("sender")
def test_a_spent_budget_is_no_trouble_and_is_told(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.put(vision=report(closed="budget-day"))
    _, screen = shop.see(capsys)
    assert "function  ready, but gets no frames now [budget-day]" in screen
    assert codes(shop.read(capsys)) == []


@pytest.mark.usefixtures("sender")
def test_a_full_spool_is_told(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.change('keep_free = "0 B"', 'keep_free = "0 B"\nmax_bytes = "1 MB"')
    status = shop.read(capsys)
    assert (status["spool"]["room_bytes"], codes(status)) == (1_000_000, ["spool-full"])


@pytest.mark.usefixtures("sender")
def test_an_ill_camera_and_a_lost_broker_come_with_their_cures(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    link = {**LINK, "connected": False, "code": "broker-auth", "message": "the login is refused", "hint": "mend it"}
    shop.put(vision=report(camera("door", "stalled"), camera("till")), sync=json.dumps(link))
    code, screen = shop.see(capsys)
    assert code == 1
    assert "2 THINGS NEED YOU, see below: broker-auth, camera-ill" in screen
    assert "sync      NOT CONNECTED to 127.0.0.1:9: the login is refused [broker-auth]" in screen
    assert "  cure: mend it" in screen
    assert "  door: no frame for 12 s [camera-silent]\n    cure: check the cable" in screen


def test_dead_daemons_are_the_first_thing_told(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.put(shop.frame(Lane.BATCH), counts=PLACED)
    shop.writer.close()
    code, screen = shop.see(capsys)
    assert code == 1
    assert "2 THINGS NEED YOU, see below: vision-stopped, sync-stopped" in screen
    assert "function  not asked: sync does not run" in screen
    assert "\nwhen vision last reported:\ncamera" in screen


@pytest.mark.usefixtures("sender")
def test_a_vision_that_is_there_and_says_nothing_does_not_run(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.put(vision=report(age_s=34))
    code, screen = shop.see(capsys)
    assert code == 1
    assert "vision    NOT REPORTING for 34 s" in screen
    assert "1 THING NEEDS YOU, see below: vision-silent" in screen
    assert "\nwhen vision last reported:\ncamera" in screen
    status = shop.read(capsys)
    assert (codes(status), status["vision_runs"], round(status["vision_silent_s"])) == (["vision-silent"], True, 34)


@pytest.mark.usefixtures("sender")
@pytest.mark.parametrize(("age_s", "pid"), [(2, os.getpid()), (34, os.getpid() + 1)])
def test_a_vision_that_just_reported_or_just_starts_is_not_called_silent(
    shop: Shop, capsys: pytest.CaptureFixture[str], age_s: int, pid: int
) -> None:
    shop.put(vision=report(age_s=age_s, pid=pid))
    code, screen = shop.see(capsys)
    assert (code, "NOT REPORTING" in screen) == (0, False)


def test_without_a_broker_nobody_misses_sync(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.change('broker = "mqtt://127.0.0.1:9"\n', "")
    assert codes(shop.read(capsys)) == []
    assert "sync      no broker is configured" in shop.see(capsys)[1]


def test_a_drain_does_not_wait_for_pictures_that_may_not_leave(shop: Shop) -> None:
    result = Draft("result", Lane.RESULT, b"{}", Stamp(0, 0), "synced")
    shop.put(result, *(shop.frame(lane) for lane in (Lane.OFFLOAD, Lane.REVIEW, Lane.BATCH)))
    assert may_leave(load(shop.config)) == 3
    shop.change('pictures = "frames"', 'pictures = "none"')
    assert may_leave(load(shop.config)) == 1


def test_files_of_the_night_are_told(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.put(shop.frame(Lane.BATCH))
    db = open_database(shop.state, check=False)
    db.execute(
        "INSERT INTO shard(device, store, day, part, file, rows, bytes, sha256, sealed_ns, error)"
        " VALUES ('shop-1', '', '2026-11-24', 1, 'f', 1, 900, '', 1, 'no route')"
    )
    db.close()
    status = shop.read(capsys)
    night = {"files": 1, "rows": 1, "bytes": 900, "oldest_day": "2026-11-24", "unsealed": 1, "error": "no route"}
    assert status["night"] == night
    assert "night-late" in [w["code"] for w in status["warnings"]]
    assert "wait for the night, 1 of them in 1 file to upload, the oldest of 2026-11-24" in shop.see(capsys)[1]


def test_sizes_and_times_are_written_for_people() -> None:
    assert [status_text.size(n) for n in (0, 999, 1000, 8_600_000, 4 << 30)] == [
        "0 B", "999 B", "1.0 kB", "8.6 MB", "4.3 GB",
    ]  # fmt: skip
    assert [status_text.duration(s) for s in (3, 119, 600, 7200, 100_000, 900_000)] == [
        "3 s", "119 s", "10 min", "2 h", "28 h", "10 days",
    ]  # fmt: skip


def test_sync_tells_the_cloud_the_same(shop: Shop) -> None:
    """`Sync.describe`, without a broker: what it would say in its next status message."""
    shop.put(shop.frame(Lane.REVIEW), shop.frame(Lane.BATCH), counts=PLACED)
    frames = FrameSender(shop.state, shop.writer.spool)
    row = frames.lease(Lane.REVIEW, 0, 1)[0]
    assert [frames.refuse(row, "bad", 0) for _ in range(REFUSALS_BEFORE_DEAD)][-1]
    frames.close()
    stop = Stop()
    sync = Sync(load(shop.config), stop)
    status = sync.describe()
    stop.event.set()
    sync.run()
    assert status.frames == FramesStatus(
        captured=1300, local=1000, serverless=200, deferred=90, dropped=10, unanswered=95
    )
    assert status.night == NightStatus(files=0, rows=0, bytes=0, unsealed=1)
    assert status.vision == "running"
    assert [w.code for w in status.warnings if w.code != "clock-unsure"] == ["frames-refused"]


def test_looking_takes_no_lock_away_from_the_process_that_looks(tmp_path: Path) -> None:
    """Closing a file drops every POSIX lock of its process: a second SQLite library here would let others write now."""
    writer = open_database(tmp_path)
    with transaction(writer):
        look(tmp_path)
        other = subprocess.run([sys.executable, "-c", TRY_TO_WRITE, str(tmp_path / "outbox.sqlite")], check=False)
        assert other.returncode == 5  # SQLITE_BUSY
    other = subprocess.run([sys.executable, "-c", TRY_TO_WRITE, str(tmp_path / "outbox.sqlite")], check=False)
    assert other.returncode == 0
    writer.close()


TRY_TO_WRITE = """
import sys
import apsw
try:
    apsw.Connection(sys.argv[1]).execute("BEGIN IMMEDIATE")
except apsw.Error as error:
    sys.exit(error.result)
"""


def test_it_says_how_the_model_runs_and_why_and_what_kept_it_from_being_measured() -> None:
    tuning = {
        "setup": "openvino on cpu, int8",
        "reason": "INT8: 1.8 times",
        "missing": "",
        "measuring": False,
        "trouble": "",
    }

    def shown(**changes: object) -> list[str]:
        snapshot = SimpleNamespace(vision={"tuning": tuning | changes}, vision_runs=True)
        ((name, lines),) = status_text._tuning(snapshot, None)  # type: ignore[arg-type]
        assert name == "setup"
        return lines

    assert shown() == ["openvino on cpu, int8", "INT8: 1.8 times"]
    waiting = shown(missing="nothing was measured yet", measuring=True)
    assert waiting[1] == "nothing was measured yet, it is being measured now"
    assert shown(trouble="it ended [bench-failed]")[2] == "NOT MEASURED: it ended [bench-failed]"
