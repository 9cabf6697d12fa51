"""The proof of the path: this device's certificate is shown to the broker and to the API, and both say what they think.

What fails is a finding with a cure, not an error: the identity is in force, and somebody else may have to act.
"""

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from agent.config import IDENTITY
from agent.errors import ShelfwireError
from agent.identity import CA, CERTIFICATE, KEY
from agent.link import enrolment as calls
from agent.link.echo import ECHO
from agent.link.https import Https
from agent.link.mqtt import PORTS, SESSION_EXPIRY_S
from wire import enrolment, mqtt, topics
from wire.errors import WireError

BROKER_S = 15.0
TRIES = 2
"""The sync of before, with the same name, may push the first one out."""


@dataclass(frozen=True, slots=True)
class Step:
    """How one step went: `code` and `cure` are empty when it went well."""

    name: str
    text: str
    code: str = ""
    cure: str = ""

    @property
    def good(self) -> bool:
        """Whether it went well."""
        return not self.code


def api(told: enrolment.Identity, state_dir: Path) -> Step:
    """Show the certificate to the API: it must know this device by it."""
    folder = state_dir / IDENTITY
    http = Https(told.api, folder / CA, version("shelfwire"), own=(folder / CERTIFICATE, folder / KEY))
    try:
        known = calls.known(http)
    except ShelfwireError as error:
        return Step("api", str(error), error.code, error.hint)
    if known.device != told.device:
        return Step("api", f"{told.api} takes this device for {known.device}", "api-other-device",
                    "enrol the device anew")  # fmt: skip
    return Step("api", f"{told.api} knows {known.device}")


def broker(told: enrolment.Identity, state_dir: Path) -> Step:
    """Show the certificate to the broker: it must let this device in, and give back what it says to itself."""
    address = urlsplit(told.broker)
    if address.scheme not in PORTS or not address.hostname:
        return Step("broker", f"{told.broker[:80]} is no broker", "bad-broker-url",
                    "the operator corrects serve --device-broker; then enrol again")  # fmt: skip
    folder = state_dir / IDENTITY
    options = mqtt.Options(
        host=address.hostname, port=address.port or PORTS[address.scheme], client_id=told.device,
        tls=address.scheme == "mqtts", ca_file=folder / CA, cert_file=folder / CERTIFICATE, key_file=folder / KEY,
        # As sync connects, and nothing is acknowledged: what waits for the device goes on waiting.
        clean_start=False, session_expiry_s=SESSION_EXPIRY_S, manual_ack=True,
        subscriptions=((topics.topic(told.device, ECHO), 0),),
    )  # fmt: skip
    session = mqtt.Session(options, random.Random())  # noqa: S311 - spreads retries
    session.start()
    try:
        return _ask(session, told)
    finally:
        session.stop()


def _ask(session: mqtt.Session, told: enrolment.Identity) -> Step:
    topic, word = topics.topic(told.device, ECHO), secrets.token_hex(8).encode()
    until_s = time.monotonic() + BROKER_S
    failed = mqtt.Down("broker-timeout", f"{told.broker} does not answer", "check cable, firewall and address")
    tries = 0
    while (left_s := until_s - time.monotonic()) > 0 and tries < TRIES:
        event = session.next_event(left_s)
        if isinstance(event, mqtt.Up):
            _say(session, topic, word)
        elif isinstance(event, mqtt.Acknowledged) and event.failed:
            return Step("broker", f"{told.broker} lets {told.device} in, but not speak: {event.text}", "broker-acl",
                        "the operator corrects the broker's access list: fleet broker-config")  # fmt: skip
        elif isinstance(event, mqtt.Message) and event.payload == word:
            return Step("broker", f"{told.broker} lets {told.device} in, and what it says comes back")
        elif isinstance(event, mqtt.Down):
            failed, tries = event, tries + 1
    return Step("broker", failed.text, failed.code, failed.hint)


def _say(session: mqtt.Session, topic: str, word: bytes) -> None:
    try:
        session.publish(topic, word, qos=1, expiry_s=10)
    except WireError:
        return  # it went down again; the next event says so


Proof = Callable[[enrolment.Identity, Path], Step]
PROOFS: tuple[Proof, ...] = (broker, api)
