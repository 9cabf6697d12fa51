"""Devices are enrolled by a code, and what a wrong code, a wrong server or a broken disk does about it."""

import os
import pwd
import socket
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from conftest import Postgres
from fleet_shop import HOST, Cloud, Device, connected, enrolled, mode_of, next_of, own_topic, puback, started
from waiting import wait_for

from agent import identity
from agent.cli import main as agent_main
from agent.link.enrolment import FirstContact
from cloud.broker import find
from cloud.fleet import Authority
from wire import enrolment, mqtt


@pytest.fixture(scope="module")
def cloud(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    dsn = postgres.create()
    started = Cloud(tmp_path_factory.mktemp("cloud"), dsn)
    yield started
    started.close()
    postgres.drop(dsn)


def test_a_device_enrols_with_the_command_that_the_operator_was_told(
    cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = cloud.fleet("device", "add", "till-3", "--store", "store-12")
    assert added["command"] == f"sudo shelfwire-agent enroll {cloud.url} --code {added['code']}"
    device = Device(tmp_path, cloud)
    typed = added["code"].lower().replace("-", " ")
    exit_code, said = device.enroll(typed)
    assert (exit_code, said["heard"]) == (0, True), said
    assert {step["step"] for step in said["steps"]} >= {"cloud", "clock", "certificate", "broker", "api"}

    assert mode_of(device.files) == 0o750, "technicians of its group may look, but for the key"
    assert mode_of(device.files / "device.key") == 0o600
    assert mode_of(cloud.data / "fleet" / "ca.key") == 0o600
    shown = cloud.fleet("device", "show", "till-3")
    assert shown["state"] == "enrolled"
    assert shown["used_at"], "the API has seen its certificate"
    days = (datetime.fromisoformat(shown["not_after"]) - datetime.now(UTC)).days
    assert 88 <= days <= 90

    capsys.readouterr()
    assert agent_main(["config", "show", "--config", str(device.config)]) == 0
    config = tomllib.loads(capsys.readouterr().out)
    assert (config["device"]["id"], config["device"]["store"]) == ("till-3", "store-12")
    assert config["cloud"]["api"] == cloud.url


def test_it_ends_with_a_sentence_for_people(cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cloud.code("till-4")
    device = Device(tmp_path, cloud)
    words = ["enroll", cloud.url, "--code", code, "--no-restart", "--config", str(device.config)]
    assert agent_main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "till-4 is enrolled; the cloud has heard from it."
    assert agent_main(words) == 2
    assert "[already-enrolled]" in capsys.readouterr().err


def test_a_code_is_used_once(cloud: Cloud, tmp_path: Path) -> None:
    code = cloud.code("once")
    assert Device(tmp_path / "a", cloud).enroll(code)[0] == 0
    exit_code, said = Device(tmp_path / "b", cloud).enroll(code)
    assert (exit_code, said["error"]["code"]) == (2, "code-used")


def test_an_answer_that_was_lost_can_be_fetched_again(cloud: Cloud, tmp_path: Path) -> None:
    """The same key with the same code gives the same certificate: the network may fail at any moment."""
    code = enrolment.parse_code(cloud.code("lost"))
    contact = FirstContact(cloud.url)
    request = identity.pending_request(tmp_path / "state", code.id)
    first = contact.enrol(code, contact.hello(code), request.csr)
    device = Device(tmp_path, cloud)
    assert device.enroll(str(code))[0] == 0
    assert (device.files / "device.crt").read_text() == first.certificate


def test_an_enrolled_name_is_refused_unless_it_is_to_be_replaced(cloud: Cloud, tmp_path: Path) -> None:
    former = enrolled(tmp_path, cloud, "counter-1")
    said = cloud.fleet("device", "add", "counter-1", "--store", "store-12", code=2)
    assert said["error"]["code"] == "device-exists"
    code = cloud.code("counter-1", "--replace")
    assert former.api("GET", "/v1/device").status_code == 200, "until the new board is there"
    assert Device(tmp_path / "new", cloud).enroll(code)[0] == 0
    answer = former.api("GET", "/v1/device")
    assert (answer.status_code, answer.json()["code"]) == (403, "certificate-revoked")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda code: code[:-1] + ("7" if code[-1] != "7" else "8"), "code-mismatch"),
        (lambda code: "ZZZZ" + code[4:], "code-unknown"),
        (lambda code: code[:-1], "bad-code"),
    ],
)
def test_a_wrong_code(cloud: Cloud, tmp_path: Path, spoil: Callable[[str], str], expected: str) -> None:
    code = cloud.code(f"wrong-{expected}")
    device = Device(tmp_path, cloud)
    exit_code, said = device.enroll(spoil(code))
    assert (exit_code, said["error"]["code"]) == (2, expected)
    assert not device.files.exists()
    assert device.enroll(code)[0] == 0, "the right one still counts"


def test_a_code_that_is_too_old(cloud: Cloud, tmp_path: Path) -> None:
    code = cloud.code("late", "--valid", "30min")
    with psycopg.connect(cloud.dsn) as connection:
        connection.execute("UPDATE fleet_code SET expires_at = now() - interval '1 second' WHERE device = 'late'")
    exit_code, said = Device(tmp_path, cloud).enroll(code)
    assert (exit_code, said["error"]["code"]) == (2, "code-expired")


def test_a_code_for_another_device(cloud: Cloud, tmp_path: Path) -> None:
    code = cloud.code("till-7")
    device = Device(tmp_path, cloud, 'id = "till-8"\n')
    exit_code, said = device.enroll(code)
    assert (exit_code, said["error"]["code"]) == (2, "code-other-device")
    assert cloud.fleet("device", "show", "till-7")["state"] == "code given", "it was not used up"


def test_guessing_kills_the_code(cloud: Cloud, tmp_path: Path) -> None:
    code = enrolment.parse_code(cloud.code("guessed"))
    guess = enrolment.Enrol(v=1, code=code.id, key="ab" * 32, csr=identity.make_request().csr)
    trust = cloud.data / "fleet" / "ca.crt"
    said = [
        requests.post(cloud.url + enrolment.ENROL, json=guess.model_dump(), verify=str(trust), timeout=10).json()[
            "code"
        ]
        for _ in range(6)
    ]
    assert said == ["code-wrong"] * 5 + ["code-dead"]
    exit_code, answer = Device(tmp_path, cloud).enroll(str(code))
    assert (exit_code, answer["error"]["code"]) == (2, "code-dead")


class InBetween:
    """Somebody in between: takes TLS with a certificate of its own authority and passes everything on."""

    def __init__(self, folder: Path, to: str) -> None:
        certificate, key = Authority(folder).server([HOST], datetime.now(UTC))
        both = folder / "both.pem"
        both.write_bytes(certificate.encode() + key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(both)
        self._to = int(to.rsplit(":", 1)[1])
        self._listening = socket.create_server((HOST, 0))
        self.seen = b""
        self.url = f"https://{HOST}:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        anything = ssl._create_unverified_context()
        try:
            with (
                self._tls.wrap_socket(client, server_side=True) as left,
                anything.wrap_socket(socket.create_connection((HOST, self._to))) as right,
            ):
                while self._pass_a_part(left, right, asked=True) and self._pass_a_part(right, left, asked=False):
                    pass
        except OSError:
            return

    def _pass_a_part(self, source: ssl.SSLSocket, sink: ssl.SSLSocket, *, asked: bool) -> bool:
        """Pass on what has come; one thread does both ways, for TLS connections cannot be shared. False at the end."""
        source.settimeout(0.05)
        try:
            part = source.recv(65536)
        except TimeoutError:
            return True
        self.seen += part if asked else b""
        sink.settimeout(5)
        sink.sendall(part)
        return bool(part)

    def close(self) -> None:
        self._listening.close()


def test_somebody_in_between_gets_nowhere(cloud: Cloud, tmp_path: Path) -> None:
    """The first call passes through him unchanged, and by it the device knows whom to expect for the second."""
    code = cloud.code("watched")
    mitm = InBetween(tmp_path / "mitm", cloud.url)
    device = Device(tmp_path, cloud)
    try:
        exit_code, said = device.enroll(code, url=mitm.url)
    finally:
        mitm.close()
    assert exit_code == 3
    assert said["error"]["code"] == "api-tls"
    assert "nobody that this device trusts" in said["error"]["message"]
    assert b"/v1/enrolment/hello" in mitm.seen
    assert b"csr" not in mitm.seen, "neither request nor secret came by"
    assert not device.files.exists()
    assert device.enroll(code)[0] == 0


def test_another_cloud_does_not_know_the_code(cloud: Cloud, tmp_path: Path, postgres: Postgres) -> None:
    """A server that wants the device for itself would have to know the secret."""
    code = enrolment.parse_code(cloud.code("wanted"))
    hello = enrolment.Hello(v=1, code=code.id, nonce="00" * 32)
    said = enrolment.Welcome(
        v=1, device="wanted", store="s", salt="11" * 32, nonce="22" * 32, now=datetime.now(UTC),
        trust=Authority(tmp_path / "its").trust, proof="33" * 32,
    )  # fmt: skip
    guessed = enrolment.stretch(enrolment.Code(code.id, "00000000"), bytes.fromhex(said.salt))
    forged = said.model_copy(update={"proof": enrolment.proof(guessed, hello, said)})
    assert not enrolment.proves(enrolment.stretch(code, bytes.fromhex(said.salt)), hello, forged)


def test_what_is_not_right_on_the_way_names_who_must_act(cloud: Cloud, tmp_path: Path) -> None:
    """The device is enrolled, but the shop's firewall shuts the broker's port."""
    with psycopg.connect(cloud.dsn, autocommit=True) as connection:
        connection.execute("UPDATE fleet_address SET broker = 'mqtts://127.0.0.1:9'")
        try:
            exit_code, said = Device(tmp_path, cloud).enroll(cloud.code("shut"))
        finally:
            address = f"mqtts://{HOST}:{cloud.broker.port}"
            connection.execute("UPDATE fleet_address SET broker = %s", (address,))
    steps = {step["step"]: step for step in said["steps"]}
    assert (exit_code, said["heard"], steps["api"]["ok"]) == (1, False, True)
    assert (steps["broker"]["code"], bool(steps["broker"]["cure"])) == ("broker-refused", True)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ('[cloud]\nbroker = "mqtt://127.0.0.1:1883"\n', "config-other-cloud"),
        ('[cloud]\nbrocker = "mqtt://127.0.0.1:1883"\n', "config"),
    ],
)
def test_a_configuration_in_the_way_is_told(cloud: Cloud, tmp_path: Path, more: str, code: str) -> None:
    exit_code, said = Device(tmp_path, cloud, more).enroll(cloud.code(f"own-{code}"))
    steps = {step["step"]: step for step in said["steps"]}
    assert (exit_code, said["heard"], steps["config"]["code"]) == (1, True, code)
    assert steps["config"]["cure"]


def test_not_a_cloud_at_all(tmp_path: Path, cloud: Cloud) -> None:
    device = Device(tmp_path, cloud)
    assert device.enroll("ABCD-EFGH-JKMN", url="https://127.0.0.1:9")[1]["error"]["code"] == "api-refused"
    plain = f"https://{HOST}:{cloud.broker.cloud_port}"
    assert device.enroll("ABCD-EFGH-JKMN", url=plain)[0] in (2, 3)
    assert device.enroll("ABCD-EFGH-JKMN", url="ftp://x")[1]["error"]["code"] == "bad-url"


WRITE_LITTLE = """
import resource, sys
from pathlib import Path
from agent import identity
from agent.errors import Broken
from wire.enrolment import Identity
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
told = Identity.model_validate_json(sys.stdin.read())
try:
    identity.install(Path(sys.argv[1]), told, (Path(sys.argv[1]) / "other.key").read_bytes())
except Broken as error:
    print(error.code)
"""


def test_a_disk_that_breaks_half_way_leaves_the_old_identity(cloud: Cloud, tmp_path: Path) -> None:
    device = enrolled(tmp_path, cloud, "brittle")
    before = {path.name: path.read_bytes() for path in device.files.iterdir()}
    code = enrolment.parse_code(cloud.code("brittle", "--replace"))
    contact, request = FirstContact(cloud.url), identity.make_request()
    told = contact.enrol(code, contact.hello(code), request.csr)
    (device.state / "other.key").write_bytes(request.key)
    command = [sys.executable, "-c", WRITE_LITTLE, str(device.state)]
    said = subprocess.run(command, input=told.model_dump_json(), capture_output=True, text=True, check=True)
    assert said.stdout == "identity-folder\n"
    assert {path.name: path.read_bytes() for path in device.files.iterdir()} == before
    assert device.api("GET", "/v1/device").status_code == 200
    identity.install(device.state, told, request.key)
    assert device.api("GET", "/v1/device").status_code == 200
    assert (device.files / "device.crt").read_text() == told.certificate
    assert [path.name for path in (device.state / "identity.d").iterdir()] == [device.files.readlink().name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_the_identity_to_the_agents_user(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "USER", "nobody")
    device = enrolled(tmp_path, cloud, "given")
    nobody = pwd.getpwnam("nobody").pw_uid
    link = device.state / "identity"
    owned = [device.state, link, *device.files.iterdir(), device.state / "identity.d", link.resolve()]
    assert {path.lstat().st_uid for path in owned} == {nobody}
    assert mode_of(device.files / "device.key") == 0o600


def test_an_operators_own_mosquitto_runs_as_it_was_written(cloud: Cloud, tmp_path: Path) -> None:
    folder, ports = tmp_path / "broker", [free_port(), free_port()]
    words = ["--port", str(ports[0]), "--cloud-port", str(ports[1]), "--host", HOST, "--listen", HOST]
    said = cloud.fleet("broker-config", str(folder), *words)
    assert said["broker"] == f"mosquitto -c {folder / 'broker.conf'}"
    assert mode_of(folder / "server.key") == 0o600
    device = enrolled(tmp_path, cloud, "elsewhere")
    password = (folder / "passwords" / "cloud").read_text().strip()
    mosquitto = subprocess.Popen([find(), "-c", folder / "broker.conf"], stderr=subprocess.DEVNULL)
    try:
        wait_for("mosquitto to listen", (folder / "broker.pid").exists)
        options = mqtt.Options(HOST, ports[1], "one", "cloud", password, subscriptions=(("shelfwire/v1/#", 1),))
        with connected(lambda: started(options)) as ours, connected(lambda: device.session(port=ports[0])) as theirs:
            assert not puback(theirs, own_topic("elsewhere")).failed
            assert next_of(ours, mqtt.Message).topic == own_topic("elsewhere")
        before = (folder / "server.crt").read_bytes(), password
        cloud.fleet("broker-config", str(folder), *words)
        after = (folder / "server.crt").read_bytes(), (folder / "passwords" / "cloud").read_text().strip()
        assert (before[0] != after[0], before[1] == after[1]) == (True, True), "a new certificate, the same password"
    finally:
        mosquitto.terminate()
        mosquitto.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_an_answer_for_another_key_is_not_taken(cloud: Cloud, tmp_path: Path) -> None:
    from agent.errors import Rejected

    code = enrolment.parse_code(cloud.code("swapped"))
    contact = FirstContact(cloud.url)
    told = contact.enrol(code, contact.hello(code), identity.make_request().csr)
    with pytest.raises(Rejected) as refused:
        identity.install(tmp_path, told, identity.make_request().key)
    assert refused.value.code == "bad-certificate"


def test_operators_see_who_is_who(cloud: Cloud) -> None:
    cloud.code("listed")
    listed = {row["device"]: row for row in cloud.fleet("device", "list")["devices"]}
    assert listed["listed"]["state"] == "code given"
    assert cloud.fleet("device", "show", "nobody", code=2)["error"]["code"] == "device-unknown"
    assert cloud.fleet("device", "revoke", "nobody", code=2)["error"]["code"] == "device-unknown"
    assert cloud.fleet("device", "add", "a/b", "--store", "s", code=2)["error"]["code"] == "bad-device"
    assert cloud.fleet("device", "revoke", "listed")["state"] == "revoked"


def test_the_database_holds_no_code(cloud: Cloud) -> None:
    code = enrolment.parse_code(cloud.code("hashed"))
    with psycopg.connect(cloud.dsn) as connection:
        row: Any = connection.execute("SELECT c::text, c.salt FROM fleet_code c WHERE device = 'hashed'").fetchone()
    assert code.secret not in row[0]
    keys = enrolment.stretch(code, bytes(row[1]))
    assert keys.device.hex() not in row[0], "what the device shows is kept as a digest"
