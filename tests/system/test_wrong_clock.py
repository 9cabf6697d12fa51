"""A device that boots in the year 2000: everything is answered, kept and delivered, and the cloud dates it right."""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyarrow.parquet as pq
from test_device import Box, keys_in_cloud, stop
from waiting import wait_for
from web_shop import serving

from cloud.broker import Broker
from cloud.ingest import Ingest
from cloud.store import Store

LAUNCHER = Path(__file__).with_name("wrong_clock.py")
SLACK = timedelta(seconds=3)
"""Between the moment of an answer and that of its arrival, on a machine with much to do."""

ALERT = '[[alert]]\nname = "anything"\nlabel = "{label}"\nscore = 0.1\ndwell = "500 ms"\n'
LEAVE = '[privacy]\npictures = "frames"\n[batch]\nkeep_every = "500 ms"\n[review]\nper_hour = 0\n'
LABELS = ("Watermelon", "unknown")


class OldBox(Box):
    """A device whose clock stands in the year 2000 until it is set."""

    def __init__(self, folder: Path, broker: Broker, api: str) -> None:
        super().__init__(folder, broker, cameras=2, rate_fps=5, more="")
        text = self.config.read_text().replace("[cloud]\n", f'[cloud]\napi = "{api}"\n')
        alerts = "".join(ALERT.format(label=label).replace("anything", label) for label in LABELS)
        self.config.write_text(text + alerts + LEAVE)
        self.clock = folder / "clock"
        self.set(datetime(2000, 1, 1, tzinfo=UTC), "unsure")

    def set(self, to: datetime | None, trust: str) -> None:
        """Set the wall clock; None is the right time."""
        off_ns = 0 if to is None else round((to.timestamp() - time.time()) * 1e9)
        fresh = self.clock.with_suffix(".new")
        fresh.write_text(f"{off_ns} {trust}")
        fresh.replace(self.clock)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(LAUNCHER), str(self.clock), *words, "--config", str(self.config)]

    @contextmanager
    def at_work(self) -> Iterator[list["subprocess.Popen[bytes]"]]:
        with self.running("vision") as vision, self.running("sync") as sync:
            yield [vision, sync]


def rows(dsn: str, sql: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(sql).fetchall()


def ask(api: str, path: str) -> Any:
    return httpx.get(f"{api}/api/v1{path}", timeout=10).raise_for_status().json()


def is_now(text: str, since: datetime) -> bool:
    return since - SLACK <= datetime.fromisoformat(text) <= datetime.now(UTC) + SLACK


def test_a_boot_in_the_year_2000_and_the_clock_set_while_it_runs(
    tmp_path: Path, broker: Broker, ingest: Callable[..., Ingest], store: Store
) -> None:
    ingest()
    began = datetime.now(UTC)
    broker.stop()
    with serving(store) as served:
        box = OldBox(tmp_path / "d", broker, served.url)
        with box.at_work() as processes:
            wait_for("answers while the broker is away", lambda: box.produced() > 20)
            assert box.status()["warnings"], "the clock is said to be unsure"
            backlog = box.produced()
            broker.restart()
            wait_for("the backlog in the cloud", lambda: store.counts().results > backlog)
            wait_for("an alert", lambda: rows(store.dsn, "SELECT 1 FROM alert WHERE state = 'raised'"))
            looks_right_on_the_page(served.url, began)
            box.set(None, "synced")
            set_at = datetime.now(UTC)
            seen = store.counts().results
            wait_for("answers after the clock was set", lambda: store.counts().results > seen + 30)
            wait_for(
                "the new trust in the cloud", lambda: ask(served.url, "/devices")["devices"][0]["clock"] == "synced"
            )
            looks_right_on_the_page(served.url, began)
            budget = json.loads(rows_of(box, "SELECT value FROM fact WHERE name = 'budget'")[0][0])
            vision, sync = processes
            assert stop(vision) == 0, box.log()
            wait_for("the last answers to leave", lambda: box.status()["outbox"]["waiting"] == 0)
            assert stop(sync) == 0, box.log()
            nothing_is_lost_doubled_or_misdated(box, store.dsn, began, set_at)
            assert budget["day"] in {moment.date().isoformat() for moment in (began, datetime.now(UTC))}
            the_night_knows_its_day(box, began)


def rows_of(box: Box, sql: str) -> list[Any]:
    import sqlite3

    with sqlite3.connect(f"file:{box.state}/outbox.sqlite?mode=ro", uri=True) as db:  # in the test's own process
        return db.execute(sql).fetchall()


def looks_right_on_the_page(api: str, began: datetime) -> None:
    """Cameras, pictures and alerts as Live and its API tell them: all of today."""
    cameras = ask(api, "/cameras")["cameras"]
    assert {camera["camera"] for camera in cameras} == {"cam-0", "cam-1"}
    for camera in cameras:
        assert is_now(camera["answer"]["captured_at"], began), camera
        assert is_now(camera["answer"]["as_of"], began)
        if camera["picture"]:
            assert is_now(camera["picture"]["captured_at"], began), camera["picture"]
    alerts = ask(api, "/alerts")
    for alert in [*alerts["open"], *alerts["recent"]]:
        for name in ("since", "raised_at", "ended_at", "received_at"):
            assert alert[name] is None or is_now(alert[name], began), (name, alert)
    for item in ask(api, "/results?limit=200")["results"]:
        assert is_now(item["captured_at"], began), item


def nothing_is_lost_doubled_or_misdated(box: OldBox, dsn: str, began: datetime, set_at: datetime) -> None:
    status = box.status()
    frames = status["frames"]
    assert frames["captured"] == (
        frames["classified"] + frames["serverless"] + frames["deferred"] + sum(frames["dropped"].values())
    )
    assert status["outbox"]["waiting"] == 0, box.log()
    produced = status["results"]["produced"] + status["alerts"]["produced"]
    assert status["results"]["delivered"] + status["alerts"]["delivered"] == produced
    assert len(keys_in_cloud(dsn)) == produced
    checked = box.once("outbox", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    found = rows(
        dsn,
        "SELECT camera, captured_at, captured_device_at, dated_by FROM result ORDER BY camera, seq",
    )
    by = {dated for *_, dated in found}
    assert by == {"boot-clock", "device"}
    for camera in ("cam-0", "cam-1"):
        mine = [row for row in found if row[0] == camera]
        order = [captured for _, captured, _, _ in mine]
        late = [(a, b) for a, b in itertools.pairwise(order) if b < a - timedelta(seconds=1)]
        assert not late, "answers of a camera keep their order"
        assert all(began - SLACK <= at <= datetime.now(UTC) + SLACK for at in order)
        switch = [n for n, (*_, dated) in enumerate(mine) if dated == "device"]
        assert switch == list(range(switch[0], len(mine))), "trust comes once, and stays"
        assert mine[0][2].year == 2000
        assert mine[-1][2] >= set_at - SLACK
    assert rows(dsn, "SELECT count(*) FROM quarantine") == [(0,)]


def the_night_knows_its_day(box: OldBox, began: datetime) -> None:
    """Frames kept in the year 2000 are sealed as today's: by their age, in the same boot."""
    answer = box.once("nightly", "--now", "--json")
    assert answer.returncode == 0, answer.stderr
    files = sorted((box.state / "batch").glob("*.parquet"))
    assert files
    local_days = {moment.astimezone().date().isoformat() for moment in (began, datetime.now(UTC))}
    for file in files:
        table = pq.read_table(file)
        assert table.num_rows > 0
        years = {at.year for at in table.column("captured_at").to_pylist()}
        assert years == {datetime.now(UTC).year}, "no frame of the year 2000"
    report = json.loads(answer.stdout)
    assert {shard["day"] for shard in report["sealed"]} <= local_days, report
