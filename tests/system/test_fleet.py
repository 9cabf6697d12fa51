"""What a certificate lets a device do, at the broker and at the API, and what it does not; revocation and renewal."""

import itertools
import random
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import requests
from conftest import Postgres
from fleet_shop import (
    HOST,
    Cloud,
    Device,
    connected,
    enrolled,
    next_of,
    own_topic,
    puback,
    refusal,
    started,
    with_certificate,
)
from test_device import Box, stop
from waiting import wait_for

from agent import config, identity
from agent.app.renewal import Renewal
from agent.errors import Retryable
from agent.host.clock import SystemClock
from agent.link import enrolment as calls
from agent.link.https import Https
from cloud.broker import Broker
from cloud.fleet import Authority
from cloud.fleet.broker_config import tls_of
from wire import mqtt

SOON_S = 10.0
"""Within seconds, on a busy machine."""


@pytest.fixture(scope="module")
def cloud(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    dsn = postgres.create()
    started = Cloud(tmp_path_factory.mktemp("cloud"), dsn)
    yield started
    started.close()
    postgres.drop(dsn)


@pytest.fixture(scope="module")
def two(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> tuple[Device, Device]:
    """A victim and a thief, for tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("two")
    return enrolled(folder, cloud, "victim"), enrolled(folder, cloud, "thief")


NUMBERS = itertools.count(1)


@pytest.fixture
def fresh(cloud: Cloud, tmp_path: Path) -> Device:
    """A device that a test may ruin."""
    return enrolled(tmp_path, cloud, f"fresh-{next(NUMBERS)}")


def name_of(device: Device) -> str:
    own = identity.read(device.state)
    assert own is not None
    return own.device


# -- the broker ----------------------------------------------------------------------------------------------------


def test_a_stolen_certificate_speaks_for_its_own_device_alone(cloud: Cloud, two: tuple[Device, Device]) -> None:
    victim, thief = name_of(two[0]), name_of(two[1])
    with connected(two[1].session) as stolen:
        assert not puback(stolen, own_topic(thief)).failed
        for rest in ("status", "results", "alerts", "pictures", "reported", "receipts/up", "echo"):
            assert puback(stolen, own_topic(victim, rest)).reason == 0x87, rest
        for rest in ("receipts/down", "verdicts", "desired"):
            assert puback(stolen, own_topic(thief, rest)).reason == 0x87, "that is for the cloud to say"


def test_a_stolen_certificate_hears_nothing_of_others(cloud: Cloud, two: tuple[Device, Device]) -> None:
    victim, thief = name_of(two[0]), name_of(two[1])
    listening = (own_topic(victim, "verdicts"), "shelfwire/v1/#", own_topic(thief, "verdicts"))
    with connected(lambda: two[1].session(None, *listening)) as stolen:
        sender = started(cloud.broker.options("cloud", "teller"))
        next_of(sender, mqtt.Up)
        puback(sender, own_topic(victim, "verdicts"), b"for the victim")
        puback(sender, own_topic(thief, "verdicts"), b"for the thief")
        assert next_of(stolen, mqtt.Message).payload == b"for the thief"
        sender.stop()


def test_the_broker_lets_nobody_in_without_a_certificate(cloud: Cloud, two: tuple[Device, Device]) -> None:
    options = mqtt.Options(
        host=HOST, port=cloud.broker.port, client_id="nobody", tls=True, ca_file=two[0].files / "ca.crt"
    )
    session = started(options)
    assert refusal(session).code == "certificate-missing"


def test_the_broker_lets_nobody_in_by_another_authority(cloud: Cloud, fresh: Device, tmp_path: Path) -> None:
    own = fresh
    request = identity.make_request()
    forged = Authority(tmp_path / "forger").device(request.csr, name_of(own), datetime.now(UTC))
    (own.files / "device.key").write_bytes(request.key)
    (own.files / "device.crt").write_text(forged.pem)
    assert refusal(own.session()).code == "certificate-refused"
    with pytest.raises(requests.exceptions.RequestException):
        own.api("GET", "/v1/device")


def test_only_new_tls(cloud: Cloud) -> None:
    for port in (cloud.broker.port, int(cloud.url.rsplit(":", 1)[1])):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cloud.authority.root_file)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(socket.create_connection((HOST, port)), server_hostname=HOST)


# -- the API -------------------------------------------------------------------------------------------------------


def test_the_api_lets_no_device_speak_for_another(cloud: Cloud, two: tuple[Device, Device]) -> None:
    victim, own = name_of(two[0]), name_of(two[1])
    run, jpeg = "00000000000000aa", {"Content-Type": "image/jpeg"}
    about = {
        "X-Shelfwire-Camera": "cam", "X-Shelfwire-Number": "1", "X-Shelfwire-Clock": "synced",
        "X-Shelfwire-Captured-At": "2026-03-01T09:00:00Z", **jpeg,
    }  # fmt: skip
    shard = {
        "device": victim, "store": "s", "day": "2026-03-01", "part": 1, "rows": 1, "bytes": 10, "sha256": "ab" * 32
    }  # fmt: skip
    thief = two[1]
    answers = [
        thief.api("PUT", f"/v1/frames/{victim}/{run}/1", headers=about, data=b"x"),
        thief.api("POST", "/v1/jobs", headers={**about, "X-Shelfwire-Frame": f"{victim}/{run}/1"}, data=b"x"),
        thief.api("POST", "/v1/jobs", headers=about, data=b"x"),
        thief.api("POST", "/v1/shards", json=shard),
        thief.api("POST", f"/v1/shards/{'ab' * 32}/done", json={"device": victim}),
    ]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(403, "foreign-device")] * 5
    assert thief.api("POST", "/v1/shards", json={**shard, "device": own}).json()["state"] == "expected"
    asked = thief.api("PUT", f"/v1/frames/{own}/{run}/1", headers=about, data=b"x")
    assert asked.json()["code"] != "foreign-device"


@pytest.mark.parametrize("path", ["/v1/device", "/v1/shards", "/v1/jobs", "/v1/frames/x/00000000000000aa/1"])
def test_the_api_answers_nothing_without_a_certificate(cloud: Cloud, path: str) -> None:
    answer = requests.get(cloud.url + path, verify=str(cloud.authority.root_file), timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (401, "certificate-missing")


@pytest.mark.parametrize("path", ["/", "/api/v1/cameras", "/metrics", "/api/v1/openapi.json", "/v1/jobs"])
def test_the_pages_are_not_on_the_port_for_devices(cloud: Cloud, two: tuple[Device, Device], path: str) -> None:
    assert two[0].api("GET", path).status_code in (404, 405)


# -- revocation ----------------------------------------------------------------------------------------------------


def test_a_revoked_device_is_cut_off_and_the_others_stay(
    cloud: Cloud, two: tuple[Device, Device], fresh: Device
) -> None:
    lost, other = fresh, two[1]
    with connected(lost.session) as cut, connected(other.session) as stays:
        said = cloud.fleet("device", "revoke", name_of(lost))
        assert (said["state"], said["certificates_ended"]) == ("revoked", 1)
        answer = lost.api("GET", "/v1/device")
        assert (answer.status_code, answer.json()["code"]) == (403, "certificate-revoked")
        next_of(cut, mqtt.Down, SOON_S)
        down = next_of(cut, mqtt.Down, SOON_S)
        assert down.code in ("certificate-revoked", "certificate-refused")
        assert down.hint
        assert not puback(stays, own_topic(name_of(other))).failed
        assert other.api("GET", "/v1/device").status_code == 200
    assert cloud.fleet("device", "show", name_of(lost))["state"] == "revoked"


def test_a_revocation_outlives_the_broker_and_ends_with_a_new_code(cloud: Cloud, fresh: Device) -> None:
    lost, name = fresh, name_of(fresh)
    cloud.fleet("device", "revoke", name)
    listed = cloud.folder / "broker" / "revoked.pem"
    before = identity.read(lost.state)
    assert before is not None
    wait_for("the list of the broker to name it", lambda: _names(listed, before.serial))
    cloud.broker.restart()
    assert refusal(lost.session()).code in ("certificate-revoked", "certificate-refused")
    assert cloud.fleet("device", "add", name, "--store", "s", code=2)["error"]["code"] == "device-exists"
    code = cloud.code(name, "--replace")
    exit_code, said = lost.enroll(code, "--force")
    assert exit_code == 0, said


def _names(listed: Path, serial: str) -> bool:
    from cryptography import x509

    crl = x509.load_pem_x509_crl(listed.read_bytes())
    return crl.get_revoked_certificate_by_serial_number(int(serial, 16)) is not None


# -- clocks and ends -----------------------------------------------------------------------------------------------


def test_a_certificate_that_has_ended_says_so_and_names_the_cure(cloud: Cloud, fresh: Device) -> None:
    device = with_certificate(fresh, timedelta(hours=-1))
    down = refusal(device.session())
    assert (down.code, "shelfwire-agent enroll" in down.hint) == ("certificate-expired", True)
    with pytest.raises(Retryable) as refused:
        _https(cloud, device).send("GET", "/v1/device", {}, b"", 10)
    assert (refused.value.code, "shelfwire-agent enroll" in refused.value.hint) == ("certificate-expired", True)


def test_a_clock_that_is_behind_says_so(tmp_path: Path) -> None:
    """The same as a server from the future: nothing of it is valid yet."""
    later = datetime.now(UTC) + timedelta(days=400)
    authority = Authority(tmp_path / "ca", now=later)
    broker = Broker(tmp_path / "broker", tls=tls_of(authority, [HOST], (), later))
    broker.start()
    try:
        options = mqtt.Options(host=HOST, port=broker.port, client_id="x", tls=True, ca_file=authority.root_file)
        session = started(options)
        down = refusal(session)
    finally:
        broker.stop()
    assert (down.code, "timedatectl" in down.hint) == ("clock-wrong", True)


# -- renewal -------------------------------------------------------------------------------------------------------


def test_sync_renews_while_it_delivers(cloud: Cloud, fresh: Device, tmp_path: Path) -> None:
    """The certificate is changed under a sync that sends, and nothing is lost or counted twice."""
    device = with_certificate(fresh, timedelta(days=1))
    before = identity.read(device.state)
    assert before is not None
    box = _AsBox(device, tmp_path)
    with box.running("run", "--drain", "30") as process:
        wait_for("a new certificate", lambda: _serial(device) not in ("", before.serial))
        produced = box.produced()
        wait_for("more answers", lambda: box.produced() > produced + 20)
        wait_for("sync to connect anew", lambda: box.log().count("connected to the broker") >= 2)
        assert stop(process) == 0
    assert box.all_in_cloud()
    renewed = identity.read(device.state)
    assert renewed is not None
    assert renewed.left(datetime.now(UTC)) > timedelta(days=80)
    assert (device.files / "device.key").stat().st_mode & 0o777 == 0o600


def test_what_a_revoked_device_keeps_is_delivered_once_it_is_let_in_again(
    cloud: Cloud, fresh: Device, tmp_path: Path
) -> None:
    box = _AsBox(fresh, tmp_path)
    with box.running("run") as process:
        wait_for("answers in the cloud", lambda: box.in_cloud() > 5)
        cloud.fleet("device", "revoke", name_of(fresh))
        wait_for("sync to say why", lambda: box.status().get("sync", {}).get("code", "").startswith("certificate-"))
        before = box.in_cloud()
        wait_for("answers that wait", lambda: box.status().get("outbox", {}).get("waiting", 0) > 20)
        assert stop(process) == 0
    assert box.in_cloud() == before, "nothing came in after that"
    assert fresh.enroll(cloud.code(name_of(fresh), "--replace"), "--force")[0] == 0
    with box.running("sync") as process:
        wait_for("all of it to be delivered", box.all_in_cloud)
        assert stop(process) == 0


def _serial(device: Device) -> str:
    own = identity.read(device.state)
    return own.serial if own is not None else ""


class _AsBox(Box):
    """An enrolled device with a camera, where the tests of devices expect one."""

    def __init__(self, device: Device, folder: Path) -> None:
        self.folder = folder
        self.config = device.config
        self.state = device.state
        self.device = device
        self.config.write_text(
            device.config.read_text()
            + '[decide]\nconfirm_frames = 1\n[cloud]\nreceipt_timeout = "5 s"\n'
            + '[[camera]]\nname = "cam-0"\nurl = "synthetic:1?width=160&height=90&loop=8"\nrate_fps = 20\n'
        )

    def in_cloud(self) -> int:
        """Results of this device in the cloud."""
        with psycopg.connect(self.device.cloud.dsn) as connection:
            name = name_of(self.device)
            row = connection.execute("SELECT count(*) FROM result WHERE device = %s", (name,)).fetchone()
        return int(row[0]) if row else 0

    def all_in_cloud(self) -> bool:
        """Whether the device's books say that all was delivered, and the cloud has as many."""
        status = self.status()
        if not status or status["outbox"]["waiting"]:
            return False
        produced, delivered = status["results"]["produced"], status["results"]["delivered"]
        return bool(produced == delivered == self.in_cloud())


def test_a_renewal_that_fails_leaves_everything_and_says_why(cloud: Cloud, fresh: Device) -> None:
    device = with_certificate(fresh, timedelta(days=1))
    before = {path.name: path.read_bytes() for path in device.files.iterdir()}
    device.config.write_text(device.config.read_text() + '[cloud]\napi = "https://127.0.0.1:9"\n')
    renewed: list[str] = []
    renewal = Renewal(
        config.load(device.config), SystemClock(), random.Random(1),
        on_renewed=lambda: renewed.append("yes"), on_crash=lambda: renewed.append("crash"),
    )  # fmt: skip
    assert 0 <= renewal.turn() <= 30
    assert "[api-refused]" in renewal.trouble
    left_s = renewal.left_s()
    assert left_s is not None
    assert 0 < left_s <= 86_400
    assert ({path.name: path.read_bytes() for path in device.files.iterdir()}, renewed) == (before, [])


def test_a_renewal_does_not_undo_an_enrolment(cloud: Cloud, fresh: Device) -> None:
    """Whoever enrols the device anew while a renewal is under way has the last word."""
    former = identity.read(fresh.state)
    request = identity.make_request()
    told = calls.renew(_https(cloud, fresh), request.csr)
    with_certificate(fresh, timedelta(days=50))  # as an enrolment would
    renewal = Renewal(
        config.load(fresh.config), SystemClock(), random.Random(1), on_renewed=lambda: None, on_crash=lambda: None
    )
    assert former is not None
    with pytest.raises(Retryable) as refused:
        identity.install(fresh.state, told, request.key, lambda folder: renewal._prove(folder, former))
    assert refused.value.code == "identity-changed"
    assert _serial(fresh) not in ("", former.serial)
    assert (fresh.files / "device.crt").read_text() != told.certificate
    assert len(list((fresh.state / "identity.d").iterdir())) == 1


def _https(cloud: Cloud, device: Device) -> Https:
    own = (device.files / "device.crt", device.files / "device.key")
    return Https(cloud.url, device.files / "ca.crt", own=own)


def test_nobody_takes_the_place_of_another_by_its_client_id(cloud: Cloud, two: tuple[Device, Device]) -> None:
    victim = name_of(two[0])
    with connected(two[0].session) as first, connected(lambda: two[1].session(victim)) as second:
        assert not puback(first, own_topic(victim)).failed
        assert puback(second, own_topic(victim)).reason == 0x87
        assert first.connected
