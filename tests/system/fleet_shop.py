"""A cloud with TLS as `serve` runs it, beside a mosquitto with TLS, and devices that enrol there."""

import io
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import requests

from agent import identity
from agent.cli import main as agent_main
from cloud.broker import CLOUD, Broker
from cloud.cli import main as cloud_main
from cloud.fleet import Authority
from cloud.fleet.broker_config import tls_of
from wire import mqtt, topics

HOST = "127.0.0.1"
PATIENCE_S = 20.0


def _run(main: Callable[[list[str]], int], words: list[str]) -> tuple[int, dict[str, Any]]:
    """Run a command in this process; gives its exit code and the JSON that it prints."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(io.StringIO()):
        exit_code = main(words)
    return exit_code, json.loads(said.getvalue())


class Cloud:
    """Broker and `serve`, both with TLS, on one database."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.data = folder / "cloud"
        self.dsn = dsn
        self.authority = Authority(self.data / "fleet")
        self.broker = Broker(folder / "broker", tls=tls_of(self.authority, [HOST], (), datetime.now(UTC)))
        self.broker.start()
        command = [
            sys.executable, "-m", "cloud.cli", "serve", "--port", "0", "--dsn", dsn, "--data", str(self.data), "--json",
            "--broker", f"mqtt://{CLOUD}@{HOST}:{self.broker.cloud_port}",
            "--password-file", str(self.broker.password_file(CLOUD)),
            "--device-port", "0", "--device-listen", HOST, "--device-host", HOST,
            "--device-broker", f"mqtts://{HOST}:{self.broker.port}", "--broker-folder", str(folder / "broker"),
        ]  # fmt: skip
        with (folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, (folder / "serve.log").read_text()
        self.url = str(json.loads(said)["device_url"])
        self.pages = str(json.loads(said)["url"])

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0
        self.broker.stop()

    def fleet(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run `shelfwire-cloud fleet ...`; gives what it says as JSON."""
        arguments = ["fleet", *words, "--dsn", self.dsn, "--data", str(self.data), "--json"]
        exit_code, said = _run(cloud_main, arguments)
        assert exit_code == code, said
        return said

    def code(self, device: str, *words: str) -> str:
        return str(self.fleet("device", "add", device, "--store", "store-12", *words)["code"])


class Device:
    """A device's state folder and its configuration, which says little: the rest comes with the enrolment."""

    def __init__(self, folder: Path, cloud: Cloud, more: str = "") -> None:
        self.cloud = cloud
        self.state = folder / "state"
        self.config = folder / "shelfwire.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f'[device]\nstate_dir = "{self.state}"\nruntime_dir = "{folder / "run"}"\n{more}', encoding="utf-8"
        )

    @property
    def files(self) -> Path:
        return self.state / "identity"

    def enroll(self, code: str, *words: str, url: str = "") -> tuple[int, dict[str, Any]]:
        """Run `shelfwire-agent enroll`; gives its exit code and what it says as JSON."""
        arguments = ["enroll", url or self.cloud.url, "--code", code, "--no-restart", "--json", *words]
        return _run(agent_main, [*arguments, "--config", str(self.config)])

    def session(self, client_id: str | None = None, *hear: str, port: int = 0) -> mqtt.Session:
        """Connect to the broker, or another one at `port`, with this device's certificate."""
        own = identity.read(self.state)
        assert own is not None
        options = mqtt.Options(
            host=HOST, port=port or self.cloud.broker.port, client_id=client_id or own.device, tls=True,
            ca_file=self.files / "ca.crt", cert_file=self.files / "device.crt", key_file=self.files / "device.key",
            subscriptions=tuple((topic, 1) for topic in hear),
        )  # fmt: skip
        return started(options)

    def api(self, method: str, path: str, **more: Any) -> requests.Response:
        """Ask the API with this device's certificate."""
        cert = (str(self.files / "device.crt"), str(self.files / "device.key"))
        return requests.request(
            method, self.cloud.url + path, cert=cert, verify=str(self.files / "ca.crt"), timeout=PATIENCE_S, **more
        )


def enrolled(folder: Path, cloud: Cloud, name: str, more: str = "") -> Device:
    """Make a device that is enrolled."""
    device = Device(folder / name, cloud, more)
    exit_code, said = device.enroll(cloud.code(name))
    assert exit_code == 0, said
    return device


def with_certificate(device: Device, life: timedelta, now: datetime | None = None) -> Device:
    """Replace a device's certificate by one of the same authority, and known to it, with another life."""
    key = (device.files / "device.key").read_bytes()
    own = identity.read(device.state)
    assert own is not None
    csr = identity.make_request(key).csr
    issued = device.cloud.authority.device(csr, own.device, now or datetime.now(UTC), life)
    with psycopg.connect(device.cloud.dsn) as connection:
        connection.execute(
            "INSERT INTO fleet_certificate (serial, device, code, key_sha256, pem, not_before, not_after) "
            "SELECT %s, device, code, key_sha256, %s, %s, %s FROM fleet_certificate WHERE serial = %s",
            (issued.serial, issued.pem, issued.not_before, issued.not_after, own.serial),
        )
    (device.files / "device.crt").write_text(issued.pem)
    return device


def started(options: mqtt.Options) -> mqtt.Session:
    """Begin to connect."""
    session = mqtt.Session(options, random.Random(3))
    session.start()
    return session


def next_of(session: mqtt.Session, kind: type[Any], timeout_s: float = PATIENCE_S) -> Any:
    """Wait for the next event of a kind."""
    until_s = time.monotonic() + timeout_s
    while (left_s := until_s - time.monotonic()) > 0:
        event = session.next_event(left_s)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} within {timeout_s} s")


@contextmanager
def connected(make: Callable[[], mqtt.Session]) -> Iterator[mqtt.Session]:
    """Open a session that the broker lets in, and close it."""
    session = make()
    try:
        next_of(session, mqtt.Up)
        yield session
    finally:
        session.stop()


def refusal(session: mqtt.Session) -> mqtt.Down:
    """Wait for the reason why a session is not let in."""
    try:
        down = next_of(session, mqtt.Down)
        assert isinstance(down, mqtt.Down)
        return down
    finally:
        session.stop()


def puback(session: mqtt.Session, topic: str, payload: bytes = b"x") -> mqtt.Acknowledged:
    """Publish, and give the broker's answer."""
    session.publish(topic, payload)
    acknowledged = next_of(session, mqtt.Acknowledged)
    assert isinstance(acknowledged, mqtt.Acknowledged)
    return acknowledged


def own_topic(device: str, rest: str = topics.STATUS) -> str:
    return topics.topic(device, rest)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777
