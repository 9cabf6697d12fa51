"""The one MQTT connection, against a real broker: what it says of every way to fail, and that it always comes back."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from cloud.broker import CLOUD, Broker
from wire import WireError, mqtt

PATIENCE_S = 15.0
E = TypeVar("E", bound=mqtt.Event)


def wait_for(session: mqtt.Session, kind: type[E], timeout_s: float = PATIENCE_S) -> E:
    deadline_s = time.monotonic() + timeout_s
    while (left_s := deadline_s - time.monotonic()) > 0:
        event = session.next_event(left_s)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} came")


@pytest.fixture
def connect(broker: Broker) -> Iterator[Callable[..., mqtt.Session]]:
    """Makes started sessions, stopped after the test."""
    sessions: list[mqtt.Session] = []

    def make(user: str = CLOUD, **changes: object) -> mqtt.Session:
        options = replace(broker.options(user, str(changes.pop("client_id", f"test-{len(sessions)}"))), **changes)  # type: ignore[arg-type]
        sessions.append(mqtt.Session(options, random.Random(1)))
        sessions[-1].start()
        return sessions[-1]

    yield make
    for session in sessions:
        session.stop()


def test_what_is_published_arrives_with_its_properties(connect: Callable[..., mqtt.Session]) -> None:
    listener = connect(subscriptions=(("shelfwire/v1/+/results", 1),))
    wait_for(listener, mqtt.Up)
    sender = connect()
    wait_for(sender, mqtt.Up)
    mid = sender.publish(
        "shelfwire/v1/a/results", b"hello", correlation=b"id-1", content_type="text/plain", expiry_s=30
    )
    message = wait_for(listener, mqtt.Message)
    assert (message.topic, message.payload, message.correlation) == ("shelfwire/v1/a/results", b"hello", b"id-1")
    answer = wait_for(sender, mqtt.Acknowledged)
    assert (answer.mid, answer.failed) == (mid, False)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"password": "wrong"}, "broker-auth"),
        ({"username": "nobody"}, "broker-auth"),
        ({"port": 1}, "broker-refused"),
        ({"host": "no-such-host.invalid"}, "broker-dns"),
        ({"tls": True}, "broker-tls"),
    ],
)
def test_every_way_to_fail_has_a_code_and_a_cure(
    connect: Callable[..., mqtt.Session], changes: dict[str, object], code: str
) -> None:
    down = wait_for(connect(**changes), mqtt.Down)
    assert down.code == code
    assert down.hint
    assert "wrong" not in down.text


def test_a_connection_that_ends_is_made_again_and_says_so(broker: Broker, connect: Callable[..., mqtt.Session]) -> None:
    session = connect()
    wait_for(session, mqtt.Up)
    broker.kill()
    assert wait_for(session, mqtt.Down).code == "broker-lost"
    assert not session.connected
    with pytest.raises(WireError, match="away"):
        session.publish("shelfwire/v1/a/results", b"x")
    broker.start()
    wait_for(session, mqtt.Up, 30)
    session.publish("shelfwire/v1/a/results", b"x")
    assert not wait_for(session, mqtt.Acknowledged).failed


def test_what_the_broker_would_not_take_never_leaves(connect: Callable[..., mqtt.Session]) -> None:
    session = connect()
    assert wait_for(session, mqtt.Up).packet_bytes == 1048576
    with pytest.raises(WireError) as caught:
        session.publish("shelfwire/v1/a/results", b"x" * 1048576)
    assert caught.value.code == "too-large"
    session.publish("shelfwire/v1/a/results", b"small")
    assert not wait_for(session, mqtt.Acknowledged).failed


def test_only_a_window_of_messages_is_on_the_way(connect: Callable[..., mqtt.Session]) -> None:
    session = connect()
    wait_for(session, mqtt.Up)
    session._answered -= mqtt.IN_FLIGHT  # as if the broker had not answered a window's worth
    with pytest.raises(WireError) as caught:
        session.publish("shelfwire/v1/a/results", b"x")
    assert caught.value.code == "window-full"


def test_a_failing_callback_costs_the_connection_and_not_the_thread(
    connect: Callable[..., mqtt.Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = connect(subscriptions=(("shelfwire/v1/+/results", 1),))
    wait_for(session, mqtt.Up)

    class Once:
        """A queue that fails for the first message."""

        def __init__(self, real: object) -> None:
            self.real = real
            self.failed = False

        def put(self, event: mqtt.Event) -> None:
            if isinstance(event, mqtt.Message) and not self.failed:
                self.failed = True
                raise RuntimeError("a bug in a callback")
            self.real.put(event)  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    monkeypatch.setattr(session, "_events", Once(session._events))
    session.publish("shelfwire/v1/a/results", b"one")
    wait_for(session, mqtt.Down)
    wait_for(session, mqtt.Up, 30)
    session.publish("shelfwire/v1/a/results", b"two")
    assert wait_for(session, mqtt.Message).payload == b"two"


def test_what_was_not_acknowledged_comes_again(connect: Callable[..., mqtt.Session]) -> None:
    options = {"client_id": "slow", "manual_ack": True, "clean_start": False, "session_expiry_s": 60}
    first = connect(subscriptions=(("shelfwire/v1/+/alerts", 1),), **options)
    wait_for(first, mqtt.Up)
    sender = connect()
    wait_for(sender, mqtt.Up)
    for text in (b"one", b"two"):
        sender.publish("shelfwire/v1/a/alerts", text)
    taken = wait_for(first, mqtt.Message)
    assert taken.payload == b"one"
    first.ack(taken)
    wait_for(first, mqtt.Message)
    first.stop()
    second = connect(subscriptions=(("shelfwire/v1/+/alerts", 1),), **options)
    assert wait_for(second, mqtt.Message).payload == b"two"


def test_a_will_is_sent_for_who_vanishes_and_not_for_who_says_goodbye(
    broker: Broker, connect: Callable[..., mqtt.Session]
) -> None:
    listener = connect(subscriptions=(("shelfwire/v1/+/status", 1),))
    wait_for(listener, mqtt.Up)
    wills = [mqtt.Will(f"shelfwire/v1/shop-{n}/status", f"gone-{n}".encode(), 0) for n in (1, 2)]
    polite = connect("shop-1", will=lambda: wills[0])
    rude = connect("shop-2", will=lambda: wills[1])
    wait_for(polite, mqtt.Up)
    wait_for(rude, mqtt.Up)
    polite.stop()
    rude._client._sock_close()  # as a cable that is pulled
    assert wait_for(listener, mqtt.Message).payload == b"gone-2"


def test_a_password_is_in_no_repr(broker: Broker) -> None:
    options = broker.options(CLOUD)
    assert options.password
    assert options.password not in repr(options)


def test_a_device_cannot_read_or_write_what_is_anothers(connect: Callable[..., mqtt.Session], tmp_path: Path) -> None:
    spy = connect("shop-2", subscriptions=(("#", 1), ("shelfwire/v1/shop-1/#", 1)))
    wait_for(spy, mqtt.Up)
    victim = connect("shop-1")
    wait_for(victim, mqtt.Up)
    cloud = connect()
    wait_for(cloud, mqtt.Up)
    spy.publish("shelfwire/v1/shop-1/results", b"forged")
    assert wait_for(spy, mqtt.Acknowledged).failed
    victim.publish("shelfwire/v1/shop-1/results", b"private")
    wait_for(victim, mqtt.Acknowledged)
    cloud.publish("shelfwire/v1/shop-1/receipts/down", b"for shop-1")
    cloud.publish("shelfwire/v1/shop-2/receipts/down", b"for shop-2")
    assert wait_for(spy, mqtt.Message).payload == b"for shop-2"
