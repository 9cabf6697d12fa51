"""The device's page beyond its own machine: refused without password and TLS, and what it takes with both."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests
from local_device import camera, command, running, wait_until_ready, write_config

CAMERA = camera("cam-1", "synthetic:1?width=320&height=180")
PEM = Path(__file__).parent.parent / "contract" / "camera_tls.pem"
PASSWORD = "a long one"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_it_does_not_listen_to_the_network_without_password_and_tls(tmp_path: Path) -> None:
    config = write_config(tmp_path, CAMERA, f'address = "0.0.0.0"\nport = {free_port()}')
    ended = subprocess.run(command(config), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "everybody in the network could come in" in ended.stderr
    assert "ssh -L" in ended.stderr


def test_with_both_one_logs_in_over_tls(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    port = free_port()
    files = f'password_file = "{tmp_path / "password"}"\ncert_file = "{PEM}"\nkey_file = "{PEM}"'
    config = write_config(tmp_path, CAMERA, f'address = "0.0.0.0"\nport = {port}\n{files}')
    url = f"https://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command(config), stderr=log)
    try:
        wait_until_ready(url, process, tmp_path / "log", verify=False)
        browser = requests.Session()
        browser.trust_env, browser.verify = False, False
        browser.headers["Accept"] = "text/html"
        asked = browser.get(f"{url}/local/state")
        assert asked.url == f"{url}/login"
        wrong = browser.post(f"{url}/login", {"password": "nothing"})
        assert wrong.status_code == 403
        assert "That is not the password" in wrong.text
        assert browser.get(f"{url}/").url == f"{url}/login"
        assert browser.post(f"{url}/login", {"password": PASSWORD}).url == f"{url}/"
        assert browser.get(f"{url}/local/state").json()["device"] == "till-3"
        stranger = {"Origin": "https://evil.example"}
        assert browser.post(f"{url}/logout", headers=stranger).status_code == 403
        assert browser.post(f"{url}/logout").url == f"{url}/login"
        assert browser.get(f"{url}/local/state").url == f"{url}/login"
        program = requests.get(f"{url}/v2", auth=("anybody", PASSWORD), verify=False, timeout=10)
        assert program.json()["name"] == "shelfwire"
        without = requests.get(f"{url}/v2", verify=False, timeout=10)
        assert (without.status_code, "[login]" in without.json()["error"]) == (401, True)
        with pytest.raises(requests.RequestException):
            requests.get(f"http://127.0.0.1:{port}/", timeout=10)
    finally:
        process.terminate()
        process.wait(30)
    assert process.returncode == 0


def test_a_reload_takes_up_the_socket_that_was_handed_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))  # a reload needs a service manager
        with running(tmp_path / "device", CAMERA) as device:
            config = tmp_path / "device" / "device.toml"
            config.write_text(config.read_text().replace("till-3", "till-4"))
            device.process.send_signal(signal.SIGHUP)
            until_s = time.monotonic() + 30
            while name_of(device.url) != "till-4":
                assert time.monotonic() < until_s
                time.sleep(0.05)
            assert requests.get(f"{device.url}/v2/models/produce/ready", timeout=10).ok


def name_of(url: str) -> str:
    """The device's name; whoever comes while it reloads waits for the answer, or is cut off and comes again."""
    try:
        return str(requests.get(f"{url}/local/state", timeout=30).json()["device"])
    except requests.ConnectionError:
        return ""
