"""One MQTT 5 connection, kept up: paho behind the rules that keep it from losing, doubling or hanging.

Both sides use it: the device's uplink and the cloud's ingest. Callbacks run on paho's thread and only put events into a
queue, because an exception in a callback ends that thread while `is_connected()` stays true. The owner reads the
events from its own thread with `next_event`, and publishes from that thread only.
"""

import contextlib
import functools
import logging
import queue
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from wire import tls
from wire.errors import WireError

log = logging.getLogger(__name__)

IN_FLIGHT = 20
"""Publications on the way at once. More makes paho slower: it searches them all at every acknowledgement."""

CONNECT_TIMEOUT_S = 5.0
BACKOFF_BASE_S = 0.5
BACKOFF_CEILING_S = 60.0


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us when we vanish."""

    topic: str
    payload: bytes
    delay_s: int
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How to reach and talk to the broker."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 30
    clean_start: bool = True
    session_expiry_s: int = 0
    manual_ack: bool = False
    receive_maximum: int = IN_FLIGHT
    subscriptions: tuple[tuple[str, int], ...] = ()
    will: Callable[[], Will] | None = None
    """Made anew for every connection: a will speaks for one connection only."""

    def __repr__(self) -> str:
        """Leave the password out."""
        return f"Options({self.client_id} at {self.host}:{self.port})"


@dataclass(frozen=True, slots=True)
class Up:
    """Connected and subscribed. `packet_bytes` is the broker's largest packet, None when it names none."""

    packet_bytes: int | None


@dataclass(frozen=True, slots=True)
class Down:
    """Not connected (any longer), why, and the cure. Everything in flight was let go: send it again."""

    code: str
    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came. `token` acknowledges it when acks are manual."""

    topic: str
    payload: bytes
    retained: bool
    duplicate: bool
    correlation: bytes | None
    token: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker's answer to a publication: that it has the message, not that anybody stored it."""

    mid: int
    reason: int
    text: str

    @property
    def failed(self) -> bool:
        """Whether the broker refused the message."""
        return self.reason >= 0x80


@dataclass(frozen=True, slots=True)
class Nudge:
    """Somebody in this process has something for the owner; see `Session.nudge`."""

    what: str


Event = Up | Down | Message | Acknowledged | Nudge

_REFUSALS = {
    "Not authorized": ("broker-auth", "check username, password or certificate, and the broker's access list"),
    "Bad user name or password": ("broker-auth", "check username and password_file"),
    "Banned": ("broker-auth", "the broker has banned this client; ask its operator"),
    "Client identifier not valid": ("broker-client-id", "the device id does not suit the broker"),
    "Server unavailable": ("broker-busy", "the broker is overloaded; it will be tried again"),
    "Quota exceeded": ("broker-quota", "the broker's limit is reached; ask its operator"),
    "Session taken over": ("broker-twin", "another client uses the same id: two devices with one id, or a copied card"),
}


P = ParamSpec("P")


def _guarded(callback: Callable[Concatenate["Session", P], None]) -> Callable[Concatenate["Session", P], None]:
    """Keep an exception from ending paho's thread in silence: it ends the connection instead, and is logged."""

    @functools.wraps(callback)
    def guarded(session: "Session", /, *arguments: P.args, **named: P.kwargs) -> None:
        try:
            callback(session, *arguments, **named)
        except Exception:
            log.exception("a callback of the connection failed; connecting anew")
            session.drop()

    return guarded


class Session:
    """Keeps one connection to the broker; see the module's text for who may call what."""

    def __init__(self, options: Options, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._up = threading.Event()
        self._refused: tuple[str, str, str] | None = None
        self._greeted = False  # whether this connection's login was answered
        self._tls_said = ""
        self._packet_bytes: int | None = None
        self._connection = 0
        self._window = IN_FLIGHT
        self._published = 0  # written by the owner's thread only
        self._answered = 0  # written by paho's thread only
        self._tls = _make_tls(options) if options.tls else None
        self._client = self._make_client()
        self._keeper = threading.Thread(target=self._keep_up, name=f"mqtt-{options.client_id}", daemon=True)

    # -- for the owner ---------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a publication can be tried now."""
        return self._up.is_set()

    def start(self) -> None:
        """Begin connecting, in the background, for as long as it takes."""
        self._keeper.start()

    def next_event(self, timeout_s: float) -> Event | None:
        """Wait for the next event, at most `timeout_s`; None when there was none."""
        try:
            return self._events.get(timeout=timeout_s) if timeout_s > 0 else self._events.get_nowait()
        except queue.Empty:
            return None

    def nudge(self, what: str) -> None:
        """Put a `Nudge` among the events, from any thread."""
        self._events.put(Nudge(what))

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        correlation: bytes | None = None,
        content_type: str = "",
    ) -> int:
        """Hand a message to the connection; gives the id that its `Acknowledged` will name.

        Raises `WireError`: ``not-connected``, ``too-large`` for this broker, ``window-full``.
        """
        if not self._up.is_set():
            raise WireError("not-connected", "the broker is away")
        if self._published - self._answered >= self._window:
            raise WireError("window-full", "as many messages are on the way as the broker takes at once")
        # Topic, properties and headers come on top of the payload.
        if self._packet_bytes is not None and len(payload) + len(topic) + 256 > self._packet_bytes:
            raise WireError("too-large", f"{len(payload)} bytes; this broker takes packets of {self._packet_bytes}",
                            "raise max_packet_size at the broker")  # fmt: skip
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        if correlation is not None:
            properties.CorrelationData = correlation
        if content_type:
            properties.ContentType = content_type
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc == paho.MQTT_ERR_QUEUE_SIZE:
            raise WireError("window-full", "too many messages are on the way")
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise WireError("not-connected", paho.error_string(info.rc))
        self._published += 1
        return info.mid

    def ack(self, message: Message) -> None:
        """Acknowledge a message (manual acks). Nothing happens when its connection is gone: it will come again."""
        connection, mid, qos = message.token
        if connection == self._connection and self._up.is_set():
            self._client.ack(mid, qos)

    def drop(self) -> None:
        """End the present connection; the next one is made as after any other end."""
        self._ended.set()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Disconnect in good order, so that no will is sent, and end the threads."""
        self._stopping.set()
        self._ended.set()
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        if self._keeper.is_alive():
            self._keeper.join(timeout_s)

    # -- the keeper's thread ---------------------------------------------------------------------------------

    def _make_client(self) -> paho.Client:
        o = self._options
        client = paho.Client(
            CallbackAPIVersion.VERSION2, o.client_id, protocol=paho.MQTTv5, manual_ack=o.manual_ack,
            reconnect_on_failure=False,
        )  # fmt: skip
        client.connect_timeout = CONNECT_TIMEOUT_S
        if o.username is not None:
            client.username_pw_set(o.username, o.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
            client.on_log = self._on_log
        client.max_inflight_messages_set(IN_FLIGHT)
        client.max_queued_messages_set(4 * IN_FLIGHT)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _keep_up(self) -> None:
        pause_s = BACKOFF_BASE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            down = self._one_connection()
            if self._stopping.is_set():
                break
            self._events.put(down)
            # A connection that lasted shows that the broker is fine: start over with short pauses.
            pause_s = BACKOFF_BASE_S if time.monotonic() - began > 10 else min(2 * pause_s, BACKOFF_CEILING_S)
            self._stopping.wait(self._rng.uniform(0.1, pause_s))
        self._client.loop_stop()

    def _one_connection(self) -> Down:
        """Connect, stay until the connection ends, and say why it ended."""
        o = self._options
        self._ended.clear()
        self._refused = None
        self._greeted = False
        self._tls_said = ""
        self._connection += 1
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = o.receive_maximum
        properties.SessionExpiryInterval = o.session_expiry_s
        if o.will is not None:
            self._set_will(o.will())
        try:
            if self._tls is not None:
                _load_files(self._tls, o)  # they may have been renewed
            self._client.connect(o.host, o.port, o.keepalive_s, clean_start=o.clean_start, properties=properties)
        except (OSError, ValueError) as error:
            return _why(error, o)
        self._client.loop_start()
        # paho's thread may die without a word, so its life is watched beside its own report.
        while not self._ended.wait(1.0):
            thread = self._client._thread  # noqa: SLF001 - paho has no public way to ask
            if thread is None or not thread.is_alive():
                break
        self._up.clear()
        self._client.loop_stop()
        self._client.drop_out_messages()
        code, text, hint = self._refused or ("broker-lost", "the connection ended", "it will be tried again")
        if code == "broker-lost" and self._tls is not None and not self._greeted:
            return _why_no_greeting(self._tls_said, o)
        return Down(code, text, hint)

    def _set_will(self, will: Will) -> None:
        properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
        properties.WillDelayInterval = will.delay_s
        if will.content_type:
            properties.ContentType = will.content_type
        self._client.will_set(will.topic, will.payload, 1, retain=True, properties=properties)

    # -- paho's thread: nothing here may raise ---------------------------------------------------------------

    @_guarded
    def _on_log(self, _c: paho.Client, _u: Any, _level: int, said: str) -> None:
        """Keep what TLS said last: with TLS 1.3 the broker's refusal comes after the handshake, and only here."""
        if "SSL" in said or "EOF" in said:
            self._tls_said = said

    @_guarded
    def _on_connect(self, client: paho.Client, _u: Any, _f: Any, reason: ReasonCode, properties: Any) -> None:
        self._greeted = True
        if reason.is_failure:
            name = str(reason)
            code, hint = _REFUSALS.get(name, ("broker-refused", "the broker's log says more"))
            self._refused = (code, f"the broker refused the login: {name}", hint)
            return
        self._packet_bytes = getattr(properties, "MaximumPacketSize", None)
        # paho takes no new window on an open connection, so a smaller one is kept by `publish`.
        self._window = min(getattr(properties, "ReceiveMaximum", IN_FLIGHT), IN_FLIGHT)
        self._published = self._answered = 0
        if self._options.subscriptions:
            client.subscribe([(name, SubscribeOptions(qos=qos)) for name, qos in self._options.subscriptions])
        else:
            self._say_up()

    def _say_up(self) -> None:
        self._up.set()
        self._events.put(Up(self._packet_bytes))

    @_guarded
    def _on_subscribe(self, _c: paho.Client, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            text = f"the broker refused a subscription: {refused[0]}"
            self._refused = (
                "broker-subscribe",
                text,
                "check the broker's access list; it must allow shared subscriptions",
            )
            self.drop()
            return
        self._say_up()

    @_guarded
    def _on_disconnect(self, _c: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self._up.clear()
        if self._refused is None and reason.is_failure:
            name = str(reason)
            code, hint = _REFUSALS.get(name, ("broker-lost", "it will be tried again"))
            self._refused = (code, f"the connection ended: {name}", hint)
        self._ended.set()

    @_guarded
    def _on_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("dropped a message whose topic is not UTF-8")
            return
        properties = message.properties
        correlation = getattr(properties, "CorrelationData", None) if properties is not None else None
        token = (self._connection, message.mid, message.qos)
        self._events.put(Message(topic, bytes(message.payload), message.retain, message.dup, correlation, token))

    @_guarded
    def _on_publish(self, _c: paho.Client, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        self._answered += 1
        self._events.put(Acknowledged(mid, reason.value, str(reason)))


def _make_tls(options: Options) -> ssl.SSLContext:
    """Make what verifies the broker, and shows a certificate of one's own. Raises OSError and `ssl.SSLError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.ca_file is None:
        context.load_default_certs()
    _load_files(context, options)
    return context


def _load_files(context: ssl.SSLContext, options: Options) -> None:
    if options.ca_file is not None:
        context.load_verify_locations(options.ca_file)
    if options.cert_file is not None:
        context.load_cert_chain(options.cert_file, options.key_file)


def _why_no_greeting(said: str, options: Options) -> Down:
    """Say why the broker hung up after TLS and before its greeting: mostly because of the certificate."""
    where = f"{options.host}:{options.port}"
    reason = tls.explain(said, options.cert_file)
    if reason is not None:
        return Down(reason.code or "broker-tls", f"{where}: {reason.text}", reason.hint)
    if options.cert_file is None:
        return Down(
            "certificate-missing", f"{where} hung up after TLS: it lets nobody in without a certificate", tls.ENROL
        )
    return Down(
        "certificate-refused", f"{where} hung up when it saw this device's certificate: was it revoked?",
        "see shelfwire-cloud fleet device show NAME; if it is revoked, enrol the device with a new code",
    )  # fmt: skip


def _why(error: Exception, options: Options) -> Down:
    """Name the reason why no connection came about, and its cure."""
    where = f"{options.host}:{options.port}"
    if isinstance(error, socket.gaierror):
        return Down("broker-dns", f"the name {options.host} is not known", "check the name and this network's DNS")
    if isinstance(error, ssl.SSLError):
        reason = tls.explain(str(error), options.cert_file)
        if reason is not None:
            return Down(reason.code or "broker-tls", f"TLS with {where} failed: {reason.text}", reason.hint)
        text = getattr(error, "reason", None) or str(error)
        return Down("broker-tls", f"TLS with {where} failed: {text}", "check ca_file, the certificates and the clock")
    if options.tls and isinstance(error, ConnectionResetError):
        return Down("broker-tls", f"{where} hung up on TLS", "is this the port for TLS (usually 8883)?")
    if isinstance(error, ConnectionRefusedError):
        return Down("broker-refused", f"nothing listens at {where}", "start the broker, or correct host and port")
    if isinstance(error, TimeoutError):
        return Down("broker-timeout", f"{where} does not answer", "check cable, firewall and address")
    return Down("broker-unreachable", f"{where} cannot be reached: {error}", "check the network")
