"""Ingest between a real broker and a real database: everything once, nothing lost, nothing held up."""

import base64
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from broker import PATIENCE_S, RUN, START, Device, alert, result, sealed
from waiting import wait_for

from cloud.broker import CLOUD, Broker
from cloud.errors import Rejected
from cloud.ingest import Ingest
from cloud.store import Store
from cloud.store.embedded import Embedded
from wire import envelope, topics
from wire.records import CameraStatus, Picture, Refusal, Span, Status, rfc3339

pytestmark = pytest.mark.broker

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
JPEG = b"\xff\xd8\xff\xe0" + bytes(100) + b"\xff\xd9"
OTHER_RUN = "00000000000000bb"

Connect = Callable[..., Device]
Start = Callable[..., Ingest]


def rows(dsn: str, statement: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode(), values).fetchall()


def tally(store: Store, device: str = "shop-1") -> dict[str, int]:
    return dict(rows(store.dsn, "SELECT name, n FROM tally WHERE device = %s", device))  # type: ignore[arg-type]


def up(ingest: Ingest) -> Ingest:
    wait_for("ingest is connected", lambda: ingest.connected)
    return ingest


# -- the straight way ------------------------------------------------------------------------------------------------


def test_results_are_committed_once_and_a_receipt_names_what_was(ingest: Start, device: Connect, store: Store) -> None:
    up(ingest())
    shop = device()
    name, payload = sealed("shop-1", [result(seq) for seq in (1, 2, 3, 7)])
    shop.send(name, payload)
    (receipt,) = shop.receipts(name)
    assert receipt.committed == (Span(run=RUN, first=1, last=3), Span(run=RUN, first=7, last=7))
    assert receipt.rejected is None
    assert receipt.refused == ()
    (row,) = rows(store.dsn, "SELECT * FROM result WHERE seq = 7")
    assert len(row) == 27
    found = rows(
        store.dsn,
        "SELECT device, run, seq, camera, frame, captured_at, captured_device_at, dated_by, boot_ns, label, score,"
        " state, changed, reason, labels, model_name, model_version, model_release, model_digest, runtime, mode,"
        " waiting_ms, inference_ms, total_ms, truth, length(content) FROM result WHERE seq = 7",
    )
    at = START + timedelta(milliseconds=700)
    labels = [{"label": "Banana", "score": 0.75}, {"label": "Lemon", "score": 0.125}]
    assert found == [
        ("shop-1", RUN, 7, "cam-1", 7, at, at, "device", 1_700_000_000, "Banana", 0.75, "confirmed", False,
         "3 in a row", labels, "produce", "1.0.0", 1, "ab" * 32, "openvino", "real-time", 0.5, 4.25, 9.5, None, 32)
    ]  # fmt: skip
    assert tally(store) == {"received": 4, "committed": 4}


def test_an_alert_keeps_its_thumbnail_and_is_committed_before_results(
    ingest: Start, device: Connect, store: Store
) -> None:
    up(ingest())
    shop = device()
    thumbnail = base64.b64encode(JPEG).decode()
    name, payload = sealed("shop-1", [alert(1, thumbnail=thumbnail)], kind="alert")
    shop.send(name, payload, topics.ALERTS)
    (receipt,) = shop.receipts(name)
    assert receipt.committed == (Span(run=RUN, first=1, last=1),)
    found = rows(store.dsn, "SELECT rule, state, label, score, since, frame, reason, thumbnail FROM alert")
    assert found == [("bananas-seen", "raised", "Banana", 0.75, START, 1, "seen for 2 s", JPEG)]


def test_a_receipt_never_comes_before_the_commit(ingest: Start, device: Connect, store: Store) -> None:
    up(ingest())
    shop = device()
    for seq in range(1, 31):
        name, payload = sealed("shop-1", [result(seq)])
        shop.send(name, payload)
        shop.receipts(name)
        assert rows(store.dsn, "SELECT 1 FROM result WHERE seq = %s", seq), "a receipt without its row"


def test_a_commit_is_announced_with_what_has_changed(ingest: Start, device: Connect, store: Store) -> None:
    up(ingest())
    shop = device()
    with psycopg.connect(store.dsn, autocommit=True) as listener:
        listener.execute("LISTEN shelfwire_live")
        shop.send(*sealed("shop-1", [result(1)]))
        (notice,) = list(listener.notifies(timeout=PATIENCE_S, stop_after=1))
        assert json.loads(notice.payload) == {"device": "shop-1", "what": ["answers"]}


# -- copies and forgeries --------------------------------------------------------------------------------------------

TABLES = {
    "result": "device, run, seq",
    "alert": "device, run, seq",
    "camera_answer": "device, camera",
    "device": "device",
}


def dump(dsn: str) -> dict[str, list[tuple[object, ...]]]:
    return {table: rows(dsn, f"SELECT * FROM {table} ORDER BY {order}") for table, order in TABLES.items()}


def test_three_shuffled_copies_of_everything_leave_the_tables_as_one_in_order(
    ingest: Start, device: Connect, store: Store, postgres: object, tmp_path: Path
) -> None:
    sent = [
        (shop, *sealed(shop, [result(seq) for seq in range(first, first + 10)]), topics.RESULTS)
        for shop in ("shop-1", "shop-2")
        for first in range(1, 100, 10)
    ]
    sent += [
        (shop, *sealed(shop, [alert(500 + n)], kind="alert"), topics.ALERTS)
        for shop in ("shop-1", "shop-2")
        for n in range(3)
    ]

    def play(messages: list[tuple[str, str, bytes, str]]) -> None:
        shops = {name: device(name) for name in ("shop-1", "shop-2")}
        for shop, name, payload, rest in messages:
            shops[shop].send(name, payload, rest)
        for shop, one in shops.items():
            one.receipts(*{name for sender, name, _, _ in messages if sender == shop})
            one.close()

    shuffled = sent * 3
    random.Random(5).shuffle(shuffled)
    first = up(ingest(now=lambda: NOON))
    play(sent)
    once = dump(store.dsn)
    first.stop()
    other = Store.open(postgres.create(), tmp_path)  # type: ignore[attr-defined]
    try:
        second = up(ingest(now=lambda: NOON, into=other))
        play(shuffled)
        wait_for("every copy was received", lambda: tally(other).get("received") == 309)
        second.stop()
        assert dump(other.dsn) == once
        assert tally(other) == {"received": 309, "committed": 103, "duplicates": 206}
    finally:
        other.close()


def test_the_same_key_with_another_content_is_refused_and_the_first_is_kept(
    ingest: Start, device: Connect, store: Store
) -> None:
    up(ingest())
    shop = device()
    first, second = sealed("shop-1", [result(1), result(2)]), sealed("shop-1", [result(2, frame=99), result(3)])
    shop.send(*first)
    shop.receipts(first[0])
    shop.send(*second)
    (receipt,) = shop.receipts(second[0])
    assert receipt.committed == (Span(run=RUN, first=3, last=3),)
    assert receipt.refused == (Refusal(run=RUN, seq=2, code="key-conflict"),)
    assert rows(store.dsn, "SELECT seq, frame FROM result ORDER BY seq") == [(1, 1), (2, 2), (3, 3)]
    ((code, seq, kept),) = rows(store.dsn, "SELECT code, seq, payload FROM quarantine")
    assert (code, seq) == ("key-conflict", 2)
    assert json.loads(bytes(kept))["frame"] == "99"  # type: ignore[call-overload]
    assert tally(store) == {
        "received": 4, "committed": 3, "conflicts": 1, "refused": 1, "quarantined": 1
    }  # fmt: skip


def test_the_order_of_keys_in_a_copy_does_not_matter(ingest: Start, device: Connect, store: Store) -> None:
    up(ingest())
    shop = device()
    turned = dict(reversed(result(1).items()))
    for record in (result(1), turned):
        name, payload = sealed("shop-1", [record])
        shop.send(name, payload)
        shop.receipts(name)
    assert tally(store) == {"received": 2, "committed": 1, "duplicates": 1}


# -- bad input -------------------------------------------------------------------------------------------------------


def broken(change: Callable[[dict[str, object]], object]) -> bytes:
    document = json.loads(sealed("shop-1", [result(1)])[1])
    changed = change(document)
    return json.dumps(document if changed is None else changed).encode()


BAD: dict[str, tuple[str, bytes]] = {
    "not JSON": ("bad-json", b'{"specversion": "1.0", '),
    "empty": ("empty", b""),
    "not UTF-8": ("not-utf8", b"\xff\xfe{}"),
    "oversized": ("too-large", b" " * (256 * 1024 + 1)),
    "a list": ("bad-envelope", b"[1, 2, 3]"),
    "forged source": ("bad-source", broken(lambda d: d.update(source="/devices/shop-2"))),
    "forged device": ("bad-source", broken(lambda d: d["data"].update(device="shop-2"))),  # type: ignore[attr-defined]
    "another type": ("bad-type", broken(lambda d: d.update(type="io.shelfwire.results.v9"))),
    "no records": ("bad-envelope", broken(lambda d: d["data"].pop("records") and None)),  # type: ignore[attr-defined]
    "501 records": ("too-many", sealed("shop-1", [{"run": RUN, "seq": n} for n in range(1, 502)])[1]),
    "a key twice": ("duplicate-key", sealed("shop-1", [result(1)])[1].replace(b'"seq": 1', b'"seq": 1, "seq": 2')),
    "NaN": ("not-finite", sealed("shop-1", [result(1)])[1].replace(b"0.75", b"NaN")),
    "NUL": ("nul", sealed("shop-1", [result(1)])[1].replace(b"3 in a row", b"3 in a\\u0000row")),
    "half a surrogate pair": ("surrogate", sealed("shop-1", [result(1)])[1].replace(b"3 in a row", b"\\ud800")),
    "beyond 64 bits": (
        "integer-range",
        sealed("shop-1", [result(1)])[1].replace(b'"frame": 1', b'"frame": 1' + b"0" * 30),
    ),
    "very deep": ("too-deep", b"[" * 5000 + b"]" * 5000),
}


def test_every_bad_envelope_is_quarantined_and_rejected_and_the_next_goes_on(
    ingest: Start, device: Connect, store: Store
) -> None:
    up(ingest())
    shop = device()
    sent: dict[str, str] = {}
    for n, (what, (_, payload)) in enumerate(BAD.items(), 1):
        sent[what] = f"bad-{n}"
        shop.send(sent[what], payload)
        shop.send(*sealed("shop-1", [result(n)], envelope_id=f"good-{n}"))
    answers = shop.receipts(*sent.values())
    assert {what: answer.rejected for what, answer in zip(sent, answers, strict=True)} == {
        what: code for what, (code, _) in BAD.items()
    }
    shop.receipts(*(f"good-{n}" for n in range(1, len(BAD) + 1)))
    assert store.counts().results == len(BAD)
    found = rows(store.dsn, "SELECT code, octet_length(payload) <= 65536 FROM quarantine ORDER BY id")
    assert found == [(code, True) for code, _ in BAD.values()]


def test_a_bad_record_does_not_keep_the_others_of_its_envelope_back(
    ingest: Start, device: Connect, store: Store
) -> None:
    up(ingest())
    shop = device()
    wrong = result(2, labels=[{"label": "Banana", "score": 1.5}])
    early = result(3, captured_at="1969-12-31T23:59:59Z")
    name, payload = sealed("shop-1", [result(1), wrong, early, {"seq": "x"}, result(4)])
    shop.send(name, payload)
    (receipt,) = shop.receipts(name)
    assert receipt.committed == (Span(run=RUN, first=1, last=1), Span(run=RUN, first=4, last=4))
    assert receipt.refused == (
        Refusal(run=RUN, seq=2, code="bad-record"),
        Refusal(run=RUN, seq=3, code="bad-time"),
    )
    kept = rows(store.dsn, "SELECT code, seq, convert_from(payload, 'utf-8')::json FROM quarantine ORDER BY id")
    assert kept == [("bad-record", 2, wrong), ("bad-record", None, {"seq": "x"}), ("bad-time", 3, early)]
    assert tally(store) == {"received": 5, "committed": 2, "refused": 3, "quarantined": 3}


def test_an_unreadable_envelope_without_correlation_gets_no_receipt(
    ingest: Start, device: Connect, store: Store
) -> None:
    up(ingest())
    shop = device()
    shop.publish(shop.topic, b"rubbish")
    shop.publish(shop.topic, b"rubbish", correlation="schön".encode())
    shop.send(*sealed("shop-1", [result(1)], envelope_id="good"))
    shop.receipts("good")
    wait_for("both are in quarantine", lambda: store.counts().quarantined == 2)
    assert [receipt.envelope for receipt in shop.seen] == ["good"]


def test_what_the_validation_missed_is_refused_alone(
    ingest: Start, device: Connect, store: Store, broker: Broker
) -> None:
    with psycopg.connect(store.dsn) as connection:
        connection.execute("ALTER TABLE result ADD CHECK (frame <> 13)")
    release = Gate()
    up(ingest(on_step=release.hold))
    shop = device()
    names = []
    for seq in range(11, 16):
        name, payload = sealed("shop-1", [result(seq)])
        names.append(name)
        shop.send(name, payload)
    answers = shop.receipts(*names)
    assert [a.rejected for a in answers] == [None, None, "store-refused", None, None]
    assert rows(store.dsn, "SELECT seq FROM result ORDER BY seq") == [(11,), (12,), (14,), (15,)]
    assert rows(store.dsn, "SELECT code FROM quarantine") == [("store-refused",)]


class Gate:
    """Lets ingest gather a batch: the first message waits a moment for the others to arrive behind it."""

    def __init__(self) -> None:
        self._first = True

    def hold(self, step: str) -> None:
        if step == "opened" and self._first:
            self._first = False
            time.sleep(0.3)


# -- what a device may do --------------------------------------------------------------------------------------------


def test_a_device_can_neither_write_nor_read_what_belongs_to_another(
    ingest: Start, device: Connect, store: Store
) -> None:
    up(ingest())
    first, second = device("shop-1"), device("shop-2")
    forged = sealed("shop-2", [result(1)], envelope_id="forged")
    first.publish(topics.topic("shop-2", topics.RESULTS), forged[1], b"forged")
    first.publish(topics.topic("shop-1", topics.RECEIPTS_DOWN), b"{}", b"forged")
    second.send(*sealed("shop-2", [result(5)], envelope_id="own"))
    second.receipts("own")
    first.send(*sealed("shop-1", [result(6)], envelope_id="mine"))
    first.receipts("mine")
    assert [r.envelope for r in second.seen] == ["own"]
    assert [r.envelope for r in first.seen] == ["mine"]
    assert rows(store.dsn, "SELECT device, seq FROM result ORDER BY device") == [("shop-1", 6), ("shop-2", 5)]


# -- faults ----------------------------------------------------------------------------------------------------------


def envelopes(count: int, size: int = 20, device: str = "shop-1") -> list[tuple[str, bytes]]:
    return [
        sealed(device, [result(seq) for seq in range(n * size + 1, (n + 1) * size + 1)]) for n in range(count)
    ]  # fmt: skip


def assert_complete(store: Store, results: int) -> None:
    """The invariant of delivery: every row once, and counters that agree with the rows."""
    counts = store.counts()
    assert counts.results == results
    assert counts.committed == results
    assert counts.received == counts.committed + counts.duplicates
    assert counts.refused == counts.quarantined == counts.conflicts == 0


def test_a_killed_broker_loses_nothing(ingest: Start, device: Connect, store: Store, broker: Broker) -> None:
    up(ingest())
    shop = device()
    batch = envelopes(60)
    shop.deliver(batch[:20])
    for name, payload in batch[20:30]:
        shop.send(name, payload)
    broker.kill()
    broker.start()
    shop.deliver(batch)
    assert_complete(store, 60 * 20)


@contextmanager
def ingest_process(
    broker: Broker, dsn: str, *more: str, fail_at: str = "", log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ingest in a process of its own. `fail_at` ("committed:3") ends it like a kill -9 at the nth such step."""
    arguments = [
        "ingest", "--broker", f"mqtt://{CLOUD}@127.0.0.1:{broker.cloud_port}",
        "--password-file", str(broker.password_file(CLOUD)), "--dsn", dsn, *more,
    ]  # fmt: skip
    program = Path(__file__).with_name("failing_ingest.py")
    environment = os.environ | {"FAIL_AT": fail_at, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with log.open("wb") if log is not None else nullcontext() as errors:
        process = subprocess.Popen([sys.executable, str(program), *arguments], env=environment, stderr=errors)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(15)


@pytest.mark.parametrize("step", ["opened", "committed", "receipted"])
def test_an_ingester_killed_at_any_step_leaves_everything_exactly_once(
    step: str, ingest: Start, device: Connect, store: Store, broker: Broker
) -> None:
    shop = device()
    batch = envelopes(12)
    with ingest_process(broker, store.dsn, fail_at=f"{step}:5") as first:
        while first.poll() is None:
            for name, payload in batch:
                if first.poll() is None:
                    shop.send(name, payload)
            shop._collect(0.2)
    assert first.returncode == 137
    up(ingest())
    shop.deliver(batch, again_s=1.0)
    assert_complete(store, 12 * 20)


def test_two_ingesters_share_the_work_and_one_may_die(
    ingest: Start, device: Connect, store: Store, broker: Broker
) -> None:
    shop = device()
    batch = envelopes(60)
    with ingest_process(broker, store.dsn) as process:
        other = up(ingest())
        wait_for("both are connected", lambda: _members(broker) >= 2)
        shop.deliver(batch[:30])
        mine = other.metrics.committed._value.get()
        assert 0 < mine < 30 * 20, "both must have had a share"
        for name, payload in batch[30:]:
            shop.send(name, payload)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        shop.deliver(batch, again_s=1.0)
    assert_complete(store, 60 * 20)


def _members(broker: Broker) -> int:
    """Count the cloud's connections that the broker's log has seen come and not go."""
    log = (broker.password_file(CLOUD).parents[1] / "broker.log").read_text()
    return sum(" as ingest-" in line and "connected from" in line for line in log.splitlines()[-6:])


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[tuple[Embedded, Store]]:
    """A database server that a test may stop."""
    server = Embedded(tmp_path / "server")
    store = Store.open(server.start(), tmp_path)
    yield server, store
    store.close()
    server.stop()


def test_a_database_that_is_away_holds_everything_up_and_nothing_is_lost(
    ingest: Start, device: Connect, own_server: tuple[Embedded, Store]
) -> None:
    server, store = own_server
    running = up(ingest(into=store))
    shop = device()
    batch = envelopes(10)
    shop.deliver(batch[:3])
    server.stop()
    for name, payload in batch[3:]:
        shop.send(name, payload)
    wait_for("ingest notices", lambda: running.metrics.retries._value.get() > 1)
    assert {receipt.envelope for receipt in shop.seen} == {name for name, _ in batch[:3]}
    server.start()
    shop.receipts(*(name for name, _ in batch))
    assert_complete(store, 10 * 20)
    assert store.counts().duplicates == 0


def test_a_thread_that_dies_takes_the_process_down_and_nothing_is_acknowledged(
    device: Connect, dsn: str, broker: Broker, tmp_path: Path
) -> None:
    shop = device()
    log = tmp_path / "log"
    with ingest_process(broker, dsn, log=log) as process:
        shop.deliver(envelopes(1), again_s=1.0)
        with psycopg.connect(dsn) as connection:
            connection.execute("DROP TABLE alert")
        shop.send(*sealed("shop-1", [alert(900)], kind="alert", envelope_id="late"), topics.ALERTS)
        assert process.wait(PATIENCE_S) == 4
    assert "error: ingest ended by a fault" in log.read_text()
    assert "cure: " in log.read_text()
    assert "late" not in {receipt.envelope for receipt in shop.seen}


def test_an_ingester_leaves_in_order_and_prints_what_is_stored(
    device: Connect, dsn: str, broker: Broker, capfd: pytest.CaptureFixture[str]
) -> None:
    shop = device()
    with ingest_process(broker, dsn, "--json") as process:
        shop.deliver(envelopes(2), again_s=1.0)
    assert process.returncode == 0
    assert json.loads(capfd.readouterr().out)["results"] == 40


def test_an_ingester_that_the_broker_refuses_says_so_and_keeps_trying(broker: Broker, dsn: str, tmp_path: Path) -> None:
    wrong, log = tmp_path / "password", tmp_path / "log"
    wrong.write_text("not this one\n")
    with ingest_process(broker, dsn, "--password-file", str(wrong), log=log) as process:
        wait_for("it was refused twice", lambda: log.read_text().count("broker-auth") >= 2)
        assert process.poll() is None
    assert process.returncode == 0
    assert "check username and password_file" in log.read_text() or "access list" in log.read_text()


def test_two_brokers_do_not_fit_on_one_port(broker: Broker, tmp_path: Path) -> None:
    second = Broker(tmp_path, ["shop-1"], port=broker.port, cloud_port=broker.cloud_port)
    with pytest.raises(Rejected) as caught:
        second.start()
    assert caught.value.code == "broker-port-in-use"
    assert caught.value.hint


# -- the live tables -------------------------------------------------------------------------------------------------


def shown(store: Store) -> list[tuple[object, ...]]:
    return rows(store.dsn, "SELECT run, seq FROM camera_answer ORDER BY device, camera")


def test_late_backlog_does_not_overwrite_the_live_answer(ingest: Start, device: Connect, store: Store) -> None:
    up(ingest())
    shop = device()

    def send(*records: dict[str, object]) -> None:
        name, payload = sealed("shop-1", records)
        shop.send(name, payload)
        shop.receipts(name)

    send(result(50))
    assert shown(store) == [(RUN, 50)]
    send(result(10), result(20), result(48))
    assert shown(store) == [(RUN, 50)]
    send(result(2, run=OTHER_RUN, captured_at=rfc3339(START - timedelta(hours=1))))
    assert shown(store) == [(RUN, 50)]
    send(result(4, run=OTHER_RUN, captured_at=rfc3339(START + timedelta(hours=1))))
    assert shown(store) == [(OTHER_RUN, 4)]
    send(result(52))
    assert shown(store) == [(OTHER_RUN, 4)]
    # Inside a run the clock does not count: it may have been set back.
    send(result(6, run=OTHER_RUN, captured_at=rfc3339(START)))
    assert shown(store) == [(OTHER_RUN, 6)]
    assert store.counts().results == 8


def test_an_unsure_clock_is_corrected_when_the_boot_clock_can(ingest: Start, device: Connect, store: Store) -> None:
    up(ingest(now=lambda: NOON))
    shop = device()
    unsure = {"clock": "unsure", "captured_at": "1970-01-01T00:10:00Z", "boot_ns": 5_000_000_000}
    for name, payload in (
        sealed("shop-1", [result(1, **unsure)], boot="b1", sent_boot_ns=8_500_000_000, envelope_id="a"),
        sealed("shop-1", [result(2, **unsure)], envelope_id="b"),
        sealed(
            "shop-1", [result(3, **unsure | {"clock": "synced"})], boot="b1", sent_boot_ns=9 * 10**9, envelope_id="c"
        ),
    ):
        shop.send(name, payload)
    shop.receipts("a", "b", "c")
    said = datetime(1970, 1, 1, 0, 10, tzinfo=UTC)
    found = rows(store.dsn, "SELECT dated_by, captured_at, captured_device_at FROM result ORDER BY seq")
    assert found == [
        ("boot-clock", NOON - timedelta(seconds=3.5), said),
        ("unsure", said, said),
        ("device", said, said),
    ]


def presence(store: Store, device: str = "shop-1") -> tuple[object, ...] | None:
    found = rows(store.dsn, "SELECT state, session, agent FROM device WHERE device = %s", device)
    return found[0] if found else None


def test_offline_counts_only_for_the_connection_it_speaks_for(ingest: Start, device: Connect, store: Store) -> None:
    first_session, second_session = "0" * 15 + "1", "0" * 15 + "2"
    up(ingest())
    shop = device()
    shop.say(Status(state="online", session=first_session, agent="0.1.0"))
    wait_for("online is seen", lambda: presence(store) == ("online", first_session, "0.1.0"))
    shop.say(Status(state="online", session=second_session, agent="0.1.1"))
    # The late will of the first connection.
    shop.say(Status(state="offline", session=first_session))
    shop.send(*sealed("shop-1", [result(1)], envelope_id="after"))
    shop.receipts("after")
    assert presence(store) == ("online", second_session, "0.1.1")
    shop.say(Status(state="offline", session=second_session))
    wait_for("offline is seen", lambda: presence(store) == ("offline", second_session, "0.1.1"))
    shop.publish(topics.topic("shop-1", topics.STATUS), b"", retain=True)


def test_a_device_that_vanishes_is_offline_by_its_will_and_a_new_ingester_learns_it(
    ingest: Start, broker: Broker, store: Store
) -> None:
    session = "0" * 15 + "3"
    running = up(ingest())
    shop = Device(broker, "shop-3", Status(state="offline", session=session, reason="lost"))
    try:
        cameras = (CameraStatus(name="cam-1", kind="synthetic", phase="streaming"),)
        shop.say(Status(state="online", session=session, cameras=cameras))
        wait_for("online is seen", lambda: presence(store, "shop-3") == ("online", session, ""))
        running.stop()
        # The cable is cut: no DISCONNECT, so the broker speaks.
        shop.session._client.socket().close()  # type: ignore[union-attr]
        shop.session._stopping.set()
        wait_for("the broker notices", lambda: _went(broker, "shop-3"))
        up(ingest())
        wait_for("the will is seen", lambda: presence(store, "shop-3") == ("offline", session, ""))
    finally:
        shop.close()


def _went(broker: Broker, name: str) -> bool:
    log = (broker.password_file(CLOUD).parents[1] / "broker.log").read_text().splitlines()
    return any(f"Client {name} closed its connection" in line or f"Client {name} disconn" in line for line in log)


def test_the_newest_picture_is_kept_and_a_bad_one_is_not(ingest: Start, device: Connect, store: Store) -> None:
    up(ingest())
    shop = device()

    def send(frame: int, jpeg: bytes, seconds: int) -> None:
        picture = Picture(
            camera="cam-1", frame=frame, captured_at=START + timedelta(seconds=seconds), width=64, height=48,
            jpeg=base64.b64encode(jpeg).decode(),
        )  # fmt: skip
        payload = envelope.seal_message("picture", envelope.device_source("shop-1"), picture, START)
        shop.publish(topics.topic("shop-1", topics.PICTURES), payload, qos=0)

    def kept() -> list[tuple[object, ...]]:
        return rows(store.dsn, "SELECT frame, width, height, jpeg FROM camera_picture")

    send(1, JPEG, 1)
    wait_for("the first picture is kept", lambda: kept() == [(1, 64, 48, JPEG)])
    send(3, JPEG + b"3", 3)
    wait_for("the newer one replaces it", lambda: kept() == [(3, 64, 48, JPEG + b"3")])
    send(2, JPEG + b"2", 2)
    send(4, b"<script>", 4)
    wait_for("the bad one is in quarantine", lambda: store.counts().quarantined == 1)
    assert kept() == [(3, 64, 48, JPEG + b"3")]
    assert rows(store.dsn, "SELECT code FROM quarantine") == [("bad-picture",)]


def test_numbers_for_prometheus_agree_with_the_store(ingest: Start, device: Connect, store: Store) -> None:
    running = up(ingest())
    shop = device()
    for name, payload in itertools.chain([*envelopes(2)] * 2, [("bad", b"rubbish")]):
        shop.send(name, payload)
        shop.receipts(name)
    wait_for("everything has come", lambda: store.counts().quarantined == 1)
    wait_for("and is counted", lambda: running.metrics.quarantined._value.get() == 1)
    assert running.metrics.committed._value.get() == store.counts().committed == 40
    assert running.metrics.refused.labels("bad-json")._value.get() == 1
    assert running.metrics.connected._value.get() == running.metrics.store_up._value.get() == 1
