"""The store's contract, on the embedded server and by DSN; then what only the embedded server must survive."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from broker import RUN, alert, result, sealed

from cloud.arrival import open_arrival
from cloud.errors import Broken, CloudError, Rejected, Retryable
from cloud.store import Store
from cloud.store import write as writing
from cloud.store.embedded import Embedded
from cloud.store.rows import RESULT_COLUMNS, Entry, Presence, Quarantined
from cloud.store.write import Poison, Writer
from wire.mqtt import Message

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TABLES = [
    "alert", "camera_answer", "camera_picture", "device", "outbound", "quarantine", "result", "shard", "shard_score",
    "tally", "verdict",
]  # fmt: skip


@pytest.fixture(params=["embedded", "dsn"])
def store(request: pytest.FixtureRequest, server: Store, tmp_path: Path) -> Iterator[Store]:
    """Both ways to open a store, each empty at the start."""
    with psycopg.connect(server.dsn) as connection:
        connection.execute("TRUNCATE " + ", ".join(TABLES))  # type: ignore[arg-type]
    if request.param == "embedded":
        yield server
        return
    opened = Store.open(server.dsn, tmp_path / "unused")
    yield opened
    opened.close()
    assert not (tmp_path / "unused").exists()


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    made = Writer(store.dsn)
    yield made
    made.close()


def entry(*records: dict[str, object], kind: str = "result", device: str = "shop-1") -> Entry:
    payload = sealed(device, records, kind=kind)[1]
    message = Message(f"shelfwire/v1/{device}/{kind}s", payload, False, False, None, (1, 1, 1))
    return open_arrival(message, NOW).entry


def ask(store: Store, statement: str) -> list[tuple[object, ...]]:
    with store.pool.connection() as connection:
        return connection.execute(statement.encode()).fetchall()


# -- for every store --------------------------------------------------------------------------------------------------


def test_the_schema_is_there_and_opening_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    listed = """SELECT table_name FROM information_schema.tables
                WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1"""
    before = ask(store, listed)
    others = (  # asynchronous jobs and their queue; the fleet, which has tests of its own
        "alembic_version", "cloud_run", "job", "procrastinate_", "fleet_", "rollout", "desired", "reported", "audit",
    )  # fmt: skip
    assert [name for (name,) in before if not name.startswith(others)] == TABLES
    Store.open(store.dsn, tmp_path).close()
    assert ask(store, listed) == before


def test_a_batch_is_counted_in_its_own_transaction(store: Store, writer: Writer) -> None:
    committed = writer.commit([entry(result(1), result(2)), entry(alert(3), kind="alert")])
    assert (committed.new, committed.duplicates, committed.conflicts) == (3, 0, (frozenset(), frozenset()))
    counts = store.counts()
    assert (counts.results, counts.alerts, counts.received, counts.committed) == (2, 1, 3, 3)
    assert (counts.duplicates, counts.refused, counts.conflicts, counts.quarantined) == (0, 0, 0, 0)
    again = writer.commit([entry(result(1), result(2)), entry(alert(3), kind="alert")])
    assert (again.new, again.duplicates) == (0, 3)
    assert ask(store, "SELECT device, name, n FROM tally ORDER BY name") == [
        ("shop-1", "committed", 3), ("shop-1", "duplicates", 3), ("shop-1", "received", 6)
    ]  # fmt: skip


def test_a_copy_and_a_forgery_inside_one_batch_are_told_apart(store: Store, writer: Writer) -> None:
    committed = writer.commit([entry(result(1), result(1)), entry(result(1, frame=9), result(2))])
    assert (committed.new, committed.duplicates) == (2, 1)
    assert committed.conflicts == (frozenset(), frozenset({(RUN, 1)}))
    assert ask(store, "SELECT seq, frame FROM result ORDER BY seq") == [(1, 1), (2, 2)]


def test_the_same_key_of_two_devices_is_two_records(store: Store, writer: Writer) -> None:
    committed = writer.commit([entry(result(1)), entry(result(1, frame=8), device="shop-2")])
    assert committed.new == 2
    assert ask(store, "SELECT device, frame FROM result ORDER BY device") == [("shop-1", 1), ("shop-2", 8)]


def test_poison_leaves_nothing_behind_and_the_writer_goes_on(store: Store, writer: Writer) -> None:
    good = entry(result(1))
    column = [name for name, _ in RESULT_COLUMNS].index
    for place, value in ((column("run"), "a\x00b"), (column("labels"), "{"), (column("camera"), None)):
        row = (*good.results[0][:place], value, *good.results[0][place + 1 :])
        with pytest.raises(Poison):
            writer.commit([good, Entry("shop-1", NOW, results=(row,))])
    assert store.counts().received == 0
    assert writer.commit([good]).new == 1


def test_two_writers_with_the_same_records_do_not_get_in_each_others_way(store: Store) -> None:
    batches = [[entry(*(result(10 * n + k) for k in range(10))) for n in range(1, 20)] for _ in range(2)]
    batches[1].reverse()
    failures: list[Exception] = []

    def write(batch: list[Entry]) -> None:
        writer = Writer(store.dsn)
        try:
            for start in range(0, len(batch), 3):
                writer.commit(batch[start : start + 3])
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)
        finally:
            writer.close()

    threads = [threading.Thread(target=write, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    counts = store.counts()
    assert (counts.results, counts.committed, counts.duplicates) == (190, 190, 190)


def test_a_will_of_a_former_session_changes_nothing(store: Store, writer: Writer) -> None:
    def say(state: str, session: str, minutes: int, *, retained: bool = False) -> None:
        told = Presence("Main St", session, state, "0.1.0", '{"x": 1}', NOW, retained)
        writer.commit([Entry("shop-1", NOW + timedelta(minutes=minutes), presence=told)])

    def shown() -> tuple[object, ...]:
        return ask(store, "SELECT state, session, seen_at, changed_at FROM device")[0]

    def at(minutes: int) -> datetime:
        return NOW + timedelta(minutes=minutes)

    say("online", "s1", 1)
    assert shown() == ("online", "s1", at(1), at(1))
    say("online", "s1", 2)
    assert shown() == ("online", "s1", at(2), at(1)), "a heartbeat moves seen_at and nothing else"
    say("online", "s2", 3)
    say("offline", "s1", 4)
    assert shown() == ("online", "s2", at(3), at(3))
    say("offline", "s2", 5)
    assert shown() == ("offline", "s2", at(3), at(5)), "a will does not show that the device was there"
    say("offline", "s2", 60, retained=True)
    assert shown() == ("offline", "s2", at(3), at(5)), "nor does a copy that the broker kept"


def test_records_show_that_a_device_is_there_before_its_status_does(store: Store, writer: Writer) -> None:
    writer.commit([entry(result(1))])
    assert ask(store, "SELECT device, state, session, seen_at FROM device") == [("shop-1", "unknown", None, NOW)]


def test_quarantine_is_bounded_and_says_how_much_it_dropped(
    store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "QUARANTINE_ROWS", 100)
    rubbish = Quarantined("shelfwire/v1/shop-1/results", None, None, "bad-json", "?", b"x")
    for device in ("shop-1", "shop-2"):
        for _ in range(40 if device == "shop-1" else 1):
            writer.commit([Entry(device, NOW, quarantined=(rubbish,) * 5)])
    (kept,) = ask(store, "SELECT count(*) FROM quarantine WHERE device = 'shop-1'")[0]
    tally = dict(ask(store, "SELECT name, n FROM tally WHERE device = 'shop-1'"))  # type: ignore[arg-type, var-annotated]
    assert 70 < int(str(kept)) <= 105
    assert tally["quarantined"] == 200 == int(str(kept)) + tally["thinned"]
    assert ask(store, "SELECT count(*) FROM quarantine WHERE device = 'shop-2'") == [(5,)]
    ids = [int(str(n)) for (n,) in ask(store, "SELECT id FROM quarantine WHERE device = 'shop-1' ORDER BY id")]
    assert ids[-1] - ids[0] == 199, "thinned evenly: the beginning and the end are still there"


def test_a_lost_connection_is_replaced(store: Store, writer: Writer) -> None:
    writer.commit([entry(result(1))])
    ask(store, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shelfwire-ingest'")
    with pytest.raises(Retryable) as caught:
        writer.commit([entry(result(2))])
    assert caught.value.code == "store-away"
    assert writer.commit([entry(result(2))]).new == 1
    ask(store, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shelfwire-store'"
               " AND pid <> pg_backend_pid()")  # fmt: skip
    assert store.counts().results == 2


@pytest.mark.parametrize(
    ("dsn", "kind", "code"),
    [
        ("not a dsn", Rejected, "store-dsn"),
        ("postgresql://nobody@127.0.0.1:1/x", Retryable, "store-away"),
        ("postgresql://nobody@127.0.0.1:1/x?nonsense=1", Rejected, "store-dsn"),
    ],
)
def test_a_wrong_dsn_is_named_with_its_cure(dsn: str, kind: type[CloudError], code: str, tmp_path: Path) -> None:
    with pytest.raises(kind) as caught:
        Store.open(dsn, tmp_path)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_database_that_does_not_exist_is_named(server: Store, tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        Store.open(server.dsn.replace("/shelfwire?", "/elsewhere?"), tmp_path)
    assert "elsewhere" in str(caught.value)
    assert "createdb" in caught.value.hint


def test_many_openers_at_once_migrate_once(server: Store, tmp_path: Path) -> None:
    admin = server.dsn.replace("/shelfwire?", "/postgres?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
    failures: list[Exception] = []

    def open_it() -> None:
        try:
            Store.open(server.dsn.replace("/shelfwire?", "/fresh?"), tmp_path).close()
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    fresh = psycopg.connect(server.dsn.replace("/shelfwire?", "/fresh?"))
    with server.pool.connection() as connection:
        newest = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert [tuple(row) for row in newest] == fresh.execute("SELECT version_num FROM alembic_version").fetchall()
    fresh.execute("UPDATE alembic_version SET version_num = '9999'")
    fresh.commit()
    fresh.close()
    with pytest.raises(Broken) as caught:
        Store.open(server.dsn.replace("/shelfwire?", "/fresh?"), tmp_path)
    assert caught.value.code == "store-newer"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP DATABASE fresh")


# -- the embedded server ----------------------------------------------------------------------------------------------


def postmaster(folder: Path) -> int:
    return int((folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])


def lives(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet collected by its parent has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def crash(folder: Path) -> None:
    """Kill the database server as a power cut would."""
    os.kill(postmaster(folder), signal.SIGKILL)


def test_a_crashed_server_starts_again_with_everything_it_had_committed(tmp_path: Path) -> None:
    store = Store.open(None, tmp_path)
    assert ask(store, "SHOW track_commit_timestamp") == [("on",)]
    writer = Writer(store.dsn, store.revive)
    writer.commit([entry(result(1), result(2))])
    crash(tmp_path)
    with pytest.raises(CloudError):
        writer.commit([entry(result(3))])
    # The owner brings it back by itself.
    for _ in range(20):
        try:
            writer.commit([entry(result(3))])
            break
        except CloudError:
            threading.Event().wait(0.2)
    assert store.counts().results == 3
    writer.close()
    crash(tmp_path)
    store.pool.close()
    # As does the next owner, who finds the pid file of a dead process and the handle of a dead owner.
    (tmp_path / "postgres" / ".handle_pids.json").write_text("[4194000]")
    again = Store.open(None, tmp_path)
    assert again.counts().results == 3
    pid = postmaster(tmp_path)
    again.close()
    assert not lives(pid), "the last owner stops the server"


@pytest.mark.parametrize("left", ["{own}\n{data}\n1\n5432\n{data}\n\n1 1\nready\n", "", "12", "rubbish\n"])
def test_a_pid_file_that_names_somebody_else_is_no_obstacle(left: str, tmp_path: Path) -> None:
    Store.open(None, tmp_path).close()
    text = left.format(own=os.getpid(), data=tmp_path / "postgres")
    (tmp_path / "postgres" / "postmaster.pid").write_text(text)
    store = Store.open(None, tmp_path)
    assert store.counts().results == 0
    store.close()


def test_two_processes_may_use_one_server_and_the_last_stops_it(tmp_path: Path) -> None:
    first = Embedded(tmp_path)
    dsn = first.start()
    program = "import sys, pathlib; from cloud.store import Store; s = Store.open(None, pathlib.Path(sys.argv[1]));"
    second = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program + "print(s.dsn); s.close()", str(tmp_path)],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert second.stdout.strip() == dsn
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM result").fetchone() == (0,)
    pid = postmaster(tmp_path)
    first.stop()
    assert not lives(pid)


def test_only_who_started_the_server_may_connect(server: Store) -> None:
    rules = ask(server, "SELECT type, auth_method FROM pg_hba_file_rules")
    assert rules == [("local", "peer")]
    assert ask(server, "SHOW listen_addresses") == [("",)]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Broken) as caught:
        Store.open(None, tmp_path / "file" / "store")
    assert caught.value.code == "store-folder"
    assert "--data" in caught.value.hint


def test_a_folder_of_another_postgresql_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(Broken) as caught:
        Store.open(None, tmp_path)
    assert caught.value.code == "store-version"


def test_a_damaged_folder_is_explained_by_the_servers_own_words(tmp_path: Path) -> None:
    Store.open(None, tmp_path).close()
    (tmp_path / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(Broken) as caught:
        Store.open(None, tmp_path)
    assert caught.value.code == "store-start"
    assert "pg_control" in str(caught.value)
    assert "log" in caught.value.hint
