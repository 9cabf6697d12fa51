"""The night's files: nothing lost, nothing twice, and any reader of Parquet opens them."""

import contextlib
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as dtime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nights import BOOT, BOOT_NS, NIGHT_NS, NOON_NS, Device, Sealer, body, night

from agent.cli import main
from agent.core.backlog import Backlog
from agent.core.days import Now, local_day
from agent.errors import Broken, Retryable
from agent.host.clock import SystemClock
from agent.ports import Lane, Spooled
from agent.store.batch import BatchFolder
from agent.store.database import Lock, Reserve
from agent.store.inspect import look
from agent.store.shards import Shards, listing, summary
from agent.store.spool import Spool
from agent.store.writer import Limits

DAY_NS = 86_400 * 10**9


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command logs to the standard error of its test, which is closed afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    one = Device(tmp_path / "state")
    yield one
    one.close()


@pytest.fixture
def sealer(device: Device) -> Iterator[Sealer]:
    one = Sealer(device.state)
    yield one
    one.close()


def read(device: Device, name: str) -> pa.Table:
    return pq.read_table(device.state / "batch" / name)


def sealed_frames(device: Device) -> dict[int, bytes]:
    """Pictures in all sealed files, by sequence number; none twice."""
    found: dict[int, bytes] = {}
    for shard in listing(device.state):
        table = read(device, shard.file.name)
        assert table.num_rows == shard.rows
        for seq, jpeg in zip(table["seq"].to_pylist(), table["picture"].to_pylist(), strict=True):
            assert seq not in found
            found[seq] = jpeg
    return found


# -- the file ------------------------------------------------------------------------------------------------


def test_a_file_holds_the_frames_as_they_were_and_says_what_to_expect(device: Device, sealer: Sealer) -> None:
    seqs = device.capture(250)
    report = sealer.nightly.run(night())
    assert (report.rows, report.lost, report.later, len(report.sealed)) == (250, 0, 0, 1)
    shard = report.sealed[0]
    path = device.state / "batch" / shard.file.name
    assert shard.file.name == f"2026-11-24-0001-{shard.file.sha256[:16]}.parquet"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == shard.file.sha256
    assert path.stat().st_size == shard.file.size_bytes
    assert path.stat().st_mode & 0o777 == 0o600
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
    assert groups == [100, 100, 50]
    assert json.loads(file.metadata.metadata[b"shelfwire"]) == {
        "version": 1,
        "device": "shop-1",
        "store": "store-12",
        "day": "2026-11-24",
        "part": 1,
        "rows": 250,
        "pictures_bytes": sum(map(len, device.jpegs.values())),
        "first_captured_at": "2026-11-24T11:00:00.000000Z",
        "last_captured_at": "2026-11-24T11:04:09.000000Z",
    }
    assert sealed_frames(device) == device.jpegs
    assert list(device.jpegs) == seqs
    device.books_balance()


def test_the_columns_are_those_of_the_contract(device: Device, sealer: Sealer) -> None:
    device.capture(2)
    schema = read(device, sealer.nightly.run(night()).sealed[0].file.name).schema
    text = pa.string()
    assert [(f.name, f.type, f.nullable) for f in schema] == [
        ("frame_id", text, False), ("device", text, False), ("store", text, False), ("run", text, False),
        ("seq", pa.int64(), False), ("camera", text, False), ("frame", pa.int64(), False),
        ("captured_at", pa.timestamp("us", "UTC"), False), ("dated_by", text, False), ("day", text, False),
        ("reason", text, False), ("width", pa.int32(), False), ("height", pa.int32(), False), ("label", text, True),
        ("score", pa.float64(), True), ("labels", text, True), ("model_name", text, True),
        ("model_version", text, True), ("model_release", pa.int32(), True), ("model_digest", text, True),
        ("truth", text, True), ("picture", pa.binary(), False), ("picture_sha256", text, False),
    ]  # fmt: skip


def test_duckdb_and_pandas_read_it_as_it_is(device: Device, sealer: Sealer) -> None:
    seqs = device.capture(4)
    path = device.state / "batch" / sealer.nightly.run(night()).sealed[0].file.name
    run = next(iter(device.runs.values()))
    rows = duckdb.sql(
        f"SELECT frame_id, camera, label, score, labels, model_release, truth, reason, octet_length(picture),"
        f" sha256(picture) = picture_sha256, epoch_us(captured_at) FROM '{path}' ORDER BY seq"
    ).fetchall()
    assert rows[0] == (
        f"shop-1/{run}/{seqs[0]}", "cam-1", None, None, None, None, None, "displaced", 904, True,
        NOON_NS // 1000,
    )  # fmt: skip
    labels = '[{"label":"Banana","score":0.75}]'
    assert rows[1][1:8] == ("cam-2", "Banana", 0.75, labels, 3, "Lemon", "kept")
    frames = pd.read_parquet(path)
    assert frames["captured_at"].iloc[3] == pd.Timestamp("2026-11-24T11:00:03Z")
    assert list(frames["picture"]) == list(device.jpegs.values())
    assert frames["day"].unique().tolist() == ["2026-11-24"]


def test_a_day_that_is_too_large_becomes_several_files_that_hold_every_frame_once(device: Device) -> None:
    device.capture(60, size=10_000)
    small = Sealer(device.state, shard_bytes=200_000)
    report = small.nightly.run(night())
    small.close()
    assert [s.part for s in report.sealed] == [1, 2, 3, 4]
    assert all(s.file.size_bytes <= 200_000 for s in report.sealed)
    assert sealed_frames(device) == device.jpegs


def test_a_picture_larger_than_a_file_may_be_goes_alone(device: Device) -> None:
    device.capture(3, size=5000)
    tiny = Sealer(device.state, shard_bytes=1000)
    assert [s.rows for s in tiny.nightly.run(night()).sealed] == [1, 1, 1]
    tiny.close()


# -- what is due ---------------------------------------------------------------------------------------------


def test_an_empty_day_is_no_trouble(device: Device, sealer: Sealer) -> None:
    report = sealer.nightly.run(night())
    assert (report.sealed, report.later) == ([], 0)
    assert device.batch_files() == []


def test_every_day_that_is_over_gets_files_of_its_own_and_today_waits(device: Device, sealer: Sealer) -> None:
    device.capture(3, wall_ns=NOON_NS - DAY_NS)
    device.capture(2)
    device.capture(4, wall_ns=NIGHT_NS - 60 * 10**9)
    report = sealer.nightly.run(night())
    assert [(s.day, s.part, s.rows) for s in report.sealed] == [("2026-11-23", 1, 3), ("2026-11-24", 1, 2)]
    assert report.later == 4
    assert summary(device.state).unsealed == 4
    now = sealer.nightly.run(night(), today_too=True)
    assert [(s.day, s.rows) for s in now.sealed] == [("2026-11-25", 4)]
    assert sealer.shards.ship_now() == now.sealed[0].number


def test_a_second_run_seals_only_what_is_new_under_the_next_number(device: Device, sealer: Sealer) -> None:
    device.capture(5)
    first = sealer.nightly.run(night()).sealed[0]
    assert sealer.nightly.run(night()).sealed == []
    sealer.shards.deliver(first.number)
    late = device.capture(2)
    again = sealer.nightly.run(night()).sealed
    assert [(s.part, s.rows) for s in again] == [(2, 2)]
    assert set(sealed_frames(device)) == set(late)


def test_one_day_can_be_asked_for(device: Device, sealer: Sealer) -> None:
    device.capture(1, wall_ns=NOON_NS - DAY_NS)
    device.capture(1)
    assert [s.day for s in sealer.nightly.run(night(), day="2026-11-23").sealed] == ["2026-11-23"]
    assert summary(device.state).unsealed == 1


def test_only_frames_of_the_night_are_taken(device: Device, sealer: Sealer) -> None:
    device.capture(2, lane=Lane.OFFLOAD)
    device.capture(2, lane=Lane.REVIEW)
    assert sealer.nightly.run(night()).sealed == []
    assert device.spooled() == 4


def test_rows_of_a_wrong_clock_are_dated_as_well_as_can_be_and_say_so(device: Device, sealer: Sealer) -> None:
    hour_ns = 3600 * 10**9
    [mended] = device.capture(wall_ns=86_400 * 10**9, clock="unsure", boot_ns=BOOT_NS - 5 * hour_ns)
    [unknown] = device.capture(wall_ns=86_400 * 10**9, clock="unsure", boot="before")
    [good] = device.capture()
    tables = [read(device, s.file.name) for s in sealer.nightly.run(night()).sealed]
    said = {seq: (day, by) for t in tables for seq, day, by in
            zip(t["seq"].to_pylist(), t["day"].to_pylist(), t["dated_by"].to_pylist(), strict=True)}  # fmt: skip
    assert said == {
        mended: ("2026-11-24", "boot-clock"),
        unknown: ("2026-11-25", "unsure"),
        good: ("2026-11-24", "device"),
    }
    times = {t["seq"][n].as_py(): t["captured_at"][n].as_py() for t in tables for n in range(t.num_rows)}
    assert times[mended] == datetime.fromtimestamp((NIGHT_NS - 5 * hour_ns) / 1e9, UTC)
    for table in tables:
        manifest = json.loads(table.schema.metadata[b"shelfwire"])
        assert set(table["day"].to_pylist()) == {manifest["day"]}


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_on_which_the_clocks_change_is_sealed_whole(device: Device, sealer: Sealer, day: str, hours: int) -> None:
    """One frame per hour from before that day to after it; at 03:00 of the day after, the whole day is in one file."""
    zone = ZoneInfo("Europe/Berlin")
    midnight = datetime.combine(date.fromisoformat(day), dtime(), zone)
    start_ns = int(midnight.timestamp()) * 10**9
    for hour in range(-2, 28):
        device.capture(wall_ns=start_ns + hour * 3600 * 10**9)
    end = datetime.combine(date.fromisoformat(day) + timedelta(days=1), dtime(3), zone)
    report = sealer.nightly.run(Now(int(end.timestamp()) * 10**9, BOOT_NS, "synced", BOOT, zone))
    before = (midnight - timedelta(days=1)).date().isoformat()
    assert [(s.day, s.rows) for s in report.sealed] == [(before, 2), (day, hours)]


# -- bad days ------------------------------------------------------------------------------------------------


def test_missing_and_altered_pictures_are_set_aside_and_hold_up_nothing(device: Device, sealer: Sealer) -> None:
    seqs = device.capture(205)
    device.picture(seqs[0]).unlink()
    device.picture(seqs[101]).write_bytes(b"\xff\xd8 something else")
    cut = device.picture(seqs[204])
    cut.write_bytes(cut.read_bytes()[:100])
    report = sealer.nightly.run(night())
    assert (report.rows, report.lost) == (202, 3)
    assert [s.part for s in report.sealed] == [1]
    lost = {seqs[0], seqs[101], seqs[204]}
    assert sealed_frames(device) == {seq: jpeg for seq, jpeg in device.jpegs.items() if seq not in lost}
    dead = device.rows("SELECT seq, error FROM outbox WHERE state = 2")
    assert {(seq, error) for seq, error in dead} == {(seq, "picture-lost") for seq in lost}
    assert device.batch_files() == [report.sealed[0].file.name]
    device.books_balance()


def test_a_record_that_cannot_be_read_is_set_aside(device: Device, sealer: Sealer) -> None:
    device.capture(1, record=body(1, width="wide"))
    device.capture(1, record=b"[1]")
    device.capture(1, record=body(1, score="high"))
    device.capture(1)
    report = sealer.nightly.run(night())
    assert (report.rows, report.lost) == (1, 3)
    assert device.rows("SELECT DISTINCT error FROM outbox WHERE state = 2") == [("bad-record",)]
    device.books_balance()


def test_a_day_of_which_every_picture_is_lost_leaves_no_file(device: Device, sealer: Sealer) -> None:
    for seq in device.capture(3):
        device.picture(seq).unlink()
    report = sealer.nightly.run(night())
    assert (report.sealed, report.lost) == ([], 3)
    assert device.batch_files() == []


def test_frames_evicted_while_their_file_is_written_are_not_in_it(tmp_path: Path) -> None:
    device = Device(tmp_path / "state", Limits(max_rows=1000))
    device.capture(1000)
    evictions = iter([device.writer.evict])

    def on_step(step: str) -> None:
        if step == "named" and (evict := next(evictions, None)):
            device.capture(100, lane=Lane.REVIEW)
            assert evict()

    sealer = Sealer(device.state, on_step=on_step)
    report = sealer.nightly.run(night())
    left = {seq for (seq,) in device.rows("SELECT seq FROM outbox WHERE lane = 5")}
    assert 0 < report.rows < 1000
    assert set(sealed_frames(device)) == left
    device.books_balance()
    # What lies in a file is never evicted.
    device.capture(500, lane=Lane.REVIEW)
    device.writer.evict()
    assert set(sealed_frames(device)) == left
    sealer.close()
    device.close()


def test_a_second_run_at_the_same_time_is_refused(device: Device, tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "device.toml"
    config.write_text(f'[device]\nid = "shop-1"\nstate_dir = "{device.state}"\n')
    lock = Lock(device.state, "nightly")
    lock.take()
    assert main(["nightly", "--json", "--config", str(config)]) == Retryable.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "already-running"
    assert "wait until that one has ended" in error["hint"]
    lock.release()
    assert main(["nightly", "--json", "--config", str(config)]) == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from nights import Sealer, night
step, state = sys.argv[1], Path(sys.argv[2])
def on_step(name):
    if name == step:
        os.kill(os.getpid(), signal.SIGKILL)
Sealer(state, shard_bytes=60_000, on_step=on_step).nightly.run(night())
"""


@pytest.mark.parametrize("step", ["unpacked", "taken-back", "written", "named", "handed-over", "trimmed"])
def test_kill_9_while_a_file_of_a_wrong_clock_is_sealed_anew(device: Device, sealer: Sealer, step: str) -> None:
    years_ns = 5 * 365 * DAY_NS
    device.capture(20, wall_ns=NOON_NS + years_ns, clock="unsure", boot="before")
    assert sealer.nightly.run(night(NIGHT_NS + years_ns, clock="unsure")).rows == 20
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, step, str(device.state)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    device.books_balance()
    sealer.nightly.run(night())
    assert sealed_frames(device) == device.jpegs
    assert {s.day for s in listing(device.state)} == {"2026-11-25"}
    assert device.batch_files() == [s.file.name for s in listing(device.state)]
    device.books_balance()


@pytest.mark.parametrize("step", ["written", "named", "handed-over", "trimmed"])
def test_kill_9_at_every_step_loses_nothing_and_doubles_nothing(device: Device, step: str) -> None:
    device.capture(120)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, step, str(device.state)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    device.books_balance()
    again = Sealer(device.state, shard_bytes=60_000)
    again.nightly.run(night())
    again.close()
    assert sealed_frames(device) == device.jpegs
    assert device.spooled() == 0
    assert device.batch_files() == sorted(s.file.name for s in listing(device.state))
    parts = [s.part for s in listing(device.state)]
    assert parts == list(range(1, len(parts) + 1))
    device.books_balance()


@pytest.mark.parametrize("after", [1, 25, 119])
def test_who_interrupts_it_hears_what_was_sealed_and_loses_nothing(
    device: Device, config: Path, after: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes in the middle of the writer's own call."""
    config.write_text(config.read_text() + '[batch]\nshard = "60 kB"\n')
    device.capture(120, wall_ns=time.time_ns() - 2 * DAY_NS)
    read_picture = Spool.read
    reads = iter(range(1, 10_000))

    def read_and_interrupt(spool: Spool, picture: Spooled) -> bytes:
        if next(reads) == after:
            os.kill(os.getpid(), signal.SIGINT)
        return read_picture(spool, picture)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "read", read_and_interrupt)
        assert main(["nightly", "--config", str(config)]) == 130
    signal.signal(signal.SIGINT, before)
    said = capfd.readouterr()
    assert ("stopped before the end" in said.out) == (after > 60)
    assert "panicked" not in said.err
    device.books_balance()
    assert main(["nightly", "--config", str(config)]) == 0
    assert sealed_frames(device) == device.jpegs
    assert device.batch_files() == sorted(s.file.name for s in listing(device.state))


FULL = """
import resource, signal, sys
from pathlib import Path
from agent.errors import Broken
from nights import Sealer, night
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    Sealer(Path(sys.argv[1])).nightly.run(night())
except Broken as error:
    print(error.code)
"""


def test_a_disk_that_takes_no_more_ends_the_run_and_costs_nothing(device: Device) -> None:
    """A limit on the size of a file stands in for the full disk: the same error at the same place."""
    device.capture(60, size=10_000)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    full = subprocess.run(
        [sys.executable, "-c", FULL, str(device.state)], env=environment, check=False, capture_output=True, text=True
    )
    assert full.stdout == "disk-full\n"
    assert "panicked" not in full.stderr
    assert device.batch_files() == []
    assert device.spooled() == 60
    again = Sealer(device.state)
    again.nightly.run(night())
    again.close()
    assert sealed_frames(device) == device.jpegs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_small_disk_that_is_nearly_full_is_sealed_in_small_files(small_disk: Path) -> None:
    """Each file frees its pictures, so a disk with little room takes a day of pictures all the same."""
    device = Device(small_disk / "state")
    while device.writer.spool.room_bytes() > 6 << 20:
        device.capture(20, size=50_000)
        device.writer.spool._looked_s = None
    sealer = Sealer(device.state)
    report = sealer.nightly.run(night())
    sealer.close()
    assert len(report.sealed) > 1
    assert sealed_frames(device) == device.jpegs
    assert device.spooled() == 0
    device.close()


@pytest.mark.parametrize("reserve_mib", [0, 8])
def test_a_disk_without_a_byte_left(small_disk: Path, capsys: pytest.CaptureFixture[str], reserve_mib: int) -> None:
    """The command says so, and the reserve is enough to start with; with room again nothing is missing."""
    device = Device(small_disk / "state")
    seqs = device.capture(150, size=40_000, wall_ns=time.time_ns() - 2 * DAY_NS)
    device.close()  # so that SQLite's own files are gone: who starts on a full disk must make them
    if reserve_mib:
        assert Reserve(device.state, reserve_mib << 20).build()
    ballast = fill_up(small_disk)
    config = small_disk.parent / "device.toml"
    config.write_text(f'[device]\nid = "shop-1"\nstate_dir = "{device.state}"\n')
    if not reserve_mib:
        for words in (["nightly"], ["nightly", "--list"], ["status"]):
            assert main([*words, "--json", "--config", str(config)]) == Broken.exit_code
            assert json.loads(capsys.readouterr().out)["error"]["code"] == "disk-full"
        ballast.unlink()
    assert ask(capsys, config)["rows"] == len(seqs)
    assert sealed_frames(device) == device.jpegs


def fill_up(disk: Path) -> Path:
    """Leave no byte on a disk; gives the file to remove."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    return ballast


def test_files_without_a_row_are_swept_at_the_second_look(device: Device, sealer: Sealer) -> None:
    """One that is just being handed over has no row yet; what the wall clock says does not count."""
    folder = device.state / "batch"
    device.capture(3)
    known = {s.file.name for s in sealer.nightly.run(night()).sealed}
    for name in ("2026-01-01-0001-0000000000000000.parquet", "2026-01-01-0001.part", "notes.txt"):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (1, 1))
    assert sealer.folder.sweep(known) == 0
    (folder / "2026-01-02-0001-0000000000000000.parquet").write_bytes(b"x")
    assert sealer.folder.sweep(known) == 2
    assert set(device.batch_files()) == known | {"notes.txt", "2026-01-02-0001-0000000000000000.parquet"}
    assert sealer.folder.sweep(known, at_once=True) == 1


def test_what_was_set_aside_is_kept_for_a_month(device: Device) -> None:
    now_s = [1e9]
    folder = BatchFolder(device.state, time_s=lambda: now_s[0])
    (folder.folder / "a.parquet").write_bytes(b"x")
    kept = folder.set_aside("a.parquet")
    assert kept is not None
    assert folder.set_aside("none.parquet") is None
    os.utime(kept, (1e9, 1e9))
    now_s[0] += 29 * 86_400
    assert folder.sweep(()) == 0
    now_s[0] += 2 * 86_400
    assert folder.sweep(()) == 1


def test_files_sealed_by_a_clock_in_the_future_are_sealed_anew_when_the_clock_is_right(
    device: Device, sealer: Sealer
) -> None:
    years_ns = 5 * 365 * DAY_NS
    hour_ns = 3600 * 10**9
    [this_boot] = device.capture(wall_ns=NOON_NS + years_ns, clock="unsure", boot_ns=BOOT_NS - 12 * hour_ns)
    [other] = device.capture(wall_ns=NOON_NS + years_ns, clock="unsure", boot="before")
    wrong = sealer.nightly.run(night(NIGHT_NS + years_ns, clock="unsure"), today_too=True)
    assert all(s.day > "2031" for s in wrong.sealed)
    assert sealer.nightly.run(night(NIGHT_NS, clock="unsure")).sealed == []
    right = sealer.nightly.run(night())
    assert [(s.day, s.rows) for s in right.sealed] == [("2026-11-24", 1), ("2026-11-25", 1)]
    assert sealed_frames(device) == device.jpegs
    assert [read(device, s.file.name)["seq"].to_pylist() for s in right.sealed] == [[this_boot], [other]]
    assert device.batch_files() == sorted(s.file.name for s in right.sealed)
    assert device.spooled() == 0
    device.books_balance()


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture
def config(device: Device, tmp_path: Path) -> Path:
    path = tmp_path / "device.toml"
    path.write_text(f'[device]\nid = "shop-1"\nstore = "store-12"\nstate_dir = "{device.state}"\n')
    return path


def ask(capsys: pytest.CaptureFixture[str], config: Path, *words: str) -> dict[str, Any]:
    assert main(["nightly", "--json", "--config", str(config), *words]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_the_command_seals_and_lists(device: Device, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device.capture(7, wall_ns=time.time_ns() - 2 * DAY_NS)  # the command goes by the machine's own clock
    sealed = ask(capsys, config)
    assert (sealed["rows"], sealed["lost"], sealed["waiting"]["shards"]) == (7, 0, 1)
    listed = ask(capsys, config, "--list")
    assert [s["rows"] for s in listed["shards"]] == [7]
    assert listed["unsealed"] == {"frames": 0, "bytes": 0}
    assert main(["nightly", "--list", "--config", str(config)]) == 0
    assert "no picture waits to be sealed" in capsys.readouterr().out
    assert ask(capsys, config)["sealed"] == []


def test_it_tells_what_becomes_of_the_files(
    device: Device, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(*words: str) -> str:
        assert main(["nightly", "--config", str(config), *words]) == 0
        return capsys.readouterr().out

    device.capture(3, wall_ns=time.time_ns() - 2 * DAY_NS)
    day = local_day(time.time_ns() - 2 * DAY_NS)
    assert f"{day}: sealed 3 pictures in 1 file (0.0 MB)" in say()
    assert "1 file (0.0 MB) waits, and NONE LEAVES" in say("--list")
    config.write_text(config.read_text() + '[cloud]\napi = "http://127.0.0.1:1"\n[privacy]\npictures = "frames"\n')
    assert "1 file (0.0 MB) waits for the cloud: uploaded between 01:00 and 06:00" in say("--list")
    assert "NOT RUNNING" in say("--list")
    sync = Lock(device.state, "sync")
    sync.take()
    assert "NOT RUNNING" not in say("--list")
    device.capture(2, wall_ns=time.time_ns() - 10**9)
    assert "nothing to seal yet: 2 pictures wait for the end of their day" in say()
    assert f"no unsealed picture is of {day}" in say("--date", day)
    assert "2 files (0.0 MB) wait for the cloud: uploaded now" in say("--now")
    device.capture(1, wall_ns=time.time_ns() - 2 * DAY_NS)
    monkeypatch.setattr(SystemClock, "trust", lambda _: "unsure")
    said = say()
    assert "2 uploaded now, 1 uploaded between 01:00 and 06:00" in said
    assert "days may be wrong" in said
    sync.release()


def test_what_waits_is_told(device: Device, sealer: Sealer, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(device.state) == sealer.shards.backlog() == Backlog()
    device.capture(3, wall_ns=NOON_NS - DAY_NS)
    device.capture(2)
    device.capture(4, wall_ns=NIGHT_NS - 60 * 10**9, size=96)
    device.capture(1, wall_ns=5, boot_ns=BOOT_NS, clock="unsure", size=96)
    files = sealer.nightly.run(night()).sealed
    sealer.shards.note(files[1].number, "no route")
    told = sealer.shards.backlog()
    assert told == summary(device.state) == look(device.state).night
    assert (told.files, told.rows, told.in_the_window, told.oldest_day) == (2, 5, 2, "2026-11-23")
    assert (told.sealed_ns, told.error) == (NIGHT_NS, "no route")
    assert told.bytes == sum(shard.file.size_bytes for shard in files)
    assert (told.unsealed, told.unsealed_bytes, told.captured_ns) == (5, 500, NIGHT_NS - 60 * 10**9)
    capsys.readouterr()
    for shard in files:
        sealer.shards.refuse(shard.number, "the file is not what was declared [shard-bad]")
    assert main(["nightly", "--list", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("Z  ")[1] for line in lines[1:3]] == ["shard-bad, refused once"] * 2
    assert lines[3] == "the file is not what was declared [shard-bad]"
    sealer.shards.hurry()
    assert sealer.shards.backlog().in_the_window == 0


def test_progress_is_told_while_a_file_is_written(device: Device, sealer: Sealer) -> None:
    seqs = device.capture(40)
    device.picture(seqs[20]).unlink()
    told: list[tuple[int, int]] = []
    sealer.nightly.run(night(), progress=lambda done, total: told.append((done, total)))
    assert told[0] == (1, 40)
    assert told[-1] == (40, 40)
    assert all(0 < done <= 40 for done, _ in told)
    assert len(told) >= 40


def test_an_empty_day_is_said_in_words(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nightly", "--config", str(config)]) == 0
    assert "nothing to seal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"), [(["--date", "tomorrow"], "day-bad"), (["--date", "2999-01-01"], "day-open")]
)
def test_a_day_that_cannot_be_sealed(words: list[str], code: str, config: Path, capsys: Any) -> None:
    assert main(["nightly", "--json", "--config", str(config), *words]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_without_a_store_nothing_is_made(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "device.toml"
    config.write_text(f'[device]\nid = "shop-1"\nstate_dir = "{tmp_path / "none"}"\n')
    for words in (["nightly"], ["nightly", "--list"]):
        assert main([*words, "--json", "--config", str(config)]) == Broken.exit_code
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "no-store"
    assert not (tmp_path / "none").exists()


def test_the_lock_is_free_again_after_a_run(device: Device, config: Path, capsys: Any) -> None:
    for _ in range(2):
        ask(capsys, config)
    Shards(device.state).close()
