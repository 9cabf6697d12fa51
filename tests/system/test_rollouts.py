"""Rollouts for real: a broker, a database, conductor and ingest, and devices reduced to what they say on the wire."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from broker import DEVICES, PATIENCE_S
from prometheus_client import CollectorRegistry
from test_ingest import Start, rows, tally

from cloud.broker import CLOUD, Broker
from cloud.errors import Rejected
from cloud.rollout import step
from cloud.rollout.conductor import Conductor
from cloud.rollout.rows import Rollouts, keep_rules, read_one, read_rules
from cloud.rollout.rules import Batch, Rules, parse_limit
from cloud.store import Store
from wire import envelope, mqtt, topics
from wire.orders import ConfigOrder, Desired, ModelOrder, Reported, Update
from wire.records import ModelName, Status

pytestmark = pytest.mark.broker

MODEL = ModelOrder(name="produce", version="1.1.0", release=2, digest="cd" * 32)
OLD = ModelName(name="produce", version="1.0.0", release=1, digest="ab" * 32)
ALL = Batch(percent=100.0)
RULES = Rules(batches=(ALL,), soak_s=0.0, min_sample=1)
ONE_BY_ONE = replace(RULES, batches=(Batch(number=1), ALL))

Join = Callable[..., "Shop"]


class Shop:
    """A device on a thread of its own that takes every order. `ends`: the states that it reports then, in turn."""

    def __init__(self, broker: Broker, name: str, store: str, ends: tuple[str, ...], known: int = 0) -> None:
        self.name, self.ends, self.known = name, ends, known
        self.orders: list[Desired] = []
        self._store = store
        wanted = ((topics.topic(name, topics.DESIRED), 1),)
        self._session = mqtt.Session(replace(broker.options(name), subscriptions=wanted), random.Random(7))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._session.start()
        self._thread.start()

    def _live(self) -> None:
        while not self._stopping.is_set():
            match self._session.next_event(0.2):
                case mqtt.Up():
                    said = Status(state="online", session="00000000000000aa", store=self._store, vision="running")
                    self._say(topics.STATUS, "status", said)
                    self.report()
                case mqtt.Message() as message if message.payload:
                    _, order = envelope.open_message(message.payload, "desired", Desired, envelope.CLOUD_SOURCE)
                    self._obey(order)
        self._session.stop()

    def _obey(self, order: Desired) -> None:
        if order.revision <= self.known:
            return
        self.known = order.revision
        self.orders.append(order)
        for state in self.ends if order.rollout else ("committed",):
            code = "update-golden" if state == "rejected" else None
            self.report(Update(
                what="model", revision=order.revision, rollout=order.rollout, state=state, code=code,  # type: ignore[arg-type]
                text="3 of 32 golden pictures differ" if code else "", target=order.model, numbers={"p95_ms": 12.0},
            ))  # fmt: skip

    def report(self, *updates: Update) -> None:
        on_trial = any(update.state == "trial" for update in updates)
        runs = ModelName.model_validate(MODEL.model_dump()) if on_trial else OLD
        self._say(topics.REPORTED, "reported", Reported(model=runs, updates=updates))

    def _say(self, rest: str, kind: str, said: Status | Reported) -> None:
        payload = envelope.seal_message(kind, envelope.device_source(self.name), said, datetime.now(UTC))
        self._session.publish(topics.topic(self.name, rest), payload, retain=True)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_S)


@pytest.fixture(autouse=True)
def nothing_kept(broker: Broker) -> Iterator[None]:
    """Have the broker forget what it keeps for devices: each test has a database of its own."""
    yield
    session = mqtt.Session(broker.options(CLOUD, "sweeper"), random.Random(7))
    session.start()
    until(lambda: isinstance(session.next_event(0.1), mqtt.Up))
    for device in DEVICES:
        for rest in (topics.DESIRED, topics.REPORTED, topics.STATUS):
            mid = session.publish(topics.topic(device, rest), b"", retain=True)
            until(lambda: isinstance(e := session.next_event(0.1), mqtt.Acknowledged) and e.mid == mid)  # noqa: B023
    session.stop()


@pytest.fixture
def join(broker: Broker) -> Iterator[Join]:
    joined: list[Shop] = []

    def start(name: str, *ends: str, store: str = "", known: int = 0) -> Shop:
        joined.append(Shop(broker, name, store, ends or ("downloading", "trial", "committed"), known))
        return joined[-1]

    yield start
    for one in joined:
        one.close()


@pytest.fixture
def conduct(broker: Broker, store: Store) -> Iterator[Callable[[], Conductor]]:
    started: list[Conductor] = []
    crashes: list[BaseException] = []

    def start() -> Conductor:
        options = broker.options(CLOUD, f"conductor-{len(started)}")
        started.append(Conductor(store, options, registry=CollectorRegistry(), on_crash=crashes.append))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()
    assert not crashes


def until(holds: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, "not within the time"
        threading.Event().wait(0.05)


def known(rollouts: Rollouts, *devices: str) -> bool:
    """Whether the cloud knows these devices, and that they are online."""
    return {row.device for row in rollouts.devices() if row.state == "online"} >= set(devices)


def begin(rollouts: Rollouts, name: str = "r1", rules: Rules = RULES) -> None:
    rollouts.begin(name, "produce 1.1.0", MODEL, rules, "ann", datetime.now(UTC))


def test_a_rollout_reaches_every_device_one_per_shop_and_ends(
    store: Store, ingest: Start, join: Join, conduct: Callable[[], Conductor]
) -> None:
    rollouts = Rollouts(store.pool)
    ingest()
    shops = [join(name, store="store-1") for name in DEVICES[:2]] + [join(DEVICES[2], store="store-2")]
    until(lambda: known(rollouts, *DEVICES))
    begin(rollouts, rules=ONE_BY_ONE)
    conduct()
    until(lambda: rollouts.one("r1").state == "finished", 30)
    assert rollouts.one("r1").counts == {"done": 3}
    for shop in shops:
        (order,) = shop.orders
        assert order.model == MODEL
        assert order.rollout == "r1"
        assert order.deadline_at is not None
    spans = {p.device: (p.ordered_at, p.ended_at) for p in rollouts.parts("r1", datetime.now(UTC))}
    (a, b), (c, d) = sorted(spans[name] for name in DEVICES[:2])
    assert a <= b <= c <= d, "of one shop, one after the other"
    states = rows(store.dsn, "SELECT state FROM reported_step WHERE device = 'shop-1' ORDER BY id")
    assert states == [("downloading",), ("trial",), ("committed",)]
    assert tally(store).get("quarantined", 0) == 0


def test_a_bad_model_is_stopped_and_the_others_never_hear_of_it(
    store: Store, ingest: Start, join: Join, conduct: Callable[[], Conductor]
) -> None:
    rollouts = Rollouts(store.pool)
    ingest()
    shops = {name: join(name, "downloading", "rejected", store=name) for name in DEVICES}
    until(lambda: known(rollouts, *DEVICES))
    begin(rollouts, rules=ONE_BY_ONE)
    conduct()
    until(lambda: rollouts.one("r1").state == "aborted", 30)
    one = rollouts.one("r1")
    assert one.counts == {"rejected": 1, "dropped": 2}
    assert "rejected" in one.reason
    assert sorted(len(shop.orders) for shop in shops.values()) == [0, 0, 1]
    (bad,) = [part for part in rollouts.parts("r1", datetime.now(UTC)) if part.state == "rejected"]
    assert (bad.code, bad.text) == ("update-golden", "3 of 32 golden pictures differ")
    assert bad.numbers == {"p95_ms": 12.0}


def test_an_abort_gives_devices_that_have_not_ended_their_former_goal_again(
    store: Store, ingest: Start, join: Join, conduct: Callable[[], Conductor]
) -> None:
    rollouts = Rollouts(store.pool)
    ingest()
    shop = join("shop-1", "shadow")
    until(lambda: known(rollouts, "shop-1"))
    begin(rollouts)
    conduct()
    until(lambda: [p.update_state for p in rollouts.parts("r1", datetime.now(UTC))] == ["shadow"], 30)
    rollouts.change("r1", "abort", "looks wrong", "ann", datetime.now(UTC))
    until(lambda: len(shop.orders) == 2)
    assert shop.orders[1].revision > shop.orders[0].revision
    assert shop.orders[1].model == ModelOrder.model_validate(OLD.model_dump())
    assert shop.orders[1].rollout == ""
    assert (rollouts.one("r1").reason, rollouts.one("r1").counts) == ("looks wrong", {"dropped": 1})


def test_a_device_on_trial_ends_it_after_an_abort_and_is_counted_then(
    store: Store, ingest: Start, join: Join, conduct: Callable[[], Conductor]
) -> None:
    rollouts = Rollouts(store.pool)
    ingest()
    shop = join("shop-1", "trial")
    until(lambda: known(rollouts, "shop-1"))
    begin(rollouts)
    conduct()
    until(lambda: [p.update_state for p in rollouts.parts("r1", datetime.now(UTC))] == ["trial"], 30)
    rollouts.change("r1", "abort", "looks wrong", "ann", datetime.now(UTC))
    assert rollouts.one("r1").counts == {"ordered": 1}
    shop.report(Update(what="model", revision=1, rollout="r1", state="committed", target=MODEL))
    until(lambda: rollouts.one("r1").counts == {"done": 1})
    assert len(shop.orders) == 1


def test_a_device_whose_trial_had_begun_unheard_is_counted_by_what_it_runs(store: Store) -> None:
    rollouts = Rollouts(store.pool)
    enrol(store, "a")
    begin(rollouts)
    now = datetime.now(UTC)
    with store.pool.connection() as connection:
        connection.execute("UPDATE rollout_part SET state = 'ordered', revision = 1, update_state = 'shadow'")
    rollouts.change("r1", "abort", "", "ann", now)
    back = ModelOrder.model_validate(OLD.model_dump())
    refused = Update(what="model", revision=2, state="rejected", code="update-rollback", target=back)
    said = Reported(model=ModelName.model_validate(MODEL.model_dump()), updates=(refused,))
    with store.pool.connection() as connection, connection.transaction():
        connection.execute("INSERT INTO reported VALUES ('a', %s, 2, %s)", (said.model_dump_json(), now))
        step.hear(connection, read_one(connection, "r1"), now)
    assert rollouts.one("r1").counts == {"done": 1}


def test_orders_are_published_again_to_a_broker_that_lost_them_and_by_the_next_conductor(
    store: Store, ingest: Start, join: Join, conduct: Callable[[], Conductor], broker: Broker
) -> None:
    rollouts = Rollouts(store.pool)
    ingest()
    early = join("shop-1", "trial")
    until(lambda: known(rollouts, "shop-1"))
    begin(rollouts)
    first = conduct()
    second = conduct()
    until(lambda: early.orders, 30)
    first.stop()  # the second takes over, and publishes what is wanted
    sweep = mqtt.Session(broker.options(CLOUD, "sweep"), random.Random(7))
    sweep.start()
    until(lambda: isinstance(sweep.next_event(0.1), mqtt.Up))
    sweep.publish(topics.topic("shop-1", topics.DESIRED), b"", retain=True)
    until(lambda: second.metrics.leading._value.get() == 1)
    early.close()
    sweep.stop()
    late = join("shop-1", "committed")
    until(lambda: late.orders, 30)
    assert late.orders[0].revision == early.orders[0].revision, "the same order: a device knows it by its revision"
    until(lambda: rollouts.one("r1").state == "finished", 30)


def test_a_device_that_has_seen_higher_revisions_is_heard_after_a_backup_came_back(
    store: Store, ingest: Start, join: Join, conduct: Callable[[], Conductor]
) -> None:
    rollouts = Rollouts(store.pool)
    ingest()
    shop = join("shop-1", known=41)
    until(lambda: known(rollouts, "shop-1"))
    shop.report(Update(what="model", revision=41, state="committed"))
    until(lambda: rows(store.dsn, "SELECT highest FROM reported") == [(41,)])
    begin(rollouts)
    conduct()
    until(lambda: rollouts.one("r1").state == "finished", 30)
    assert shop.orders[0].revision == 42


def test_a_bad_report_goes_to_quarantine_and_changes_nothing(
    store: Store, ingest: Start, device: Callable[[str], object]
) -> None:
    ingest()
    one = device("shop-1")
    one.publish(topics.topic("shop-1", topics.REPORTED), b'{"data": {}}', retain=True)  # type: ignore[attr-defined]
    until(lambda: tally(store).get("quarantined", 0) == 1)
    assert rows(store.dsn, "SELECT count(*) FROM reported") == [(0,)]


# -- the store's own rules -----------------------------------------------------------------------------------------


def enrol(store: Store, *devices: str, where: str = "store-1") -> None:
    with store.pool.connection() as connection:
        for device in devices:
            connection.execute("INSERT INTO fleet_device (device, store) VALUES (%s, %s)", (device, where))


def test_a_second_rollout_on_the_same_devices_waits_unless_the_first_only_catches_up(store: Store) -> None:
    rollouts = Rollouts(store.pool)
    enrol(store, "a", "b")
    begin(rollouts)
    with pytest.raises(Rejected) as caught:
        begin(rollouts, "r2")
    assert caught.value.code == "rollout-in-the-way"
    assert "abort r1" in caught.value.hint
    with store.pool.connection() as connection:
        connection.execute("UPDATE rollout SET state = 'catching-up'")
    begin(rollouts, "r2")
    assert rollouts.one("r1").state == "replaced"
    assert rollouts.one("r1").counts == {"dropped": 2}


def test_a_command_that_does_not_fit_the_state_says_so(store: Store) -> None:
    rollouts = Rollouts(store.pool)
    enrol(store, "a")
    begin(rollouts)
    now = datetime.now(UTC)
    assert rollouts.change("r1", "pause", "lunch", "ann", now) == "paused"
    assert rollouts.change("r1", "resume", "", "ann", now) == "running"
    assert rollouts.change("r1", "abort", "", "ann", now) == "aborted"
    for event in ("pause", "resume", "abort"):
        with pytest.raises(Rejected) as caught:
            rollouts.change("r1", event, "", "ann", now)  # type: ignore[arg-type]
        assert caught.value.code == "rollout-state"
    with pytest.raises(Rejected, match="no rollout is called"):
        rollouts.one("r9")


def test_an_order_that_nobody_took_is_taken_back_with_a_newer_revision(store: Store) -> None:
    rollouts = Rollouts(store.pool)
    enrol(store, "a")
    begin(rollouts, rules=replace(RULES, deadline_s=60.0))
    start = datetime.now(UTC)
    with store.pool.connection() as connection, connection.transaction():
        connection.execute(
            "INSERT INTO device (device, state, seen_at, changed_at) VALUES ('a', 'online', %(at)s, %(at)s)",
            {"at": start},
        )
        assert step.advance(connection, "r1", start).order == ("a",)
        connection.execute("UPDATE device SET state = 'offline'")
        assert step.advance(connection, "r1", start + timedelta(minutes=10)).take_back == ("a",)
        assert connection.execute("SELECT revision, body -> 'model' FROM desired").fetchone() == (2, None)
    assert rollouts.one("r1").counts == {"waiting": 1}


@pytest.mark.parametrize("state", ["committed", "rejected", "rolled-back", "failed"])
def test_settings_repeat_the_model_that_a_device_has_and_none_that_it_refused(store: Store, state: str) -> None:
    rollouts = Rollouts(store.pool)
    enrol(store, "a")
    now = datetime.now(UTC)
    body = {"model": MODEL.model_dump(), "ordered_at": now.isoformat()}
    said = Reported(model=OLD, updates=(Update(what="model", revision=1, state=state, target=MODEL),))  # type: ignore[arg-type]
    with store.pool.connection() as connection:
        connection.execute(
            "INSERT INTO device (device, state, seen_at, changed_at) VALUES ('a', 'online', now(), now())"
        )
        connection.execute("INSERT INTO desired VALUES ('a', 1, %s)", (json.dumps(body),))
        connection.execute("INSERT INTO reported VALUES ('a', %s, 1, now())", (said.model_dump_json(),))
    rollouts.begin("c1", "settings", ConfigOrder(text="[decide]"), RULES, "ann", now)
    with store.pool.connection() as connection, connection.transaction():
        assert step.advance(connection, "c1", datetime.now(UTC)).order == ("a",)
    ((revision, goal),) = rows(store.dsn, "SELECT revision, body FROM desired")
    assert revision == 2
    assert goal["config"] == {"text": "[decide]"}  # type: ignore[index]
    assert ("model" in goal) == (state == "committed")  # type: ignore[operator]


def test_revisions_never_go_down_and_the_audit_is_only_added_to(store: Store) -> None:
    enrol(store, "a")
    begin(Rollouts(store.pool))
    with store.pool.connection() as connection:
        connection.execute("INSERT INTO desired VALUES ('a', 5, '{}')")
        for statement in (
            "UPDATE desired SET revision = 5", "UPDATE audit SET line = '{}'", "DELETE FROM audit", "TRUNCATE audit",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.RaiseException):
                connection.execute(statement.encode())


def test_the_audit_shows_what_was_changed_or_cut(store: Store) -> None:
    rollouts = Rollouts(store.pool)
    enrol(store, "a")
    begin(rollouts)
    rollouts.label("a", ["canary"], [], "ann", datetime.now(UTC))
    rollouts.change("r1", "pause", "lunch", "ann", datetime.now(UTC))
    whole = rollouts.verify_audit()
    assert (whole.lines, whole.broken) == (3, None)
    assert [line.what for line in rollouts.audit_lines(9)] == ["paused", "label", "start"]
    assert [line.what for line in rollouts.audit_lines(9, "a")] == ["label"]
    with psycopg.connect(store.dsn) as connection:
        connection.execute("ALTER TABLE audit DISABLE TRIGGER ALL")
        connection.execute("DELETE FROM audit WHERE n = 3")
        connection.commit()
        assert rollouts.verify_audit().broken is None, "nothing in the table shows that"
        assert rollouts.verify_audit(whole.newest).broken == 3
        connection.execute("UPDATE audit SET line = replace(line, 'ann', 'bob') WHERE n = 1")
        connection.commit()
    assert rollouts.verify_audit().broken == 1


def test_rules_are_kept_as_they_were_chosen() -> None:
    rules = replace(ONE_BY_ONE, limits={"failed": parse_limit("2"), "silent": parse_limit("5%")})
    assert read_rules(json.loads(keep_rules(rules))) == rules
