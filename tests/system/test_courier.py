"""Late answers on their way to devices: a real broker, a real database, and devices that come and go."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psycopg
import pytest
from broker import START, Device
from prometheus_client import CollectorRegistry
from test_ingest import Start, rows, tally, up
from test_jobs import free_port
from waiting import wait_for

from cloud.broker import CLOUD, Broker
from cloud.courier import Courier
from cloud.store import Store
from cloud.store.outbound import Outbound, Pace
from cloud.store.verdicts import Kept, keep
from wire import bounds, envelope, topics
from wire.records import LateAnswer, ModelName, Receipt, Score, Span, Status, Verdict

pytestmark = pytest.mark.broker

RUN = "00000000000000aa"
QUICK = Pace(patience_s=0.5, most_s=2.0)
PATIENT = Pace(patience_s=600.0, most_s=600.0)
MODEL = ModelName(name="produce", version="1.0.0", release=1, digest="ab" * 32)

Carry = Callable[..., Courier]
Join = Callable[..., Device]


def verdict(seq: int, device: str = "shop-1") -> Verdict:
    return Verdict(
        device=device, run=RUN, seq=seq, camera="cam-1", frame=seq, captured_at=START, mode="serverless",
        label="Banana", labels=(Score(label="Banana", score=0.75),), model=MODEL, runtime="onnxruntime",
        inference_ms=4.0, answered_at=START, agrees=None,
    )  # fmt: skip


def answer(store: Store, *verdicts: Verdict) -> None:
    """Keep verdicts as every way to an answer does."""
    with store.pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        keep(cursor, [Kept(one, datetime.now(UTC)) for one in verdicts])


def waiting(store: Store, device: str = "shop-1") -> int:
    ((count,),) = rows(store.dsn, "SELECT count(*) FROM outbound WHERE device = %s AND refused IS NULL", device)
    return int(str(count))


@pytest.fixture
def courier(broker: Broker, store: Store) -> Iterator[Carry]:
    """Starts couriers on the test's broker and store, and stops them after the test; none may have crashed."""
    started: list[Courier] = []
    crashes: list[BaseException] = []

    def start(pace: Pace = PATIENT) -> Courier:
        options = broker.options(CLOUD, f"courier-{len(started)}")
        one = Courier(store, options, registry=CollectorRegistry(), on_crash=crashes.append, pace=pace)
        started.append(one)
        one.start()
        wait_for("the courier is connected", lambda: one.connected)
        return one

    yield start
    for one in started:
        one.stop()
    assert not crashes


@pytest.fixture
def join(broker: Broker) -> Iterator[Join]:
    """Connects devices that listen to verdicts, and disconnects them after the test."""
    joined: list[Device] = []

    def connect(name: str = "shop-1") -> Device:
        joined.append(Device(broker, name, verdicts=True))
        return joined[-1]

    yield connect
    for one in joined:
        one.close()


# -- the straight way --------------------------------------------------------------------------------------------------


def test_a_verdict_reaches_its_device_and_the_receipt_ends_its_way(
    ingest: Start, courier: Carry, join: Join, store: Store
) -> None:
    up(ingest())
    courier()
    shop = join()
    answer(store, verdict(7))
    shop.listen(lambda: bool(shop.answers), "the verdict comes")
    (late,) = shop.answers
    assert late.verdict == verdict(7)
    assert shop.told[0].origin.device == "shop-1"
    assert waiting(store) == 1, "what has no receipt stays"
    shop.confirm(late)
    wait_for("the receipt is taken", lambda: waiting(store) == 0)
    assert tally(store) == {"verdicts-serverless": 1, "verdicts-delivered": 1}
    assert len(shop.answers) == 1


def test_many_go_in_envelopes_within_the_limits(courier: Carry, join: Join, store: Store) -> None:
    shop, other = join("shop-1"), join("shop-2")
    answer(store, *(verdict(seq) for seq in range(1, 451)), verdict(9, "shop-2"))
    running = courier()
    shop.listen(lambda: len(shop.answers) == 450, "all have come")
    other.listen(lambda: len(other.answers) == 1, "and that of the other device")
    assert sorted(one.verdict.seq for one in shop.answers) == list(range(1, 451))
    assert all(len(told.good) <= bounds.SEND_RECORDS for told in shop.told)
    assert other.answers[0].verdict.device == "shop-2"
    wait_for("each was sent once", lambda: running.metrics.verdicts._value.get() == 451)


def test_two_couriers_send_each_verdict_once(courier: Carry, join: Join, store: Store) -> None:
    shop = join()
    courier(), courier()
    for first in range(1, 1001, 50):
        answer(store, *(verdict(seq) for seq in range(first, first + 50)))
    shop.listen(lambda: len(shop.answers) >= 1000, "all have come")
    assert sorted(one.verdict.seq for one in shop.answers) == list(range(1, 1001))


def test_a_fresh_answer_does_not_wait_for_the_end_of_a_backlog(courier: Carry, join: Join, store: Store) -> None:
    answer(store, *(verdict(seq) for seq in range(1, 1001)))
    answer(store, verdict(5000))
    shop = join()
    courier()
    shop.listen(lambda: len(shop.answers) >= 1001, "all have come")
    assert 5000 in [one.verdict.seq for one in shop.told[0].good]
    assert 1 in [one.verdict.seq for one in shop.told[1].good]


# -- what gets lost ----------------------------------------------------------------------------------------------------


def test_without_a_receipt_it_is_sent_again_under_the_same_key(
    ingest: Start, courier: Carry, join: Join, store: Store
) -> None:
    up(ingest())
    courier(QUICK)
    shop = join()
    answer(store, verdict(7))
    shop.listen(lambda: len(shop.answers) == 3, "it comes again and again")
    assert len({(one.run, one.seq) for one in shop.answers}) == 1
    shop.confirm(shop.answers[0])
    wait_for("the late receipt is taken", lambda: waiting(store) == 0)
    shop.confirm(shop.answers[0])
    shop.confirm(shop.answers[0], name="again")
    assert tally(store)["verdicts-delivered"] == 1


def test_a_device_that_is_away_gets_its_verdicts_when_it_comes_back(
    ingest: Start, courier: Carry, join: Join, store: Store, broker: Broker
) -> None:
    up(ingest())
    running = courier(PATIENT)
    answer(store, verdict(1), verdict(2))
    wait_for("the broker knows nobody who wants them", lambda: running.metrics.unheard._value.get() == 1)
    shop = join()
    shop.say(Status(state="online", session="0" * 15 + "1"))
    shop.listen(lambda: len(shop.answers) == 2, "they come as soon as it is there")
    shop.say(Status(state="online", session="0" * 15 + "1"))  # the same presence again hurries nothing
    shop.say(Status(state="offline", session="0" * 15 + "1"))
    shop.confirm(*shop.answers)
    wait_for("the receipt is taken", lambda: waiting(store) == 0)
    answer(store, verdict(3))
    wait_for("a device that has said goodbye is not sent anything", lambda: _next_in_s(store) > 200)
    assert running.metrics.envelopes._value.get() == 2
    shop.say(Status(state="online", session="0" * 15 + "2"))
    shop.listen(lambda: len(shop.answers) == 3, "and gets it when it comes back")
    shop.publish(topics.topic("shop-1", topics.STATUS), b"", retain=True)


def _next_in_s(store: Store) -> float:
    ((in_s,),) = rows(store.dsn, "SELECT extract(epoch FROM max(next_at) - clock_timestamp())::float8 FROM outbound")
    return float(str(in_s))


def test_a_broker_that_is_killed_loses_nothing(
    ingest: Start, courier: Carry, join: Join, store: Store, broker: Broker
) -> None:
    up(ingest())
    running = courier(QUICK)
    shop = join()
    answer(store, *(verdict(seq) for seq in range(1, 301)))
    shop.listen(lambda: len(shop.answers) >= 100, "some have come")
    broker.kill()
    answer(store, *(verdict(seq) for seq in range(301, 401)))
    broker.start()
    confirmed = 0

    def all_confirmed() -> bool:
        nonlocal confirmed
        while confirmed < len(shop.told) and shop.session.connected:  # each copy again: its receipt may be lost too
            shop.confirm(*shop.told[confirmed].good)
            confirmed += 1
        return waiting(store) == 0

    shop.listen(all_confirmed, "all come and are confirmed in the end", 60)
    assert {one.verdict.seq for one in shop.answers} == set(range(1, 401))
    assert tally(store)["verdicts-delivered"] == 400
    assert running.connected


def test_a_courier_killed_in_the_middle_holds_nothing_back(
    ingest: Start, courier: Carry, join: Join, store: Store, broker: Broker
) -> None:
    up(ingest())
    shop = join()
    answer(store, *(verdict(seq) for seq in range(1, 201)))
    lent = Outbound(store.pool).lend(100, QUICK, 1.0, newest=False)  # and then it dies
    assert lent is not None
    assert len(lent.rows) == 100
    courier(QUICK)
    shop.listen(lambda: {one.verdict.seq for one in shop.answers} == set(range(1, 201)), "another takes over")


def test_the_database_may_go_away(ingest: Start, courier: Carry, join: Join, store: Store) -> None:
    running = courier(QUICK)
    shop = join()
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                           " AND datname = current_database()")  # fmt: skip
    answer(store, verdict(1))
    shop.listen(lambda: bool(shop.answers), "it comes all the same", 20)
    assert running.connected


# -- what devices may say ----------------------------------------------------------------------------------------------


def test_a_receipt_ends_only_what_is_the_devices_own_and_was_sent(
    ingest: Start, courier: Carry, join: Join, store: Store
) -> None:
    up(ingest())
    first, second = join("shop-1"), join("shop-2")
    answer(store, verdict(1, "shop-1"), verdict(1, "shop-2"))
    ((run,),) = rows(store.dsn, "SELECT run FROM cloud_run")

    def claim(device: Device, run: str, name: str, source: str | None = None, topic: str | None = None) -> None:
        receipt = Receipt(envelope=name, committed=(Span(run=run, first=1, last=bounds.SEQ_MAX),))
        payload = envelope.seal_message("receipt", source or envelope.device_source(device.name), receipt, START)
        device.publish(topics.topic(topic or device.name, topics.RECEIPTS_UP), payload, name.encode())

    claim(first, str(run), "too-early")  # nothing was sent yet
    claim(first, str(run), "elsewhere", topic="shop-2")  # the broker lets nobody speak for another
    claim(first, str(run), "forged", source="/devices/shop-2")
    claim(first, "0" * 16, "another-cloud")
    wait_for("is seen", lambda: [code for (code,) in rows(store.dsn, "SELECT code FROM quarantine")] == ["bad-source"])
    assert (waiting(store, "shop-1"), waiting(store, "shop-2")) == (1, 1)
    courier()
    second.listen(lambda: bool(second.answers), "the verdict comes")
    first.listen(lambda: bool(first.answers), "the verdict comes")
    claim(first, "0" * 16, "another-cloud-again")
    claim(first, str(run), "all-that-is-mine")
    wait_for("its own is ended", lambda: waiting(store, "shop-1") == 0)
    assert waiting(store, "shop-2") == 1
    assert tally(store, "shop-1")["verdicts-delivered"] == 1


def test_what_a_device_refuses_is_never_sent_again_and_stays_visible(
    ingest: Start, courier: Carry, join: Join, store: Store
) -> None:
    up(ingest())
    courier(QUICK)
    shop = join()
    answer(store, verdict(1), verdict(2))
    shop.listen(lambda: len(shop.answers) >= 2, "they come")
    shop.confirm(shop.answers[0], refuse="no-such-frame")
    shop.listen(lambda: sum(one.verdict.seq == 2 for one in shop.answers) >= 3, "the other one comes again")
    assert rows(store.dsn, "SELECT refused FROM outbound ORDER BY id") == [("no-such-frame",), (None,)]
    assert tally(store)["verdicts-refused"] == 1
    assert sum(one.verdict.seq == 1 for one in shop.answers) <= 2


def test_an_envelope_that_a_device_cannot_read_is_kept_for_a_person(ingest: Start, join: Join, store: Store) -> None:
    up(ingest())
    shop = join()
    said = Receipt(envelope="e7", rejected="bad-type")
    payload = envelope.seal_message("receipt", envelope.device_source("shop-1"), said, START)
    shop.send("e7", payload, topics.RECEIPTS_UP)
    shop.send("e8", b"rubbish", topics.RECEIPTS_UP)
    wait_for("both are kept", lambda: len(rows(store.dsn, "SELECT 1 FROM quarantine")) == 2)
    found = rows(store.dsn, "SELECT code, detail FROM quarantine ORDER BY id")
    assert found[0][0] == "verdicts-rejected"
    assert "bad-type" in str(found[0][1])
    assert found[1][0] == "bad-json"
    assert shop.seen == []


# -- numbers and the command -------------------------------------------------------------------------------------------


def test_what_waits_can_be_seen(store: Store) -> None:
    answer(store, verdict(1), verdict(2), verdict(3))
    outbound = Outbound(store.pool)
    lent = outbound.lend(100, PATIENT, 1.0, newest=True)
    assert lent is not None
    outbound.refuse([lent.rows[0][0]], "too-large")
    found = outbound.waiting()
    assert (found.rows, found.refused) == (2, 1)
    assert 0 < found.oldest_age_s < 60
    assert outbound.lend(100, PATIENT, 1.0, newest=False) is None, "what is lent is not due"


def test_ingest_carries_verdicts_too(join: Join, store: Store, broker: Broker) -> None:
    shop, port = join(), free_port()
    command = [
        sys.executable, "-m", "cloud.cli", "ingest", "--broker", f"mqtt://{CLOUD}@127.0.0.1:{broker.cloud_port}",
        "--password-file", str(broker.password_file(CLOUD)), "--dsn", store.dsn, "--client-id", "mine",
        "--metrics-port", str(port),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=os.environ)
    try:
        answer(store, verdict(1))
        shop.listen(lambda: bool(shop.answers), "the verdict comes", 30)
        shop.confirm(*shop.answers)
        wait_for("the receipt is taken", lambda: waiting(store) == 0)
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert "shelfwire_courier_verdicts_total 1.0" in metrics
        assert "shelfwire_courier_connected 1.0" in metrics
        assert 'shelfwire_ingest_received_total{topic="receipts/up"} 1.0' in metrics
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_an_answer_is_a_late_answer_on_the_wire() -> None:
    late = LateAnswer(run=RUN, seq=1, verdict=verdict(1))
    body = b'{"verdict":%s}' % verdict(1).model_dump_json().encode()
    assert LateAnswer.model_validate_json(envelope.keyed(RUN, 1, body)) == late
