"""The way to the cloud through real servers: each way to fail is told from the others, and names who mends it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_servers import Authority, Silent, api, free_port, server_context, serving, swallowing

from agent.cli import main
from agent.config import Config, parse
from agent.link.certificate import read_file
from agent.link.hops import Way
from agent.link.trace import Sync, to_api, to_broker, walk

ALONE = Sync(False, {})
PATIENCE_S = 3.0


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


def config(broker: str = "", api: str = "", ca: Path | None = None, more: str = "") -> Config:
    lines = ['[device]\nid = "till-3"\n[cloud]']
    lines += [f'broker = "{broker}"'] if broker else []
    lines += [f'api = "{api}"'] if api else []
    lines += [f'ca_file = "{ca}"'] if ca else []
    return parse("\n".join([*lines, more]))


def broker_at(port: int, ours: Authority, host: str = "localhost", more: str = "") -> Way:
    given = config(f"mqtts://{host}:{port}", ca=ours.file, more=more)
    return to_broker(given, ALONE, PATIENCE_S, log_in=False)


def stopped(way: Way) -> tuple[str, str]:
    hop = way.broken
    assert hop is not None, way
    assert hop.cure
    assert hop.who
    return hop.name, hop.code


def test_a_certificate_of_ours(ours: Authority) -> None:
    with serving(Silent, server_context(ours.issue("localhost"))) as port:
        way = broker_at(port, ours)
    assert way.broken is None
    assert [hop.name for hop in way.hops if hop.ok] == ["dns", "tcp", "tls"]
    assert way.days_left == pytest.approx(90, abs=0.1)


@pytest.mark.parametrize(
    ("days", "code"), [((-100, -10), "NET-10"), ((10, 100), "TIME-1")], ids=["expired", "not valid yet"]
)
def test_a_certificate_at_the_wrong_time(ours: Authority, days: tuple[float, float], code: str) -> None:
    with serving(Silent, server_context(ours.issue("localhost", *days))) as port:
        way = broker_at(port, ours)
    assert stopped(way) == ("tls", code)
    assert "certificate of localhost" in way.broken.detail


def test_a_certificate_for_another_name(ours: Authority) -> None:
    with serving(Silent, server_context(ours.issue("elsewhere"))) as port:
        assert stopped(broker_at(port, ours)) == ("tls", "NET-11")
        assert stopped(broker_at(port, ours, "127.0.0.1")) == ("tls", "NET-11")


def test_tls_that_is_intercepted_names_the_interceptor(ours: Authority, tmp_path: Path) -> None:
    theirs = Authority(tmp_path, "NetGuard Inspection CA")
    with serving(Silent, server_context(theirs.issue("localhost"))) as port:
        way = broker_at(port, ours)
    assert stopped(way) == ("tls", "NET-9")
    assert "issued by NetGuard Inspection CA" in way.broken.detail
    assert way.broken.who == "the shop's IT"


def test_no_tls_at_this_port(ours: Authority) -> None:
    with serving(api()) as port:
        assert stopped(broker_at(port, ours)) == ("tls", "NET-12")


def test_a_server_that_wants_a_certificate(ours: Authority) -> None:
    own, key = ours.issue("till-3")
    files = f'cert_file = "{own}"\nkey_file = "{key}"'
    with serving(Silent, server_context(ours.issue("localhost"), clients=ours.file)) as port:
        assert stopped(broker_at(port, ours)) == ("tls", "NET-13")
        assert broker_at(port, ours, more=files).broken is None


def test_refused_and_swallowed(ours: Authority) -> None:
    way = broker_at(free_port(), ours)
    assert stopped(way) == ("tcp", "NET-7")
    with swallowing() as port:
        way = broker_at(port, ours)
        assert stopped(way) == ("tcp", "NET-6")
        assert f"port {port}" in way.broken.cure
        assert way.broken.who == "the shop's IT"


def test_when_nothing_at_all_answers_the_provider_is_called(ours: Authority) -> None:
    with swallowing() as one, swallowing() as two:
        ways = walk(config(f"mqtts://localhost:{one}", f"https://localhost:{two}", ours.file), ALONE, PATIENCE_S)
    assert [stopped(way) for way in ways] == [("tcp", "NET-20")] * 2
    assert ways[0].broken.who == "the network provider"


def test_a_name_that_nobody_knows(ours: Authority) -> None:
    way = to_broker(config("mqtts://nothing.invalid:8883", ca=ours.file), ALONE, PATIENCE_S)
    name, code = stopped(way)
    assert name == "dns" or code in ("NET-1", "NET-2", "NET-3")  # whatever network this machine has
    assert code in ("NET-1", "NET-2", "NET-3", "NET-4", "NET-5")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (api(302, location="http://login.hotel.example/"), "NET-8"),
        (api(511, "text/html"), "NET-8"),
        (api(200, "text/html", b"<html>Welcome to our Wi-Fi</html>"), "NET-8"),
        (api(503), "NET-16"),
        (api(404), "NET-16"),
        (api(403), "NET-13"),
        (Silent, "NET-16"),
    ],
)
def test_what_answers_in_the_apis_place(answer: type, code: str) -> None:
    with serving(answer) as port:
        way = to_api(config(api=f"http://localhost:{port}"), 1.0)
    assert stopped(way) == ("answer", code)


def test_the_api_is_well_and_tells_the_time(ours: Authority) -> None:
    with serving(api(ahead_s=-7200), server_context(ours.issue("localhost"))) as port:
        way = to_api(config(api=f"https://localhost:{port}", ca=ours.file), PATIENCE_S)
    assert way.broken is None
    assert way.skew_s == pytest.approx(7200, abs=3)


def test_a_login_page_explains_a_foreign_certificate(ours: Authority, tmp_path: Path) -> None:
    theirs = Authority(tmp_path, "Hotel gateway")
    page = api(302, location="http://login.hotel.example/")
    with serving(Silent, server_context(theirs.issue("localhost"))) as secure, serving(page) as clear:
        ways = walk(config(f"mqtts://localhost:{secure}", f"http://localhost:{clear}", ours.file), ALONE, PATIENCE_S)
    assert [stopped(way) for way in ways] == [("tls", "NET-8"), ("answer", "NET-8")]
    assert "login.hotel.example" in ways[0].broken.detail


@pytest.mark.parametrize(("ahead_s", "code"), [(0, "NET-10"), (-30 * 86_400, "TIME-1")])
def test_an_expired_certificate_or_a_wrong_clock(ours: Authority, ahead_s: float, code: str) -> None:
    """The API's own clock tells which of the two it is, though its certificate cannot be trusted either."""
    context = server_context(ours.issue("localhost", -100, -10))
    with serving(Silent, context) as broker, serving(api(ahead_s=ahead_s), context) as cloud:
        ways = walk(config(f"mqtts://localhost:{broker}", f"https://localhost:{cloud}", ours.file), ALONE, PATIENCE_S)
    assert [stopped(way) for way in ways] == [("tls", code)] * 2


SAYS = {"connected": True, "broker": "b", "code": "", "message": "", "hint": "", "at": "2026-01-01T09:00:00.000000Z"}


@pytest.mark.parametrize(
    ("link", "hop", "code"),
    [
        (SAYS, "", ""),
        ({**SAYS, "connected": False, "code": "broker-auth", "message": "no", "hint": "mend"}, "login", "NET-13"),
        ({**SAYS, "connected": False, "code": "broker-twin", "message": "no", "hint": "mend"}, "login", "NET-18"),
        ({**SAYS, "code": "cloud-away", "message": "no", "hint": "mend"}, "echo", "NET-17"),
    ],
)
def test_while_sync_runs_it_is_believed(ours: Authority, link: dict[str, object], hop: str, code: str) -> None:
    with serving(Silent, server_context(ours.issue("localhost"))) as port:
        way = to_broker(config(f"mqtts://localhost:{port}", ca=ours.file), Sync(True, link), PATIENCE_S)
    assert (way.broken is None) == (not code)
    if code:
        assert stopped(way) == (hop, code)


def test_a_certificate_is_read_from_its_file(ours: Authority, tmp_path: Path) -> None:
    own, _ = ours.issue("till-3")
    found = read_file(own)
    assert (found.subject, found.issuer) == ("till-3", "Shelfwire test authority")
    assert (found.ends - found.begins).days == 91
    broken = tmp_path / "broken.crt"
    for content in ("", "nothing", own.read_text()[:300] + "\n-----END CERTIFICATE-----\n"):
        broken.write_text(content)
        with pytest.raises(ValueError):
            read_file(broken)


NETWORKS = {
    "NET-1": "true",
    "NET-2": "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up",
    "NET-3": "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up"
    " && ip address add 198.51.100.2/24 dev v0 nodad",
}
"""Networks of their own, and what they lack: a link, an address, a way out."""
PRIVATE = ["unshare", "--map-root-user", "--net", "sh", "-c"]


@pytest.fixture
def private_network() -> None:
    able = shutil.which("ip") and shutil.which("unshare")
    if not able or subprocess.run([*PRIVATE, NETWORKS["NET-2"]], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no networks of one's own")


@pytest.mark.usefixtures("private_network")
@pytest.mark.parametrize("code", NETWORKS)
def test_a_network_that_is_not_there(tmp_path: Path, code: str) -> None:
    file = tmp_path / "device.toml"
    file.write_text('[device]\nid = "till-3"\n[cloud]\nbroker = "mqtts://203.0.113.9:8883"\n')
    command = f"{NETWORKS[code]} && exec {sys.executable} -m agent.cli net --json --limit 3 -c {file}"
    answer = subprocess.run([*PRIVATE, command], capture_output=True, text=True, check=False, timeout=60)
    assert answer.returncode == 2, answer.stderr
    assert json.loads(answer.stdout)["code"] == code


@pytest.fixture
def silenced(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "device.toml"
    with swallowing() as port:
        file.write_text(f'[device]\nid = "till-3"\n[cloud]\nbroker = "mqtts://localhost:{port}"\n')
        yield file


def test_the_command_names_who_mends_it(silenced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net", "--limit", "2", "-c", str(silenced)]) == 2
    said = capsys.readouterr().out
    assert "who mends: the shop's IT" in said
    assert "not reached: tls, login, echo" in said
    assert said.splitlines()[-1] == "Code: NET-6"
    assert main(["net", "--json", "--limit", "2", "-c", str(silenced)]) == 2
    hops = json.loads(capsys.readouterr().out)["ways"][0]["hops"]
    assert hops[-1]["who"] == "the shop's IT"
    assert [hop["name"] for hop in hops][-2:] == ["dns", "tcp"]
