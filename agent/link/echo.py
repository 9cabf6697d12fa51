"""The hops ``login`` and ``echo``: log in to the broker as this device does, send to ourselves, and wait for it.

Only while sync does not run: the broker knows a device by its name and would end sync's connection for ours. What
waits for the device at the broker is not taken: the session is sync's, and nothing in it is acknowledged.
"""

import logging
import random
import secrets
import time
from dataclasses import replace

from agent.config import Config
from agent.errors import ShelfwireError
from agent.link.hops import Way, failed, passed
from agent.link.mqtt import options
from wire import WireError, mqtt, topics

ECHO = "echo"
"""The topic below the device's own on which it hears itself. No message of the wire: the cloud does not listen."""

CODES = {
    "broker-dns": "NET-5", "broker-tls": "NET-12", "broker-refused": "NET-7", "broker-timeout": "NET-6",
    "broker-unreachable": "NET-20", "broker-auth": "NET-13", "broker-client-id": "NET-13",
    "broker-subscribe": "NET-14", "broker-twin": "NET-18", "broker-busy": "NET-22", "broker-quota": "NET-22",
    "cloud-away": "NET-17", "broker-lost": "NET-15", "clock-wrong": "TIME-1", "certificate-expired": "CRT-2",
    "certificate-revoked": "NET-13", "certificate-missing": "CRT-1", "certificate-refused": "NET-13",
}  # fmt: skip
"""Codes of the connection (`wire.mqtt`, `agent.uplink`), and those that are read out."""


def log_in_and_echo(way: Way, config: Config, until_s: float) -> None:
    """Walk both hops, until `until_s` on the monotonic clock at most."""
    began_s = time.monotonic()
    topic = topics.topic(config.device.id, ECHO)
    logging.getLogger("wire.mqtt").setLevel(logging.CRITICAL)
    try:
        given = options(config, lambda: mqtt.Will("", b"", 0))
    except ShelfwireError as error:
        way.take(failed("login", "CRT-1", began_s, str(error), error.hint))
        return
    mine = replace(given, will=None, manual_ack=True, subscriptions=((topic, 0),))
    try:
        session = mqtt.Session(mine, random.Random())  # noqa: S311 - spreads retries
    except OSError as error:
        way.take(failed("login", "CRT-1", began_s, f"our certificate or authority cannot be used: {error}"))
        return
    session.start()
    try:
        if _log_in(way, session, began_s, until_s):
            _echo(way, session, topic, until_s)
    finally:
        session.stop(0.5)


def _log_in(way: Way, session: mqtt.Session, began_s: float, until_s: float) -> bool:
    while (left_s := until_s - time.monotonic()) > 0:
        match session.next_event(left_s):
            case mqtt.Up():
                return way.take(passed("login", began_s, "the broker lets this device in"))
            case mqtt.Down() as down:
                code = CODES.get(down.code, "NET-13")
                return way.take(failed("login", code, began_s, f"{down.text} [{down.code}]", down.hint))
            case _:
                continue
    return way.take(failed("login", "NET-22", began_s, "the broker does not answer the login"))


def _echo(way: Way, session: mqtt.Session, topic: str, until_s: float) -> None:
    began_s = time.monotonic()
    word = secrets.token_hex(8).encode()
    try:
        session.publish(topic, word, qos=1, expiry_s=10)
    except WireError as error:
        way.take(failed("echo", "NET-15", began_s, str(error)))
        return
    while (left_s := until_s - time.monotonic()) > 0:
        match session.next_event(left_s):
            case mqtt.Message(topic=where, payload=payload) if (where, payload) == (topic, word):
                way.take(passed("echo", began_s, "what we send comes back"))
                return
            case mqtt.Acknowledged(failed=True) as refused:
                way.take(failed("echo", "NET-14", began_s, f"the broker refused to take it: {refused.text}"))
                return
            case mqtt.Down() as down:
                way.take(
                    failed("echo", CODES.get(down.code, "NET-15"), began_s, f"{down.text} [{down.code}]", down.hint)
                )
                return
            case _:
                continue
    way.take(failed("echo", "NET-15", began_s, "what we send does not come back"))
